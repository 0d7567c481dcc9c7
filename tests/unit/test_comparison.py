"""The test that tells a candidate from what is in service: valid whenever one looks, and able to see."""

from __future__ import annotations

import random

import msgspec
import pytest

from semaforo.policy.comparison import Comparison, begun
from semaforo.routing.tryout import Tryout, tried

STREAMS = 100


def watched(
    seed: int,
    ours: float,
    theirs: float,
    share: float,
    *,
    answers: int = 300,
    apart: float = 1.0,
    drift: float = 0.0,
) -> tuple[set[str], int]:
    """Return every verdict that was ever shown on a stream, and after how many answers the first other one was."""
    rng = random.Random(seed)
    comparison, seen, first = begun(0.02, fine=False), set(), answers
    for i in range(answers):
        differ, candidate = rng.random() < apart, rng.random() < share
        quality = (ours if candidate and differ else theirs) - drift * (i >= answers // 2)
        comparison.add(float(rng.random() < quality), candidate, share, apart=differ)
        if comparison.verdict != "cannot tell yet":
            first = min(first, i)
        seen.add(comparison.verdict)
    return seen, first


def wrong(verdict: str, *args: float, **more: float) -> int:
    """Return on how many streams a verdict was shown at any time."""
    return sum(verdict in watched(seed, *args, **more)[0] for seed in range(STREAMS))  # type: ignore[arg-type]


def test_one_that_is_no_better_is_seldom_ever_called_so() -> None:
    # Each verdict has 2.5 %; of 100 streams more than 7 are wrong once in some two hundred times at that rate.
    assert wrong("better", 0.8, 0.8, 0.1) <= 7
    assert wrong("worse", 0.78, 0.8, 0.5) <= 7


def test_it_holds_while_scores_drift() -> None:
    assert wrong("better", 0.8, 0.8, 0.3, drift=0.5) <= 7


def test_what_loses_just_the_margin_is_seldom_called_not_worse() -> None:
    assert wrong("not worse", 0.78, 0.8, 0.5) <= 7


@pytest.mark.parametrize(("ours", "share", "apart"), [(0.2, 0.1, 1.0), (0.2, 0.5, 0.5), (0.5, 0.5, 1.0)])
def test_what_is_clearly_worse_is_found(ours: float, share: float, apart: float) -> None:
    found = [watched(seed, ours, 0.85, share, apart=apart) for seed in range(20)]
    assert sum("worse" in seen for seen, _ in found) >= 19
    assert not any("better" in seen for seen, _ in found)


def test_what_is_better_or_as_good_is_found_too() -> None:
    assert sum("better" in watched(seed, 0.95, 0.7, 0.5)[0] for seed in range(20)) >= 18
    alike = [watched(seed, 0.9, 0.9, 0.5, apart=0.02, answers=1500)[0] for seed in range(5)]
    assert all("not worse" in seen for seen in alike)


def test_requests_on_which_both_do_alike_cost_no_certainty() -> None:
    """The same answers prove as much in 100 requests that differ as among 300 where the others cannot."""
    alone, among = begun(0.02, fine=False), begun(0.02, fine=False)
    rng = random.Random(1)
    for _ in range(300):
        candidate = rng.random() < 0.5
        score = float(rng.random() < (0.3 if candidate else 0.9))
        alone.add(score, candidate, 0.5)
        among.add(score, candidate, 0.5)
        for _ in range(2):
            among.add(float(rng.random() < 0.5), rng.random() < 0.5, 0.5, apart=False)
    assert alone.verdict == among.verdict == "worse"


def test_the_interval_holds_the_truth_and_shrinks() -> None:
    held = 0
    for seed in range(10):
        rng = random.Random(seed)
        comparison = begun(0.02)
        for _ in range(300):
            candidate = rng.random() < 0.5
            comparison.add(float(rng.random() < (0.9 if candidate else 0.6)), candidate, 0.5)
        low, high = comparison.interval()
        held += low <= 0.3 <= high
        assert high - low < 0.7
    assert held >= 9


def test_it_goes_on_as_it_was_after_it_was_written_down() -> None:
    one = begun(0.02)
    for i in range(50):
        one.add(float(i % 3 > 0), i % 2 == 0, 0.5, weight=0.5)
    other = msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Comparison)
    for comparison in (one, other):
        comparison.add(1.0, True, 0.5)
    assert one == other


def test_feedback_that_counts_less_proves_less() -> None:
    whole, part = begun(0.02, fine=False), begun(0.02, fine=False)
    for i in range(24):
        whole.add(float(i % 2), i % 2 == 1, 0.5)
        part.add(float(i % 2), i % 2 == 1, 0.5, weight=0.25)
    assert (whole.verdict, part.verdict) == ("better", "cannot tell yet")


def test_what_follows_from_a_tryout() -> None:
    def shown(ours: float, theirs: float, cost: float) -> Tryout:
        found, rng = tried(0.1), random.Random(0)
        for _ in range(400):
            candidate = rng.random() < 0.5
            found.finished(True, cost if candidate else 1.0, 0.1, candidate, 0.5, True)
            found.score.add(float(rng.random() < (ours if candidate else theirs)), candidate, 0.5)
        return found

    worse, better = shown(0.2, 0.9, 0.1), shown(0.95, 0.5, 3.0)
    assert worse.due(promote=False) == worse.due(promote=True) == "roll back"
    assert (better.due(promote=False), better.due(promote=True)) == ("", "promote")
    assert (better.cost.relation, better.latency.relation) == ("more", "cannot tell yet")
    assert better.candidate.answers + better.service.answers == 400
    dear, cheap = shown(1.0, 1.0, 3.0), shown(1.0, 1.0, 0.5)
    assert dear.verdict == cheap.verdict == "not worse"
    assert (dear.due(promote=True), cheap.due(promote=True)) == ("", "promote")
