"""The frontier between quality and cost: hull, mixtures, what is beaten, and what goals come to."""

from __future__ import annotations

import random

import pytest

from semaforo.entities import Preference
from semaforo.policy.frontier import Aim, Place, Standing, at_cost, frontier, hull

PLACES = (
    Place("small/1/a", 0.6, 0.5, 0.7, 1.0, 0.01),
    Place("middle/1/a", 0.65, 0.6, 0.7, 3.0, 0.02),
    Place("large/1/a", 0.9, 0.8, 0.95, 4.0, 0.2),
    Place("silly/1/a", 0.6, 0.5, 0.7, 5.0, 0.3),
    Place("quick/1/a", 0.62, 0.5, 0.7, 3.5, 0.001),
    Place("strange/1/a", None, None, None, 0.5, 0.1),
)


def aim(prefer: Preference) -> Aim:
    found = frontier("t", PLACES, prefer=prefer).aim
    assert found is not None
    return found


def test_what_is_beaten_in_everything_is_off_the_frontier() -> None:
    found = {p.variant.partition("/")[0]: p.on_frontier for p in frontier("t", PLACES).variants}
    assert found == {
        "small": True, "middle": True, "large": True, "silly": False, "quick": True, "strange": False,
    }  # fmt: skip


def test_mixing_goes_past_what_lies_below_the_line() -> None:
    corners = hull(PLACES)
    assert [c.variant for c in corners] == ["small/1/a", "large/1/a"]
    quality, shares = at_cost(corners, 2.5)
    assert quality == pytest.approx(0.75)
    assert shares == pytest.approx({"small/1/a": 0.5, "large/1/a": 0.5})
    assert at_cost(corners, 0.5) == (None, {})
    assert at_cost(corners, 9.0) == (0.9, {"large/1/a": 1.0})
    assert at_cost([], 1.0) == (None, {})


def test_no_variant_and_no_mixture_of_two_lies_above_the_hull() -> None:
    rng = random.Random(0)
    for _ in range(50):
        places = [
            Place(str(i), rng.random(), 0.0, 1.0, rng.choice([0.0, 1.0, rng.random()]), 0.1) for i in range(6)
        ]
        corners = hull(places)
        for one in places:
            for other in places:
                part = rng.random()
                assert None not in (one.cost, other.cost, one.quality, other.quality)
                cost = part * (one.cost or 0.0) + (1 - part) * (other.cost or 0.0)
                quality = part * (one.quality or 0.0) + (1 - part) * (other.quality or 0.0)
                most, shares = at_cost(corners, cost)
                assert most is not None
                assert most >= quality - 1e-9
                assert sum(shares.values()) == pytest.approx(1.0)


def test_where_a_fleet_stands_is_held_against_mixing() -> None:
    now = frontier("t", PLACES, Standing(10, 0.85, 2.5, 0.1)).now
    assert now is not None
    assert now.mixed == pytest.approx(0.75)
    cheap = frontier("t", PLACES, Standing(10, 0.85, 0.2, 0.1)).now
    assert cheap is not None
    assert cheap.mixed is None


def test_what_goals_come_to() -> None:
    keeps = aim(Preference(goal="cost", keep_quality=0.7))
    assert (keeps.shares, keeps.quality, keeps.cost) == ({"middle/1/a": 1.0}, 0.65, 3.0)
    assert keeps.least_quality == pytest.approx(0.63)
    quick = aim(Preference(goal="quality", within_s=0.05))
    assert (quick.shares, quick.most_s) == ({"middle/1/a": 1.0}, 0.05)
    paid = aim(Preference(goal="quality", at_most=2.5))
    assert paid.quality == pytest.approx(0.75)
    assert (paid.cost, paid.most_cost) == (2.5, 2.5)
    poor = aim(Preference(goal="quality", at_most=0.5))
    assert (poor.shares, poor.quality) == ({}, None)
    rich = aim(Preference(goal="quality", at_most=50.0))
    assert (rich.shares, rich.cost) == ({"large/1/a": 1.0}, 4.0)
    assert aim(Preference(goal="weights", quality=1.0, latency=0.0, cost=0.0)).shares == {"large/1/a": 1.0}
    assert aim(Preference(goal="weights", quality=0.1, latency=0.0, cost=1.0)).shares == {"small/1/a": 1.0}
    assert aim(Preference(goal="quality", within_s=1e-6)).shares == {}
    nothing = frontier("t", (PLACES[-1],), prefer=Preference(goal="cost", keep_quality=0.9)).aim
    assert nothing is not None
    assert (nothing.shares, nothing.least_quality) == ({}, None)
