"""The soak in short: pulls, pushes, kills, restarts and upstream faults at once; see tests/bench/soak/.

The long one is run by hand, `python -m tests.bench soak`. What the soak takes for wrong is tested here too: a judge
that finds nothing proves nothing.
"""

import random

from tests.bench.soak import after
from tests.bench.soak.pulls import Ask, is_right
from tests.bench.soak.run import Plan, Soak
from tests.bench.soak.world import Truth, digest_of


def test_nothing_is_wrong_after_pulls_pushes_kills_and_faults(tmp_path):
    report = Soak(Plan(seconds=14, seed=20, pullers=12, rate=0.15), tmp_path).run()
    assert report.problems == []
    assert (report.wrong, report.leaked, report.parts) == (0, [], [])
    assert report.events["workers killed"] >= 2
    assert report.events["services killed"] + report.events["services stopped"] >= 1
    assert sum(report.faults.values()) >= 20
    kinds = {name for name, result in report.requests if result in ("200", "201", "206")}
    assert kinds >= {"GET blob", "GET blob range", "GET tag", "GET manifest", "GET pushed", "HEAD tag", "PUT push"}


def test_the_judge_of_answers():
    content = bytes(range(100))
    whole = Ask("blob", "app", digest_of(content), [content])
    part = Ask("blob", "app", digest_of(content), [content], (10, 20), headers={"Range": "bytes=10-19"})
    beyond = Ask("blob", "app", digest_of(content), [content], (100, 100), headers={"Range": "bytes=100-"})
    place = {"Content-Range": "bytes 10-19/100"}
    assert is_right(whole, 200, {"Docker-Content-Digest": digest_of(content)}, content)
    assert is_right(part, 206, place, content[10:20])
    assert is_right(part, 200, {}, content)
    assert is_right(beyond, 416, {}, b"")
    assert not is_right(whole, 200, {}, content[:-1])
    assert not is_right(whole, 200, {}, content[:-1] + b"x")
    assert not is_right(whole, 200, {"Docker-Content-Digest": digest_of(b"x")}, content)
    assert not is_right(whole, 206, place, content[10:20])
    assert not is_right(part, 206, place, content[10:19])
    assert not is_right(part, 206, place, content[11:21])
    assert not is_right(part, 206, {"Content-Range": "bytes 11-20/100"}, content[10:20])
    assert not is_right(part, 416, {}, b"")


def test_a_refusal_counts_for_a_while_and_for_what_it_was_about():
    truth = Truth(random.Random(1), repositories=1)
    (repo,) = truth.repos
    digest = truth.repos[repo].tags["v1"]
    truth.note(repo, digest, 404)
    began = truth.said[repo, digest, 404]
    assert truth.refused(repo, digest, 404, began)
    assert truth.refused(repo, "v1", 404, began), "the tag is that digest"
    assert not truth.refused(repo, "v2", 404, began)
    assert not truth.refused(repo, digest, 403, began)
    assert not truth.refused("another", digest, 404, began)
    assert not truth.refused(repo, digest, 404, began + 60)


def test_more_descriptors_than_after_the_warm_up_are_a_leak():
    before = [{"socket": 3, "/x.part": 0}, {"socket": 5}]
    assert after.leaks(before, [{"socket": 5}, {"socket": 1}]) == []
    assert after.leaks(before, [{"socket": 6}]) == ["worker 0: 1 more socket"]
    assert after.leaks(before, [{"/x.part": 1}]) == ["worker 0: 1 more /x.part"]
