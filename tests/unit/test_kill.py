"""kill -9 at every step of a commit, of a row and of an eviction: nothing wrong is there afterwards, nothing that was
promised is lost, and what is left over goes.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.care import census, plan
from proxy.oci.digest import Digest
from proxy.oci.names import Repo
from proxy.registry.content import keep_content
from proxy.registry.rows import Rows
from proxy.store import catalogue, index
from proxy.store.ingest import Store
from tests.unit.builders import ROOT
from tests.unit.killer import MANIFEST, NEW, OLD

CONTENT = {Digest.of(content).text: content for content in (OLD, NEW, MANIFEST)}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A data folder for every step, in the order of the steps; the last one came through."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.killer", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    yield [(folder / str(number), (folder / f"{number}.promised").read_text().splitlines()) for number in numbers]
    shutil.rmtree(folder)


def check(data, promised):
    """What the next start makes of a folder."""
    names, (_, books) = index.prepare(str(data / "index")), catalogue.prepare(str(data / "catalogue"))
    assert (names, books) == ("", ""), "a kill damages no database"
    rows_of, kept = index.Index(str(data / "index")), catalogue.Catalogue(str(data / "catalogue"), plan.rank)
    with ThreadPoolExecutor(1) as pool:
        store = Store(str(data), pool, pool, kept)
        store.parts.settle()
        before = {name for name, _ in store.files.walk()}
        assert before <= {row.digest for row in kept.all()}, "no file is ever unaccounted"
        census.count(store.files, kept)
        for name in before:
            with open(store.files.path(Digest.parse(name)), "rb") as file:
                assert file.read() == CONTENT[name]
        for content, word in ((OLD, "old"), (MANIFEST, "manifest"), (NEW, "new")):
            may_be_gone = word not in promised or f"may go: {word}" in promised
            assert may_be_gone or Digest.of(content).text in before, word
        if "row" in promised:
            assert Rows(rows_of, "up", True).manifest(Repo.parse("a"), Digest.of(MANIFEST)).media_type == "x/y"
        assert {row.digest for row in kept.all()} == before
        assert kept.sums()[1] == len(before)
        asyncio.run(refill(store))
        store.parts.sweep(-1)
        assert os.listdir(data / "ingest") == []
        assert {name for name, _ in store.files.walk()} == {row.digest for row in kept.all()} == CONTENT.keys()
    rows_of.close()
    kept.close()


async def refill(store):
    """Whoever pulls now gets everything, whatever was left over."""
    for content in CONTENT.values():
        await keep_content(store, Digest.of(content), content)


def test_a_kill_at_any_step(killed):
    assert len(killed) > 60, "every step of the work was a place to die"
    assert killed[-1][1][-1] == "new"
    assert {len(promised) for _, promised in killed} == set(range(6)), "each promise was the last one of some child"
    for data, promised in killed:
        check(data, promised)
