"""A request is bound when it is begun, not before: crashes, slow replicas, new ones and pressure re-route it."""

from __future__ import annotations

from collections import Counter

import pytest

from fleets import chat, fleet, variant
from semaforo.catalog.state import Scaling
from semaforo.core.effects import Decided, Ejected
from semaforo.core.events import Arrived, FleetChanged, Scale
from semaforo.entities import Cost, Preference, Priority, TaskType
from semaforo.sim.world import Fault
from worlds import Watched, poisson


def test_after_a_crash_what_ran_and_what_waited_goes_elsewhere() -> None:
    world = Watched(
        fleet(variant("m", base=0.01, row=0.0, max_rows=1), scaling=Scaling(3, 3)), exact=False, noise=0.05
    )
    world.arrive(poisson(200, 4.0, seed=1, deadline_s=0.5))
    for n in range(6):
        world.at(0.5 + 0.5 * n, Fault(0.0, f"m-v-{n % 3 + 1}", "crash"))
    trace = world.run()
    world.model.check_over()
    outcomes = Counter(f.outcome for _, f in trace.finished)
    assert outcomes["done"] == outcomes.total()
    crashed = [r for r in trace.ran if r.ended == "crash"]
    assert len(crashed) >= 3
    served = {f.request: f.replica for _, f in trace.finished}
    assert all(served[r.members[0]] for r in crashed)


def test_a_crash_of_the_only_replica_is_survived() -> None:
    world = Watched(fleet(variant("m", base=0.01, row=0.0, max_rows=1)), exact=False)
    world.arrive(poisson(40, 2.0, seed=2, deadline_s=1.0))
    world.at(1.0, Fault(0.0, "m-v-1", "crash"))
    outcomes = Counter(f.outcome for _, f in world.run().finished)
    assert outcomes["done"] == outcomes.total()


def test_a_replica_that_slows_down_is_left_alone_and_comes_back() -> None:
    world = Watched(
        fleet(variant("m", base=0.005, row=0.0, max_rows=1), scaling=Scaling(4, 4)), exact=False, record=True
    )
    world.arrive(poisson(700, 5.0, seed=3, deadline_s=0.3))
    world.at(1.0, Fault(0.0, "m-v-2", "slow", for_s=1.0, factor=8.0))
    trace = world.run()
    ejected = [e for _, e in trace.effects if isinstance(e, Ejected)]
    assert {e.replica for e in ejected} == {"m-v-2"}
    ran = Counter(int(r.start) for r in trace.ran if r.replica == "m-v-2")
    assert ran[4] > 4 * ran[1]
    done = sum(f.outcome == "done" for _, f in trace.finished)
    assert done >= 0.97 * len(trace.finished)


def test_errors_of_one_replica_are_hidden_by_the_others() -> None:
    world = Watched(fleet(variant("m", base=0.005, row=0.0, max_rows=1), scaling=Scaling(3, 3)), exact=False)
    world.arrive(poisson(150, 3.0, seed=4, deadline_s=0.5))
    world.at(1.0, Fault(0.0, "m-v-1", "errors", for_s=1.0))
    trace = world.run()
    assert all(f.outcome == "done" for _, f in trace.finished)
    failed = [r for r in trace.ran if r.ended == "error"]
    assert 5 <= len(failed) <= 20


def test_a_new_replica_takes_over_at_once_what_waits() -> None:
    world = Watched(fleet(variant("m", base=0.1, row=0.0, max_rows=1), scaling=Scaling(1, 3)), start_s=0.05)
    world.arrive(poisson(400, 0.1, seed=5, start=0.1))
    world.at(0.3, Scale("m/1/v", 3))
    world.run(until=0.36)
    assert {r.replica for r, _ in world._running.values()} == {"m-v-1", "m-v-2", "m-v-3"}


def pressed(goal: Preference) -> Watched:
    best = variant("best", quality=0.97, base=0.02, row=0.0, max_rows=1)
    small = variant("small", quality=0.80, base=0.002, row=0.0, max_rows=1)
    return Watched(fleet(best, small, tasks=[TaskType("t", prefer=goal)]), record=True)


def test_under_pressure_the_cheaper_variant_serves_and_quality_returns() -> None:
    world = pressed(Preference(goal="quality"))
    world.arrive(poisson(20, 2.0, seed=6, name="calm", deadline_s=0.2))
    world.arrive(poisson(200, 2.0, seed=7, name="rush", start=2.0, deadline_s=0.2))
    world.arrive(poisson(20, 2.0, seed=8, name="after", start=4.2, deadline_s=0.2))
    trace = world.run()
    world.model.check_over()
    assert all(f.outcome == "done" for _, f in trace.finished)
    share = {
        phase: Counter(f.variant for _, f in trace.finished if f.request.startswith(phase))
        for phase in ("calm", "rush", "after")
    }
    assert share["calm"]["best/1/v"] >= 0.9 * share["calm"].total()
    assert share["rush"]["small/1/v"] >= 0.6 * share["rush"].total()
    assert share["after"]["best/1/v"] >= 0.9 * share["after"].total()
    reasons = {e.reason for _, e in trace.effects if isinstance(e, Decided)}
    assert {"best score", "waits", "waited", "pressure"} & reasons


def test_a_least_quality_holds_under_any_pressure() -> None:
    world = pressed(Preference(goal="quality"))
    world.arrive(poisson(200, 1.0, seed=9, deadline_s=0.2, min_quality=0.9))
    trace = world.run()
    assert {f.variant for _, f in trace.finished if f.outcome == "done"} == {"best/1/v"}
    assert any(f.outcome == "refused" for _, f in trace.finished)


def test_the_cheapest_that_keeps_the_quality_is_used_first() -> None:
    dear = variant("dear", quality=0.97, base=0.01, row=0.0, max_rows=1, cost=Cost(second=1.0))
    cheap = variant("cheap", quality=0.96, base=0.01, row=0.0, max_rows=1, cost=Cost(second=0.1))
    world = Watched(fleet(dear, cheap, tasks=[TaskType("t", prefer=Preference(goal="cost"))]))
    world.arrive(poisson(20, 2.0, seed=10))
    found = Counter(f.variant for _, f in world.run().finished)
    assert found["cheap/1/v"] > 3 * found["dear/1/v"]


@pytest.mark.parametrize("seed", range(3))
def test_a_fleet_that_changes_under_load_loses_nothing(seed: int) -> None:
    old, new = variant("m", base=0.005, row=0.001), variant("m", version="2", base=0.004, row=0.001)
    first = fleet(old, in_service={"m": "1"}, scaling=Scaling(2, 2))
    both = fleet(old, new, in_service={"m": "1"}, scaling=Scaling(2, 2))
    then = fleet(old, new, in_service={"m": "2"}, scaling=Scaling(2, 2))
    last = fleet(new, in_service={"m": "2"}, scaling=Scaling(2, 2))
    world = Watched(first, exact=False, start_s=0.2, seed=seed)
    world.arrive(poisson(300, 3.5, seed=seed, start=0.5, deadline_s=0.5, priority=list(Priority)))
    for when, catalog in ((1.0, both), (2.0, then), (3.0, last)):
        world.at(when, FleetChanged(catalog))
    trace = world.run()
    world.model.check_over()
    assert all(f.outcome == "done" for _, f in trace.finished)
    versions = [(when, f.variant) for when, f in trace.finished]
    assert {v for when, v in versions if when < 1.9} == {"m/1/v"}
    assert {v for when, v in versions if when > 2.1} == {"m/2/v"}


def test_streams_use_all_slots_and_every_replica() -> None:
    world = Watched(fleet(chat("l"), scaling=Scaling(2, 2)), exact=False, output_tokens=30)
    for n in range(200):
        world.at(
            n * 0.01,
            Arrived(next(iter(poisson(1.0, 1e9, seed=n, name=f"s{n}-", target="c", stream=True)))[1]),
        )
    trace = world.run()
    world.model.check_over()
    assert all(f.outcome == "done" for _, f in trace.finished)
    assert Counter(r.replica for r in trace.ran).keys() == {"l-v-1", "l-v-2"}
