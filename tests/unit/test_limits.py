"""How many connections a worker keeps, by what is set and what the machine lets it open."""

import dataclasses
import resource
from pathlib import Path

import pytest

from proxy.compose import limits
from proxy.config import ConfigError, Settings, load


def settings(folder: Path, **server: object) -> Settings:
    read = load(None, {"HOME": str(folder)}, {})
    return dataclasses.replace(read, server=dataclasses.replace(read.server, **server))


@pytest.mark.parametrize(
    ("most", "kept", "complaint"),
    [
        (20_000, 1000, ""),
        (resource.RLIM_INFINITY, 1000, ""),
        (2256, 1000, ""),
        (2255, 999, "server.max_connections 2000 needs 2256 open files a worker, the limit is 2255: 1998 connections"),
        (1024, 384, "server.max_connections 2000 needs 2256 open files a worker, the limit is 1024: 768 connections"),
        (100, 1, "server.max_connections 2000 needs 2256 open files a worker, the limit is 100: 2 connections"),
    ],
)
def test_what_does_not_fit_is_said_and_not_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most: int, kept: int, complaint: str
) -> None:
    given = [(512, most)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: given[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: given.append(pair))
    wanted = settings(tmp_path, workers=2, max_connections=2000)
    assert limits.raise_descriptors(wanted).startswith(complaint)
    assert bool(limits.raise_descriptors(wanted)) == bool(complaint)
    assert given[-1] == (most, most)
    assert limits.of(wanted).connections == kept


@pytest.mark.parametrize("wrong", ["4KiB", "2MiB", "64", "many"])
def test_a_head_has_a_size_that_tokens_fit_into(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"TIDEGATE_SERVER_MAX_HEADER_SIZE: server\.max_header_size must be"):
        load(None, {"HOME": str(tmp_path), "TIDEGATE_SERVER_MAX_HEADER_SIZE": wrong}, {})
