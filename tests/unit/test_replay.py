"""The replay bench: policies and bounds on traces worked out by hand, the converter on what the access log writes."""

import asyncio
import json
import os
from collections import OrderedDict
from functools import cache
from itertools import combinations

import pytest
from aiohttp.test_utils import make_mocked_request
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.access import AccessLog
from proxy.http.exchange import Exchange
from tests.bench.replay import synthetic
from tests.bench.replay.__main__ import capacity, main
from tests.bench.replay.bounds import belady, infinite, most
from tests.bench.replay.log import convert
from tests.bench.replay.policies import POLICIES, lru
from tests.bench.replay.simulate import Score, replay
from tests.bench.replay.trace import DAY, Request, Trace, blocks, next_uses

SIZE = 100
HEX = "0123456789abcdef" * 4


def trace(keys, apart=100.0, sizes=None):
    """One request every `apart` seconds."""
    sizes = sizes or {}
    return Trace("by hand", [Request(at * apart, key, sizes.get(key, SIZE)) for at, key in enumerate(keys)])


def hits(score):
    return score.hits, score.hit_bytes


def test_lru_to_the_byte():
    # a b c | a hits | d evicts b | b evicts c | a, d hit | c evicts b
    score = replay(trace("abcadbadc"), 300, lru, marks=False)
    assert score == Score(requests=9, asked=900, hits=3, hit_bytes=300, evicted=300, thrash=200)


def test_lru_by_the_product_s_marks():
    # 300 is the high mark, 285 the low one: d (100 coming) asks for 115, so b and c go; b then has room, a and d hit
    score = replay(trace("abcadbadc"), 300, lru)
    assert score == Score(requests=9, asked=900, hits=3, hit_bytes=300, evicted=400, thrash=200)


def test_what_was_evicted_more_than_a_day_ago_is_no_thrash():
    assert replay(trace("aba", apart=DAY / 2 - 1), 100, lru, marks=False).thrash == 100
    assert replay(trace("aba", apart=DAY), 100, lru, marks=False).thrash == 0


def test_what_was_just_used_is_not_evicted_and_what_has_no_room_is_passed_on():
    score = replay(trace("abab", apart=1.0), 100, lru)
    assert (hits(score), score.evicted, score.passed) == ((1, 100), 0, 200)


def test_what_was_spared_once_goes_when_its_time_has_come():
    requests = [Request(at, key, 100) for at, key in ((0, "a"), (1, "b"), (200, "b"), (201, "b"))]
    score = replay(Trace("", requests), 100, lru)
    assert (score.hits, score.evicted, score.passed) == (1, 100, 100)


def test_what_was_evicted_once_is_fetched_again_once():
    requests = [Request(at, key, 100) for at, key in ((0, "a"), (100, "b"), (101, "a"), (102, "a"))]
    score = replay(Trace("", requests), 100, lru)
    assert (score.evicted, score.passed, score.thrash) == (100, 200, 100)


def test_larger_than_the_cache_is_never_kept_and_evicts_nothing():
    score = replay(trace("abba", sizes={"b": 301}), 300, lru)
    assert (score.hits, score.evicted, score.passed) == (1, 0, 602)


def test_sizes_count():
    # c takes both places of a and b
    score = replay(trace("abcab", sizes={"c": 200}), 200, lru, marks=False)
    assert (hits(score), score.evicted) == ((0, 0), 400)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("lru", "acb"),
        ("manifests-last", "acb"),
        ("fifo", "abc"),
        ("lfu", "cba"),
        ("lfu-aged", "cba"),
        ("gdsf", "bca"),  # uses per byte are the same, b comes first in the alphabet
        ("once-first", "cab"),
        ("uses-hours", "cba"),
        ("size", "abc"),
    ],
)
def test_who_goes_first(name, order):
    # a is the first and the most used, b the last used, c (the smallest) the last to come. 250 are full; d needs 150,
    # which is always two of them.
    sizes = {"a": 100, "b": 100, "c": 50, "d": 150}
    for other in "abc":
        score = replay(trace("aaabcbd" + other, sizes=sizes), 250, POLICIES[name], marks=False)
        assert score.hits == (4 if other == order[2] else 3), other


@pytest.mark.parametrize(
    ("keys", "sizes", "size", "with_hit", "without"),
    [
        ("aabca", {}, 200, "once-first", "lru"),  # b was used once, a longer ago
        ("aaabcdea", {}, 200, "lfu", "lfu-aged"),  # a was popular long ago: lfu never lets go
        ("aabcb", {"b": 10, "c": 50}, 150, "gdsf", "lfu-aged"),  # b is small
    ],
)
def test_what_one_policy_hits_and_another_does_not(keys, sizes, size, with_hit, without):
    made = trace(keys, sizes=sizes)
    one, other = (replay(made, size, POLICIES[name], marks=False).hits for name in (with_hit, without))
    assert one == other + 1


def test_manifests_outlive_layers():
    requests = [Request(0, "m", 100, True), Request(100, "l", 100), Request(200, "x", 100), Request(300, "m", 100)]
    assert replay(Trace("", requests), 200, POLICIES["manifests-last"], marks=False).hits == 1
    assert replay(Trace("", requests), 200, POLICIES["lru"], marks=False).hits == 0


def test_belady():
    # The textbook's string; with three frames and leave to pass a page by it misses 7 times of 12.
    score = belady(trace("123412512345"), 300)
    assert (score.requests, score.hits) == (12, 5)
    assert infinite(trace("123412512345")).hits == 7


def test_belady_lets_pass_what_comes_too_late_without_calling_it_evicted():
    # b is needed later than a and passes; a hits and is not needed again, so it goes for b or b for it
    assert belady(trace("abab"), 100) == Score(4, 400, 1, 100, evicted=100)


@pytest.mark.parametrize(
    ("keys", "size", "bound"),
    [
        ("abcabc", 100, (2, 200)),  # 6 x 100 to spend, a hit costs 3 x 100
        ("abcdabcd", 130, (2, 260)),  # 8 x 130, 4 x 100: two hits, and 60 of the bytes of a third
        ("aab", 100, (1, 100)),
        ("aa", 99, (0, 0)),
    ],
)
def test_the_bound(keys, size, bound):
    assert hits(most(trace(keys), size)) == bound


def test_next_uses():
    assert next_uses(trace("abab").requests) == [2, 3, float("inf"), float("inf")]


def optimum(keys, places):
    """Most hits any choice can have, by trying all of them."""

    @cache
    def best(at, held):
        if at == len(keys):
            return 0
        could = held | {keys[at]}
        keeps = [could] if len(could) <= places else [frozenset(some) for some in combinations(sorted(could), places)]
        return (keys[at] in held) + max(best(at + 1, keep) for keep in keeps)

    return best(0, frozenset())


@given(st.text("abcde", max_size=14), st.integers(1, 3))
def test_belady_is_the_optimum_where_sizes_are_equal_and_the_bound_is_not_below(keys, places):
    assert belady(trace(keys), places * SIZE).hits == optimum(keys, places) <= most(trace(keys), places * SIZE).hits


@given(st.text("abcdefgh", max_size=60), st.lists(st.integers(1, 200), min_size=8, max_size=8), st.integers(1, 500))
def test_nothing_passes_the_bound_and_the_bound_not_an_infinite_cache(keys, sizes, capacity):
    given_ = trace(keys, sizes=dict(zip("abcdefgh", sizes, strict=True)))
    bound, all_ = most(given_, capacity), infinite(given_)
    found = [replay(given_, capacity, policy, marks) for policy in POLICIES.values() for marks in (True, False)]
    for score in [*found, belady(given_, capacity)]:
        assert score.hits <= bound.hits <= all_.hits
        assert score.hit_bytes <= bound.hit_bytes <= all_.hit_bytes
        assert (score.requests, score.asked) == (len(keys), given_.asked)


def plain_lru(given_, capacity):
    held, hit = OrderedDict(), 0
    for each in given_.requests:
        if each.key in held:
            hit += 1
            held.move_to_end(each.key)
        elif each.size <= capacity:
            while sum(held.values()) + each.size > capacity:
                held.popitem(last=False)
            held[each.key] = each.size
    return hit


@given(st.text("abcdefgh", max_size=60), st.lists(st.integers(1, 200), min_size=8, max_size=8), st.integers(1, 500))
def test_lru_is_what_a_plain_one_does(keys, sizes, capacity):
    given_ = trace(keys, sizes=dict(zip("abcdefgh", sizes, strict=True)))
    assert replay(given_, capacity, lru, marks=False).hits == plain_lru(given_, capacity)


def test_the_same_seed_gives_the_same_trace_in_order_of_time():
    one, other = (synthetic.generate(seed=7, days=5, pulls_a_day=40) for _ in range(2))
    assert one == other != synthetic.generate(seed=8, days=5, pulls_a_day=40)
    times = [each.time for each in one.requests]
    assert times == sorted(times)
    sizes: dict[str, int] = {}
    assert all(sizes.setdefault(each.key, each.size) == each.size > 0 for each in one.requests)
    assert "synthetic" in str(one)


def test_a_wave_shifts_the_whole_set():
    made = synthetic.generate(days=14, loads=["waves"]).requests
    before, after = ({each.key for each in made if low <= each.time / DAY < high} for low, high in ((0, 4), (12, 99)))
    assert len(before) > 80 < len(after)
    assert len(before & after) == 1, "all but the base changes"


def logged(form, exchanges):
    """What the access log itself writes."""

    async def write(fd):
        log = AccessLog(form, fd)
        for exchange in exchanges:
            log.write(exchange)
        log.flush()

    read, written = os.pipe()
    try:
        asyncio.run(write(written))
    finally:
        os.close(written)
    with open(read, encoding="ascii") as lines:
        return lines.read().splitlines(keepends=True)


def exchange(kind, reference, sent, *, method="GET", status=200, result="hit", repo="pause", error=""):
    made = Exchange(make_mocked_request(method, "/v2/"), kind, "registry.k8s.io", repo, reference, result)
    made.status, made.sent, made.error = status, sent, error
    return made


EXCHANGES = [
    exchange("tag", "3.9", 0, method="HEAD"),
    exchange("tag", "3.9", 500, result="revalidated"),
    exchange("manifest", f"sha256:{HEX}", 700, result="miss"),
    exchange("blob", f"sha256:f{HEX[1:]}", 5000, result="miss"),
    exchange("blob", f"sha256:f{HEX[1:]}", 9000, repo="other"),
    exchange("blob", f"sha256:e{HEX[1:]}", 6000, status=206),  # two ranges of one pull
    exchange("blob", f"sha256:e{HEX[1:]}", 6000, status=206),
    exchange("blob", f"sha256:d{HEX[1:]}", 0, status=404, result="not_found", error="blob unknown to registry"),
    exchange("tags", "", 300),
    Exchange(make_mocked_request("GET", "/healthz")),
]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_trace_from_the_access_log(form):
    lines = logged(form, EXCHANGES)
    assert len(lines) == len(EXCHANGES)
    made = convert("log", ["WARNING something else\n", "{not json\n", "\n", '{"a": 1}\n', *lines])
    assert [(each.key, each.size, each.manifest) for each in made.requests] == [
        ("registry.k8s.io/pause:3.9", 4096, True),
        ("sha256:0123456789ab", 4096, True),
        ("sha256:f123456789ab", 12288, False),  # the most that one answer carried
        ("sha256:f123456789ab", 12288, False),
        ("sha256:e123456789ab", 12288, False),
    ]


def test_ranges_a_minute_apart_are_two_requests():
    line = logged("json", [EXCHANGES[5]])[0]
    row = json.loads(line)
    rows = [row | {"time": f"2026-01-01T00:{minute:02}:{second:02}Z"} for minute, second in ((0, 0), (0, 59), (2, 0))]
    made = convert("log", [json.dumps(each) for each in rows])
    assert [(each.time % 3600, each.size) for each in made.requests] == [(0, 12288), (120, 12288)]


def test_sizes_are_whole_blocks():
    assert [blocks(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
    assert capacity("1.5KiB", 1000) == 1536 and capacity("10 %", 1000) == 100


def test_the_command(tmp_path):
    log, out = tmp_path / "access.log", tmp_path / "out.json"
    log.write_text("".join(logged("text", EXCHANGES)))
    ran = CliRunner().invoke(main, [str(log), "--policy", "lru", "--cache", "1MiB", "--json", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "5 requests for 4 objects" in ran.output
    rows = json.loads(out.read_text())["results"]
    assert [row["policy"] for row in rows] == ["lru", "lru to the byte", "Belady", "no policy passes", "infinite"]
    assert all(row["object_hit_percent"] == 20 for row in rows)


def test_the_command_on_nothing_useful(tmp_path):
    (tmp_path / "empty.log").write_text("hello\n")
    ran = CliRunner().invoke(main, [str(tmp_path / "empty.log")])
    assert ran.exit_code == 1 and "no line of an access log" in ran.output
    assert CliRunner().invoke(main, ["--cache", "much"]).exit_code == 2
