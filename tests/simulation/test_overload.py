"""Twice the traffic a fleet can do: what is promised is kept, and nothing is lost or done in vain."""

from __future__ import annotations

from collections import Counter

import pytest

from fleets import fleet, variant
from semaforo.catalog.state import Scaling
from semaforo.entities import Priority, Request
from semaforo.policy.shares import GUARANTEE
from worlds import Watched, by_class, poisson

SECONDS = 6.0


def offered(*streams: object) -> tuple[dict[str, Request], list[tuple[float, Request]]]:
    arrivals = [one for stream in streams for one in stream]  # type: ignore[attr-defined]
    return {r.id: r for _, r in arrivals}, arrivals


def twice(world: Watched, capacity: float, *, deadline: float, seed: int) -> dict[str, Request]:
    requests, arrivals = offered(
        poisson(0.6 * capacity, SECONDS, seed=seed, name="h", priority=Priority.HIGH, deadline_s=deadline),
        poisson(1.4 * capacity, SECONDS, seed=seed + 1, name="l", priority=Priority.LOW, deadline_s=deadline),
    )
    world.arrive(arrivals)
    return requests


@pytest.mark.parametrize("seed", range(3))
def test_at_twice_the_capacity_the_high_class_is_in_time_and_the_low_gets_its_guarantee(seed: int) -> None:
    model = variant("m", base=0.008, row=0.0, max_rows=1)
    world = Watched(fleet(model, scaling=Scaling(2, 2)), seed=seed)
    capacity = 2 / 0.008
    requests = twice(world, capacity, deadline=0.1, seed=10 * seed)
    trace = world.run()
    world.model.check_over()
    found = by_class(trace.finished, requests)
    assert found[Priority.HIGH]["done"] >= 0.99 * found[Priority.HIGH].total()
    assert found[Priority.LOW]["done"] >= GUARANTEE[Priority.LOW] * capacity * SECONDS
    goodput = sum(f.outcome == "done" for _, f in trace.finished)
    assert goodput >= 0.95 * capacity * SECONDS
    assert all(ran.ended == "done" for ran in trace.ran)


@pytest.mark.parametrize("seed", range(2))
def test_batching_models_do_as_well_in_overload_with_times_that_vary(seed: int) -> None:
    model = variant("m", base=0.006, row=0.0005, max_rows=8)
    world = Watched(fleet(model), exact=False, noise=0.1, seed=seed)
    capacity = 8 / 0.010
    requests = twice(world, capacity, deadline=0.08, seed=10 * seed)
    trace = world.run()
    world.model.check_over()
    found = by_class(trace.finished, requests)
    assert found[Priority.HIGH]["done"] >= 0.98 * found[Priority.HIGH].total()
    assert sum(f.outcome == "done" for _, f in trace.finished) >= 0.9 * capacity * SECONDS


def test_what_cannot_be_done_is_mostly_refused_at_the_door() -> None:
    model = variant("m", base=0.008, row=0.0, max_rows=1)
    world = Watched(fleet(model), seed=1)
    world.arrive(poisson(250, SECONDS, seed=3, deadline_s=0.1))
    outcomes = Counter(f.outcome for _, f in world.run().finished)
    assert outcomes["refused"] > 3 * outcomes["expired"]
    told = [f.retry_after_s for _, f in world.trace.finished if f.outcome == "refused"]
    assert all(0.0 < seconds < 1.0 for seconds in told)


def test_at_a_moderate_load_all_is_done_and_no_device_stands_by() -> None:
    variants = [variant(f"m{n}", base=0.004 * (n + 1), row=0.0, max_rows=1) for n in range(3)]
    world = Watched(fleet(*variants), seed=5)
    capacity = sum(1 / (0.004 * (n + 1)) for n in range(3))
    world.arrive(poisson(0.8 * capacity, SECONDS, seed=4, deadline_s=1.0))
    trace = world.run()
    # That none stood by while a request waited is asserted by the model after every event.
    assert all(f.outcome == "done" for _, f in trace.finished)
    assert {ran.replica for ran in trace.ran} == {"m0-v-1", "m1-v-1", "m2-v-1"}
