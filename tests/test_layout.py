"""What the repository promises in words is what there is: its top level, README's settings, defaults and metrics."""

import ast
import itertools
import json
import re
import subprocess

import pytest

from proxy.config.schema import DEFAULT_ALIASES, DEFAULT_UPSTREAM, EGRESS, SECRETS, SECTIONS, UPSTREAM
from tests.real.processes import fetch, program
from tests.real.tidegate import ROOT, upstream_config
from tests.support import get

TOP = {"pyproject.toml", "proxy", "deploy", "tests", "grafana", "README.md", "LICENSE"}
NAMES = ("tidegate_", "registry_proxy_")


@pytest.mark.real("git")
def test_the_top_level_holds_what_the_design_lists_and_nothing_else():
    command = [program("git"), "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    top = {path.partition("/")[0] for path in listed if path}
    assert {name for name in top if not name.startswith(".")} <= TOP
    assert top >= {"pyproject.toml", "proxy", "tests", "LICENSE"}


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


def table(text, heading):
    """The rows of the table below a heading, cells without their spaces."""
    section = text.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 2, f"README has no table {heading}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def test_every_setting_is_in_the_readme_with_its_default(readme):
    told = {key.strip("`"): default.strip("`") for key, default, *_ in table(readme, "Settings")}
    known = {f"{section}.{key}": row.default for section, keys in SECTIONS.items() for key, row in keys.items()}
    known |= {f"upstreams.NAME.{key}": row.default for key, row in UPSTREAM.items()}
    known["upstreams.NAME.urls"] = ["https://NAME"]  # these two follow from the names
    known["server.unqualified"] = [DEFAULT_UPSTREAM]
    assert told == {key: json.dumps(default, ensure_ascii=False) for key, default in known.items()}


def test_settings_in_prose_exist(readme):
    known = {*EGRESS, *UPSTREAM, *(key for keys in SECTIONS.values() for key in keys)}
    known |= {f"{key}_file" for key in SECRETS}
    examples = re.findall(r"^    (\w+) = (?=[\"\[\d])", readme, re.MULTILINE)
    foreign = {"server", "capabilities", "prefix", "location", "insecure"}  # containerd's and podman's files
    assert {key for key in examples if key not in foreign} <= known
    for section, key in re.findall(r"`(server|egress|log)\.(\w+)`", readme):
        assert key in SECTIONS[section]
    assert all(alias in readme for aliases in DEFAULT_ALIASES.values() for alias in aliases)


def expanded(name):
    """`a_{b,c}_d` as the names it stands for; a label set such as `{host=...}` stands for nothing."""
    parts = re.split(r"\{([\w,]+)\}", re.sub(r"\{\w+=.*?\}", "", name))
    choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    return {"".join(chosen) for chosen in itertools.product(*choices)}


@pytest.fixture
def exported(tidegate, far):
    """{metric: its labels} of a running server after one pull."""
    far.add_image("pause", "3.9")
    server = tidegate(upstream_config(far.url), workers=1)
    assert get(server, "/v2/pause/manifests/3.9").status == 200
    text = fetch(f"{server.url}/metrics")[1].decode()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    found = {name: set() for name, kind in kinds.items() if name.startswith(NAMES) and not name.endswith("_created")}
    for sample, labels in re.findall(r"^(\w+)(?:\{(.*?)\})? ", text, re.MULTILINE):
        name = sample if sample in kinds else re.sub(r"_(bucket|sum|count)$", "", sample)
        if name in found:
            found[name] |= set(re.findall(r'(\w+)="', labels)) - {"le", "pid"}
    return found


def test_every_metric_in_the_readme_is_exported_and_the_other_way_round(readme, exported):
    told = {}
    for names, labels, _ in table(readme, "Metrics"):
        carried = {label.strip() for label in labels.split(",") if label.strip()}
        told |= {name: carried for written in re.findall(r"`([^`]+)`", names) for name in expanded(written)}
    elsewhere = {
        name for written in re.findall(rf"`((?:{'|'.join(NAMES)})[^`]+)`", readme) for name in expanded(written)
    }
    assert elsewhere <= exported.keys()
    assert exported.keys() <= elsewhere | told.keys()
    assert {name: labels for name, labels in exported.items() if name in told and labels} == {
        name: labels for name, labels in told.items() if labels
    }


def test_every_status_in_the_readme_is_one_we_answer(readme):
    tree = ast.parse((ROOT / "proxy/errors.py").read_text())
    known = {int(text) for text in re.findall(r"\b[45]\d\d\b", ast.unparse(tree))}
    told = {int(row[0].split()[0]) for row in table(readme, "Answers")}
    assert told <= known
