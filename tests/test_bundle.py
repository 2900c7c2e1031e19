"""deploy/bundle and deploy/install as people run them: the bundle made here, unpacked and installed on a machine
without network, with its real systemd, under the limits of the unit.
"""

import json
import re
import shutil
import subprocess
import tarfile

import pytest

from proxy import __version__
from tests.real.machine import on_a_machine_of_its_own
from tests.real.tidegate import ROOT

pytestmark = pytest.mark.real("unshare", "mount", "systemd-nspawn", "skopeo")

SCRIPT = """
section() { printf '\\n==== %s\\n' "$1"; }
cp -r /root/brought/tidegate-* /root/bundle; cd /root/bundle
section first; deploy/install; echo "status $?"
section ready; curl -s http://127.0.0.1:5000/readyz; systemctl is-active tidegate; systemctl is-enabled tidegate
section files
stat -c '%n %U %G %a' /etc/tidegate /etc/tidegate/tidegate.toml /var/lib/tidegate /var/lib/tidegate/admin.sock
readlink /opt/tidegate/current
section second; deploy/install; echo "status $?"
section push
printf '[server]\\nlisten = "0.0.0.0:5000"\\nunqualified = ["local"]\\n[local]\\n' >/etc/tidegate/tidegate.toml
systemctl restart tidegate
head -c 3000000 /dev/urandom >/root/layer; mkdir /root/image
printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}' >/root/config
digest() { sha256sum "$1" | cut -d' ' -f1; }
cp /root/layer "/root/image/$(digest /root/layer)"; cp /root/config "/root/image/$(digest /root/config)"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":\
"application/vnd.oci.image.config.v1+json","size":%s,"digest":"sha256:%s"},"layers":[{"mediaType":\
"application/vnd.oci.image.layer.v1.tar","size":%s,"digest":"sha256:%s"}]}' $(stat -c %s /root/config) \
  $(digest /root/config) $(stat -c %s /root/layer) $(digest /root/layer) >/root/image/manifest.json
printf 'Directory Transport Version: 1.1\\n' >/root/image/version
copy() { skopeo --insecure-policy copy -q --preserve-digests "$@"; echo "status $?"; }
copy --dest-tls-verify=false dir:/root/image docker://127.0.0.1:5000/dev/app:1
copy --src-tls-verify=false docker://127.0.0.1:5000/dev/app:1 dir:/root/back
cmp /root/layer "/root/back/$(digest /root/layer)" && echo same
tidegate scrub; echo "status $?"; tidegate status; echo "status $?"
section socket
systemctl disable --quiet --now tidegate.service; systemctl enable --quiet --now tidegate.socket tidegate.service
curl -s http://127.0.0.1:5000/healthz; journalctl -q -u tidegate -o cat | tail -4
section reload
main() { systemctl show -p MainPID --value tidegate; }
pushed() { curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:5000/v2/dev/app/tags/list; }
lives() { curl -s http://127.0.0.1:5000/healthz; systemctl is-active tidegate
[ "$before" != "$(main)" ] || echo same; }
before=$(main); printf 'pushed %s\n' "$(pushed)"
printf '[server]\nlisten = "0.0.0.0:5000"\nunqualified = ["registry.k8s.io"]\n' >/etc/tidegate/tidegate.toml
systemctl reload tidegate; echo "status $?"
while [ "$(pushed)" = 200 ]; do sleep 0.1; done; lives
printf '[servr]\n' >/etc/tidegate/tidegate.toml; systemctl reload tidegate; echo "status $?"
until journalctl -q -u tidegate -o cat | grep -m1 servr; do sleep 0.1; done; lives
section wrong
printf '[server\\n' >/etc/tidegate/tidegate.toml; deploy/install; echo "status $?"; curl -s http://127.0.0.1:5000/healthz
section upgrade
printf '[server]\\nlisten = "0.0.0.0:5000"\\n' >/etc/tidegate/tidegate.toml
echo >>pyproject.toml; deploy/install; echo "status $?"; ls /opt/tidegate/releases | wc -l
section log; journalctl -q -u tidegate -o cat
section remove; deploy/install --remove; echo "status $?"; ls -d /opt/tidegate /etc/tidegate /var/lib/tidegate
curl -s http://127.0.0.1:5000/healthz || echo gone
section user; setpriv --reuid nobody --clear-groups deploy/install; echo "status $?"
deploy/install --help; echo "status $?"
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """An unpacked bundle of this checkout, made in a copy of it: the folder that holds it."""
    folder = tmp_path_factory.mktemp("bundle")
    passed_over = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "dist", "tests")
    shutil.copytree(ROOT, folder / "checkout", ignore=passed_over)
    done = subprocess.run([folder / "checkout/deploy/bundle"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with tarfile.open(folder / "checkout" / done.stdout.splitlines()[0]) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def said(bundle, tmp_path_factory):
    """What the script said, by section."""
    output = on_a_machine_of_its_own(SCRIPT, bundle, tmp_path_factory.mktemp("machine"))
    parts = re.split(r"^==== (\w+)$", output, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_bundle_says_what_is_in_it_and_what_is_known_of_it(bundle):
    (top,) = bundle.iterdir()
    assert top.name.startswith(f"tidegate-{__version__}-cp3")
    inside = json.loads((top / "sbom.cdx.json").read_text())
    names = {each["name"].replace("-", "_").lower() for each in inside["components"]}
    assert names >= {"aiohttp", "aiofiles", "diskcache", "prometheus_client", "click", "bcrypt", "yarl", "multidict"}
    assert inside["metadata"]["component"]["name"] == "tidegate"
    wheels = {path.name.partition("-")[0].lower() for path in (top / "wheels").glob("*.whl")}
    assert names - {"pip", "setuptools", "tidegate"} <= wheels
    (known,) = json.loads((top / "vex.cdx.json").read_text())["vulnerabilities"]
    assert (known["id"], known["analysis"]["state"]) == ("CVE-2025-69872", "not_affected")
    (test,) = re.findall(r"tests/[\w/]+\.py", known["analysis"]["detail"])
    assert "pickle.dumps" in (ROOT / test).read_text()


def test_installing_starts_the_service_and_ends_with_the_doctors_word(said):
    text = said["first"]
    for line in (
        "user      tidegate made",
        "is current",
        "/etc/tidegate/tidegate.toml: look at it",
        "running   as tidegate",
    ):
        assert line in text
    assert "FAIL  dns      registry.k8s.io" in text, "there is no network"
    assert "the service runs, its way out does not yet" in text
    assert text.strip().endswith("status 0")
    assert said["ready"].split("\n")[1:4] == ["ok", "active", "enabled"]


def test_files_have_the_owners_and_modes_that_are_told(said):
    assert [line for line in said["files"].splitlines() if line][:4] == [
        "/etc/tidegate root tidegate 750",
        "/etc/tidegate/tidegate.toml root tidegate 640",
        "/var/lib/tidegate tidegate tidegate 750",
        "/var/lib/tidegate/admin.sock tidegate tidegate 660",
    ]
    assert f"releases/{__version__}-" in said["files"]


def test_installing_again_changes_nothing(said):
    assert said["second"].lstrip().startswith("running   as tidegate.service")
    assert said["second"].strip().endswith("status 0")


def test_it_works_within_the_limits_of_the_unit(said):
    assert said["push"].count("status 0") == 4, said["push"]
    assert "same" in said["push"]


def test_with_the_socket_unit_systemd_holds_the_port(said):
    assert "ok" in said["socket"]
    assert "serving  http://" in said["socket"]


def test_a_reload_takes_new_settings_and_wrong_ones_leave_the_old(said):
    good, wrong = said["reload"].split("status 0")[1:]
    assert "pushed 200" in said["reload"]
    assert good.split() == wrong.split()[-3:] == ["ok", "active", "same"], "and the main process is the same"
    assert "unknown section [servr]; did you mean server?" in wrong


def test_wrong_settings_are_named_and_what_runs_goes_on(said):
    assert "/etc/tidegate/tidegate.toml:1: not TOML" in said["wrong"]
    assert "is wrong, see above; nothing was restarted" in said["wrong"]
    assert "status 1\nok" in said["wrong"]


def test_another_release_replaces_the_first_which_stays_for_the_way_back(said):
    assert re.search(r"release   \S+ is current, before it was \S+", said["upgrade"])
    assert said["upgrade"].strip().endswith("status 0\n2")


def test_removing_keeps_what_is_not_ours_to_remove(said):
    assert "removed; /etc/tidegate, /var/lib/tidegate and the user tidegate are kept" in said["remove"]
    assert said["remove"].strip().endswith("/etc/tidegate\n/var/lib/tidegate\ngone")


def test_who_may_not_and_what_is_wrong_is_one_line(said):
    assert "run it as root" in said["user"]
    assert "usage: deploy/install [--remove]" in said["user"]
    assert said["user"].count("status 1") == 2


def test_nothing_was_said_that_nobody_should_see(said):
    assert "Traceback" not in said["log"]
    assert "Permission denied" not in said["log"]
