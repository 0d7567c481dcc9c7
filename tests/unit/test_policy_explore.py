"""Trying what does not look best: within its share, safely, and with known probabilities."""

from __future__ import annotations

from collections import Counter

import pytest

from semaforo.entities import Exploration
from semaforo.policy.balance import next_chance
from semaforo.policy.explore import Arm, tried

BEST = Arm("best", 0.9, 0.85, True, False)
SAFE = Arm("safe", 0.88, 0.82, True, False)
ALSO = Arm("also", 0.87, 0.81, True, False)
BUSY = Arm("busy", 0.89, 0.85, False, False)
BAD = Arm("bad", 0.3, 0.2, True, False)
DEAR = Arm("dear", 0.3, 0.2, True, True)


def draws(
    arms: list[Arm], explore: Exploration, n: int = 20_000
) -> tuple[Counter[str], Counter[str], dict[str, float]]:
    """Return how often each variant answered, how often each was shadowed, and the stated probabilities."""
    chance, picks, shadows = 0x9E3779B97F4A7C15, Counter[str](), Counter[str]()
    stated: dict[str, float] = {}
    for _ in range(n):
        chance = next_chance(chance)
        trial = tried("best", arms, explore, chance)
        picks[trial.pick] += 1
        shadows[trial.shadow] += bool(trial.shadow)
        assert stated.setdefault(trial.pick, trial.propensity) == trial.propensity
    return picks, shadows, stated


def test_each_pick_has_the_probability_that_is_stated() -> None:
    picks, _, stated = draws([BEST, SAFE, ALSO, BUSY, BAD], Exploration(share=0.1))
    assert stated == {"best": 0.9, "safe": 0.05, "also": 0.05}
    assert sum(stated.values()) == pytest.approx(1.0)
    for name, probability in stated.items():
        assert picks[name] / 20_000 == pytest.approx(probability, abs=0.01)


def test_what_is_not_safe_is_tried_in_the_shadow_only() -> None:
    picks, shadows, stated = draws([BEST, BAD, DEAR], Exploration(share=0.1, shadow=0.2))
    assert set(picks) == {"best"}
    assert stated == {"best": 1.0}
    assert shadows["bad"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert not shadows["dear"]


def test_both_budgets_hold_together() -> None:
    picks, shadows, _ = draws([BEST, SAFE, BAD], Exploration(share=0.1, shadow=0.2))
    assert picks["safe"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert shadows["bad"] / 20_000 == pytest.approx(0.9 * 0.2, abs=0.01)


def test_nothing_is_tried_where_nothing_may_be() -> None:
    picks, shadows, stated = draws([BEST, SAFE, BAD], Exploration())
    assert (set(picks), set(stated.values()), sum(shadows.values())) == ({"best"}, {1.0}, 0)
    picks, _, _ = draws([BEST], Exploration(share=1.0, shadow=1.0))
    assert set(picks) == {"best"}
