"""The circuit of one way out: when it opens, who may look whether the upstream is back, and that all workers agree."""

import asyncio

import pytest

from proxy import policy
from proxy.errors import Unavailable
from proxy.policy import CircuitState
from proxy.store.board import Board
from proxy.store.circuit import Circuit
from tests.unit.builders import run


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(tmp_path):
    board = Board(str(tmp_path / "board"))
    yield board
    board.close()


@pytest.fixture
def circuit(board, tmp_path, clock):
    return Circuit(board, 0, "registry.k8s.io", str(tmp_path / "ways"), clock)


def down(label="connect", pause=0):
    return Unavailable("registry.k8s.io: no connection: refused", label=label, pause=pause)


def fail(circuit, times=policy.FAILURES_TO_OPEN, **error):
    for _ in range(times):
        circuit.failed(down(**error))


def test_it_opens_after_so_many_failures_and_says_their_cause(circuit):
    fail(circuit, policy.FAILURES_TO_OPEN - 1)
    circuit.enter()
    assert not circuit.up
    fail(circuit, 1)
    assert circuit.state is CircuitState.OPEN
    with pytest.raises(Unavailable) as refused:
        circuit.enter()
    assert refused.value.label == "circuit"
    assert refused.value.message.startswith("registry.k8s.io: no connection: refused (asked again in ")
    assert 1 <= refused.value.retry_after <= 3


def test_an_answer_in_between_starts_the_count_anew(circuit):
    fail(circuit, policy.FAILURES_TO_OPEN - 1)
    circuit.heard()
    assert circuit.up
    fail(circuit, policy.FAILURES_TO_OPEN - 1)
    circuit.enter()


@pytest.mark.parametrize("label", ["body", "throttled", "refused", "circuit", "other"])
def test_what_is_no_sign_of_an_upstream_that_is_away_never_opens_it(circuit, label):
    fail(circuit, 100, label=label)
    circuit.enter()
    assert circuit.up == (label in ("refused", "circuit")), "where nobody was asked nothing was learned"


def test_half_open_lets_one_through_until_it_is_back(circuit, clock):
    fail(circuit)
    clock.now += 3
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.enter()
    with pytest.raises(Unavailable):
        circuit.enter()
    circuit.heard()
    assert circuit.state is CircuitState.CLOSED
    circuit.enter()


def test_a_prober_that_never_comes_back_costs_seconds(circuit, clock):
    fail(circuit)
    clock.now += 3
    circuit.enter()
    clock.now += policy.PROBE + 0.1
    circuit.enter()


def test_every_failed_probe_makes_the_wait_longer_up_to_a_limit(circuit, clock):
    fail(circuit)
    waits = []
    for _ in range(8):
        with pytest.raises(Unavailable) as refused:
            circuit.enter()
        waits.append(refused.value.retry_after)
        clock.now += refused.value.retry_after
        circuit.enter()
        circuit.failed(down())
    assert waits[0] <= 3
    assert waits[0] < waits[2] < waits[4]
    assert max(waits) <= 37


def test_a_pause_that_was_asked_for_is_kept(circuit, clock):
    fail(circuit, 1, label="throttled", pause=7)
    with pytest.raises(Unavailable) as refused:
        circuit.enter()
    assert (refused.value.label, refused.value.retry_after) == ("throttled", 7)
    clock.now += 7.1
    circuit.enter()


def test_what_one_process_learns_all_go_by(circuit, board, tmp_path):
    code = (
        "import sys\nfrom proxy.errors import Unavailable\nfrom proxy.store.board import Board\n"
        "from proxy.store.circuit import Circuit\n"
        "circuit = Circuit(Board(sys.argv[1]), 0, 'registry.k8s.io', sys.argv[2])\n"
        f"for _ in range({policy.FAILURES_TO_OPEN}):\n"
        "    circuit.failed(Unavailable('registry.k8s.io: the cause', label='dns'))\n"
    )
    run(code, tmp_path / "board", tmp_path / "ways")
    here = Circuit(board, 0, "registry.k8s.io", str(tmp_path / "ways"))
    with pytest.raises(Unavailable, match="the cause"):
        here.enter()
    other = Circuit(board, 1, "mirror.corp", str(tmp_path / "ways"))
    other.enter()
    assert other.up, "each way has words of its own"


async def test_one_probe_among_many_who_ask_at_once(circuit, clock):
    fail(circuit)
    clock.now += 3

    async def passes():
        try:
            circuit.enter()
        except Unavailable:
            return 0
        return 1

    assert sum(await asyncio.gather(*(passes() for _ in range(50)))) == 1
