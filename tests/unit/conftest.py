"""What unit tests share: hypothesis kept small and without traces, a store in a folder of its own.

Metrics are always in files (proxy/metrics/), so a folder for them is named before anything imports that module.
"""

import atexit
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, configuration, settings

_SCRATCH = tempfile.mkdtemp(prefix="tidegate-unit-")
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", _SCRATCH)
configuration.set_hypothesis_home_dir(os.path.join(_SCRATCH, "hypothesis"))
settings.register_profile(
    "unit", max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")

from proxy.care import plan  # noqa: E402  (after the folder is named)
from proxy.store.board import Board  # noqa: E402
from proxy.store.catalogue import Catalogue  # noqa: E402
from proxy.store.index import Index  # noqa: E402
from proxy.store.ingest import Store  # noqa: E402


@pytest.fixture
def board(tmp_path):
    made = Board(str(tmp_path / "board"))
    made.reset(1)
    yield made
    made.close()


@pytest.fixture
def catalogue(tmp_path):
    made = Catalogue(str(tmp_path / "catalogue"), plan.rank)
    yield made
    made.close()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def store(tmp_path, pool, catalogue):
    return Store(str(tmp_path / "data"), pool, pool, catalogue)


@pytest.fixture
def index(tmp_path):
    made = Index(str(tmp_path / "index"))
    yield made
    made.close()
