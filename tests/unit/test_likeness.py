"""What is alike: the nearest of what is kept, and from which likeness on one may stand for another."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from semaforo.routing.likeness import Alike, Index, unit
from semaforo.routing.threshold import for_hits


def vector(rng: np.random.Generator, width: int = 8) -> np.ndarray:
    found = unit(rng.normal(size=width))
    assert found is not None
    return found


def test_the_nearest_are_those_that_a_look_at_all_finds() -> None:
    rng = np.random.default_rng(0)
    index, known = Index(8, 50), {}
    for n in range(200):
        key = b"%d" % rng.integers(80)
        if rng.random() < 0.2:
            index.drop(key)
            known.pop(key, None)
            continue
        known.pop(key, None)
        gone = index.add(key, found := vector(rng))
        if gone is not None:
            assert gone == next(iter(known)), n
            del known[gone]
        known[key] = found
        assert len(index) == len(known) <= 50
    asked = vector(rng)
    wanted = sorted(known, key=lambda key: -float(known[key] @ asked))[:5]
    assert [key for key, _ in index.nearest(asked, 5)] == wanted
    assert index.nearest(asked, 5)[0][1] == pytest.approx(float(known[wanted[0]] @ asked), abs=1e-6)
    assert index.nearest(vector(rng, 9), 5) == []


def test_a_vector_without_direction_is_none() -> None:
    assert unit(np.zeros(4)) is None
    assert unit(np.array([np.nan, 1.0])) is None
    assert np.allclose(unit(np.array([[3.0, 4.0]])), [0.6, 0.8])


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose share of bad ones falls with their likeness, from 40 % at 0.5 to none at 0.9."""
    likeness = rng.uniform(0.5, 1.0, n)
    return likeness, (rng.random(n) < np.maximum(0.0, 0.9 - likeness)).astype(float)


def test_the_threshold_keeps_its_promise_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    broken = told = 0
    fresh_likeness, fresh_loss = world(rng, 200_000)
    for seed in range(200):
        threshold = for_hits(*world(rng, 1500), most=0.05, candidates=32, seed=seed)
        if threshold == inf:
            continue
        told += 1
        broken += fresh_loss[fresh_likeness >= threshold].mean() > 0.05
    assert told > 190
    assert broken <= 200 * 0.1


def test_nothing_is_alike_before_pairs_have_shown_it_and_not_after_they_show_otherwise() -> None:
    alike = Alike(0.1)
    for _ in range(32):
        alike.learn(0.95, 0.0)
    assert alike.threshold == inf
    for _ in range(64):
        alike.learn(0.95, 0.0)
    assert alike.threshold == 0.95
    again = Alike(0.1, alike.pairs())
    assert again.threshold == 0.95
    for _ in range(40):
        alike.learn(0.95, 1.0)
    assert alike.threshold == inf


def test_pairs_that_are_bad_do_not_stand_in_the_way_of_those_that_are_more_alike() -> None:
    alike = Alike(0.1)
    for _ in range(100):
        alike.learn(0.95, 0.0)
        alike.learn(0.7, 1.0)
    assert alike.threshold == 0.95
