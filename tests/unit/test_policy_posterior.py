"""What is believed of a variant's quality: fading, changes, and merging."""

from __future__ import annotations

from random import Random

import pytest

from semaforo.policy.posterior import MEASURED, begun, merged


def test_a_measured_quality_counts_as_many_answers() -> None:
    measured, assumed = begun(0.9), begun(None)
    for believed in (measured, assumed):
        believed.learn(0.0)
    assert measured.mean == pytest.approx(0.9 * MEASURED / (MEASURED + 1.0), rel=1e-3)
    assert assumed.mean == pytest.approx(1.0 / 3.0, rel=1e-2)


def test_the_mean_follows_what_comes_back_and_its_interval_holds_it() -> None:
    rng = Random(5)
    inside = 0
    for _ in range(200):
        believed = begun(None)
        for _ in range(150):
            believed.learn(float(rng.random() < 0.7))
        low, high = believed.interval()
        inside += low <= 0.7 <= high
    assert inside >= 180


@pytest.mark.parametrize(("before", "after"), [(0.97, 0.1), (0.9, 0.6), (0.2, 0.9), (0.1, 0.95)])
def test_a_change_is_found_soon_and_what_was_before_is_forgotten(before: float, after: float) -> None:
    rng = Random(3)
    believed = begun(before)
    for _ in range(500):
        believed.learn(float(rng.random() < before))
    assert believed.changes == 0
    needed = 0
    while not believed.changes and needed < 100:
        believed.learn(float(rng.random() < after))
        needed += 1
    assert needed < 60
    for _ in range(60):
        believed.learn(float(rng.random() < after))
    assert believed.mean == pytest.approx(after, abs=0.12)
    assert believed.shown == pytest.approx(believed.mean, abs=0.01)


@pytest.mark.parametrize("quality", [0.05, 0.5, 0.97])
def test_false_alarms_are_rare(quality: float) -> None:
    rng = Random(11)
    believed = begun(quality)
    for _ in range(20_000):
        believed.learn(float(rng.random() < quality))
    assert believed.changes <= 4
    assert believed.mean == pytest.approx(quality, abs=0.05)


def test_scores_between_nought_and_one_raise_no_alarm() -> None:
    rng = Random(2)
    believed = begun(0.6)
    for _ in range(5000):
        believed.learn(min(1.0, max(0.0, rng.gauss(0.6, 0.1))))
    assert believed.changes == 0


def test_merged_is_what_one_would_have_believed() -> None:
    one, other, both = begun(0.8), begun(0.8), begun(0.8)
    rng = Random(1)
    for k in range(40):
        score = float(rng.random() < 0.8)
        (one if k % 2 else other).learn(score)
        both.learn(score)
    together = merged(one, other)
    assert together.given == 40
    assert together.mean == pytest.approx(both.mean, abs=0.01)


def test_where_one_has_seen_a_change_it_is_right() -> None:
    one, other = begun(0.95), begun(0.95)
    while not one.changes:
        one.learn(0.0)
    other.learn(1.0)
    assert merged(other, one).mean == one.mean
    assert merged(one, other).given == one.given + 1


def test_what_was_foretold_is_no_change_and_what_was_not_is() -> None:
    rng = Random(13)
    believed = begun(0.6)
    for _ in range(10_000):
        chance = rng.choice((0.02, 0.3, 0.95))
        believed.learn(float(rng.random() < chance), 1.0, chance)
    assert believed.changes <= 2
    for now in (lambda chance: 0.0, lambda chance: max(chance, 0.9)):
        before, needed = believed.changes, 0
        while believed.changes == before and needed < 200:
            chance = rng.choice((0.02, 0.3, 0.95))
            believed.learn(float(rng.random() < now(chance)), 1.0, chance)
            needed += 1
        assert needed < 60
    # All of one kind, and all good, as they were said to be.
    usual = begun(0.5)
    for _ in range(500):
        usual.learn(float(rng.random() < 0.95), 1.0, 0.95)
    assert usual.changes == 0
    assert usual.mean > 0.85
