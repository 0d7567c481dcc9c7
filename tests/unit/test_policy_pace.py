"""Spending so much on average: what is spent comes to the goal, and goes where it buys most."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from fleets import Rig, fleet, runs, variant
from semaforo.config import parse_fleet
from semaforo.config.fleet import FleetFileError
from semaforo.core.events import Scored
from semaforo.entities import BatchProfile, Cost, Preference, TaskType
from semaforo.policy.pace import Pace

CHEAP, DEAR = "cheap/1/v", "dear/1/v"


def rig_of_two(goal: float, **task: float) -> Rig:
    """A cheap variant and a dear one, which is better, and what a request should cost."""
    profile = BatchProfile(0.001, 0.0)
    rig = Rig(
        fleet(
            variant("cheap", quality=0.7, cost=Cost(request=0.001), profile=profile),
            variant("dear", quality=0.9, cost=Cost(request=0.01), profile=profile),
            tasks=[TaskType("t", prefer=Preference("quality", at_most=goal), **task)],
        )
    )
    rig.ready("c", CHEAP, slots=8)
    rig.ready("d", DEAR, slots=8)
    return rig


@pytest.mark.parametrize("goal", [0.002, 0.004, 0.008])
def test_the_mean_cost_comes_to_the_goal(goal: float) -> None:
    rig = rig_of_two(goal)
    spent = 0.0
    for n in range(1500):
        where = runs(rig.ask(f"q{n}", after=0.01))[0][0]
        rig.done(f"q{n}")
        spent += 0.0 if n < 300 else 0.001 if where == "c" else 0.01
    assert spent / 1200 == pytest.approx(goal, rel=0.1)


def test_a_goal_that_is_never_reached_buys_the_best_and_one_below_all_the_cheapest() -> None:
    for goal, expected in ((1.0, "d"), (1e-5, "c")):
        rig = rig_of_two(goal)
        for n in range(300):
            where = runs(rig.ask(f"q{n}", after=0.01))[0][0]
            rig.done(f"q{n}")
        assert where == expected


def test_money_goes_to_the_requests_on_which_it_buys_most() -> None:
    rig, rng = rig_of_two(0.004, score_s=1.0), Random(0)
    dear = {True: 0, False: 0}
    for n in range(1200):
        hard = rng.random() < 0.3
        rig.ask(f"q{n}", after=0.01)
        gain = {CHEAP: -0.4} if hard else {CHEAP: 0.15}
        where = runs(rig.tell(Scored(f"q{n}", gain)))[0][0]
        rig.done(f"q{n}")
        dear[hard] += n >= 300 and where == "d"
    assert dear[True] > 200
    assert dear[False] < 60


def test_the_price_stays_within_bounds() -> None:
    pace = Pace()
    for _ in range(10_000):
        pace.spent(0.0, 1.0)
    assert pace.price == 1e-3
    for _ in range(10_000):
        pace.spent(100.0, 1.0)
    assert pace.price == 1e3


def test_the_goal_is_read_from_the_fleet_file(tmp_path: Path) -> None:
    text = """\
tasks: {chat: {kind: chat, prefer: {maximise: quality, at_most: 3/1000}}}
models: {m: {task: chat, url: http://127.0.0.1:1/v1}}
"""
    file = parse_fleet(text, folder=tmp_path)
    assert file.settings.tasks["chat"].prefer.at_most == pytest.approx(0.003)
    for wrong, message in (("3", "is no cost of requests"), ("0/5", "is no cost of requests")):
        with pytest.raises(FleetFileError, match=message):
            parse_fleet(text.replace("3/1000", wrong), folder=tmp_path)
    with pytest.raises(FleetFileError, match="goes with `maximise: quality`"):
        parse_fleet(text.replace("maximise: quality", "minimise: cost"), folder=tmp_path)
