"""`tidegate client-config` as people run it, for the tests of its parts."""

import functools
import json
import os
import shutil
import subprocess
import sys
from textwrap import dedent

from tests.real.tidegate import ROOT, toml

URL, HOST = "http://cache.corp:5000", "cache.corp:5000"
REGISTRY, ALIAS = "registry.k8s.io", "k8s.gcr.io"
CERTS = "etc/containerd/certs.d"
HUB = '[upstreams."registry.k8s.io"]\n[upstreams."docker.io"]\n'


def command(folder, *words, config="", stdin="", **environ):
    """(status, stdout, stderr) of client-config with a configuration written to `folder`; its URL is `URL`."""
    file = folder / "config.toml"
    file.write_text(config if isinstance(config, str) else toml(config))
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "client-config", *words, "-c", str(file)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TIDEGATE_SERVER_URL": URL, **environ},
        input=stdin, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def written(run, *words, **rest):
    """{path: content} of what a client needs, where a path that comes twice has its note's first word behind it."""
    status, output, errors = run(*words, "--json", **rest)
    assert (status, errors) == (0, ""), errors
    rows = json.loads(output)
    paths = [row["path"] for row in rows]
    named = [(f"{row['path']} {row['note'][:12]}" if paths.count(row["path"]) > 1 else row["path"]) for row in rows]
    return dict(zip(named, (row["content"] for row in rows), strict=True))


def note(run, client, **rest):
    """All notes of a client's files."""
    return "\n".join(row["note"] for row in json.loads(run(client, "--json", **rest)[1]))


@functools.cache
def yaml_python():
    """A Python of this machine that can read YAML, or None."""
    for python in (sys.executable, "/usr/bin/python3", shutil.which("python3")):
        if python and subprocess.run([python, "-c", "import yaml"], capture_output=True).returncode == 0:
            return python
    return None


def assert_yaml(text, lines, document):
    """The text is these lines; where something here reads YAML, it reads this document."""
    assert text == dedent(lines)
    if python := yaml_python():
        code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
        done = subprocess.run([python, "-c", code], input=text, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == document
