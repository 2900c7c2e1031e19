"""What lies in deploy/ beside the installer is right by the tools that read it: units, manifests, compose."""

import copy
import functools
import json
import operator
import os
import re
import socket
import subprocess
import sys

import jsonschema
import kubernetes_validate
import pytest
import yaml

from proxy import __version__
from proxy.config.schema import SECTIONS
from tests.real.processes import free_port, program
from tests.real.tidegate import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "tidegate.yaml").read_text()))


# systemd


@pytest.mark.real("systemd-analyze")
def test_the_units_are_right_and_tight(tmp_path):
    for name in ("tidegate.service", "tidegate.socket"):
        text = (DEPLOY / "systemd" / name).read_text()
        (tmp_path / name).write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    units = [tmp_path / "tidegate.service", tmp_path / "tidegate.socket"]
    done = subprocess.run([program("systemd-analyze"), "verify", *units], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    command = [program("systemd-analyze"), "security", "--offline=yes", "--threshold=20", units[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_service_manager_waits_longer_than_a_drain():
    text = (DEPLOY / "systemd" / "tidegate.service").read_text()
    drain = int(SECTIONS["server"]["drain"].default.removesuffix("s"))
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1]) > drain + 5
    (pod,) = [each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] == "StatefulSet"]
    assert pod["terminationGracePeriodSeconds"] > drain + 5
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert int(compose["services"]["tidegate"]["stop_grace_period"].removesuffix("s")) > drain + 5


def test_the_service_manager_is_told_when_answers_begin_and_when_they_end(tmp_path):
    address = str(tmp_path / "notify")
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        command = [
            sys.executable,
            "-m",
            "proxy",
            "serve",
            "--listen",
            f"127.0.0.1:{port}",
            "--data",
            str(tmp_path / "d"),
        ]
        environ = {**os.environ, "NOTIFY_SOCKET": address, "TIDEGATE_CONFIG": os.devnull, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            assert manager.recv(100) == b"READY=1"
            socket.create_connection(("127.0.0.1", port), 5).close()
            process.terminate()
            said = manager.recv(100)
            while said == b"READY=1":  # each worker says it
                said = manager.recv(100)
            assert said == b"STOPPING=1"


# Kubernetes, compose


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each["kind"])
def test_manifests_follow_the_schema_of_the_api(manifest):
    kubernetes_validate.validate(manifest, "1.33", strict=True)
    assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "tidegate"


def test_what_manifests_say_of_each_other_fits():
    found = {each["kind"]: each for each in MANIFESTS}
    labels = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["StatefulSet"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        yaml.safe_load((DEPLOY / "kubernetes" / "podmonitor.yaml").read_text())["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (container,) = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert found["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]
    assert container["image"].endswith(f":{__version__}")
    assert 30000 <= found["Service"]["spec"]["ports"][0]["nodePort"] <= 32767


POD_MONITOR = yaml.safe_load((DEPLOY / "kubernetes" / "podmonitor.yaml").read_text())
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "tests" / "podmonitor.schema.json").read_text()))


def test_the_pod_monitor_fits_its_resource_and_finds_our_port():
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)
    SCHEMA.validate(POD_MONITOR)
    (pod,) = [each["spec"]["template"] for each in MANIFESTS if each["kind"] == "StatefulSet"]
    ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
    assert {endpoint["port"] for endpoint in POD_MONITOR["spec"]["podMetricsEndpoints"]} <= ports
    (namespace,) = {each["metadata"]["namespace"] for each in MANIFESTS if each["kind"] == "StatefulSet"}
    assert POD_MONITOR["metadata"]["namespace"] == namespace, "without a namespaceSelector it looks in its own"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "podMetricsEndpoint"), []),
        (("spec", "podMetricsEndpoints"), []),
        (("spec", "podMetricsEndpoints", 0, "port"), 5000),
        (("spec", "podMetricsEndpoints", 0, "interval"), "30 s"),
        (("spec", "podMetricsEndpoints", 0, "targetport"), "registry"),
        (("spec", "selector", "matchLabels"), {}),
        (("spec", "selector", "matchLabel"), {"a": "b"}),
        (("metadata", "lables"), {"a": "b"}),
        (("apiVersion",), "monitoring.coreos.com/v1beta1"),
    ],
    ids=lambda each: ".".join(map(str, each)) if isinstance(each, tuple) else "",
)
def test_a_pod_monitor_that_does_not_fit_is_seen(path, value):
    broken = copy.deepcopy(POD_MONITOR)
    *above, last = path
    functools.reduce(operator.getitem, above, broken)[last] = value
    assert not SCHEMA.is_valid(broken)


@pytest.mark.parametrize("where", ["kubernetes", "install"])
def test_the_settings_that_are_shipped_are_right(where, tmp_path):
    file = tmp_path / "tidegate.toml"
    (shipped,) = [each for each in MANIFESTS if each["kind"] == "ConfigMap"]
    text = shipped["data"]["tidegate.toml"] if where == "kubernetes" else (DEPLOY / "tidegate.toml").read_text()
    for tried in (text, re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE)):  # what is commented out too
        # The files that examples name are on no machine.
        file.write_text(re.sub(r'^\w+ = "/etc/.*$', "", tried, flags=re.MULTILINE))
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "config", "-c", str(file)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_compose_names_files_that_are_there():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"tidegate", "prometheus", "grafana"}
    build = services["tidegate"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    named = set(compose["volumes"])
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in named or (DEPLOY / source).exists(), source
        assert service.get("image", "").count(":") == (0 if "build" in service else 1), "pinned to a release"
