"""Who is served first, and how much: classes, tenants and deadlines under more work than a fleet can do."""

from __future__ import annotations

import pytest

from fleets import fleet, variant
from semaforo.catalog.state import Scaling
from semaforo.entities import Contract, Priority, TaskType
from semaforo.policy.shares import GUARANTEE
from worlds import Watched, poisson

DEEP = TaskType("t", max_queue_rows=100_000)
ALL = list(Priority)


def backlog(seed: int, *, rows: list[int], max_rows: int, replicas: int, shapes: list[str]) -> Watched:
    """Twice as much work without deadlines as the fleet can do, of all classes and three tenants."""
    model = variant("m", base=0.004, row=0.004, max_rows=max_rows)
    catalog = fleet(model, tasks=[DEEP], scaling=Scaling(replicas, replicas))
    biggest = max(max_rows, max(rows))
    world = Watched(catalog, seed=seed, slack=biggest + 4.0, lead=biggest + max(rows))
    capacity = replicas * max_rows / model.profile.seconds(max_rows)  # type: ignore[call-arg,union-attr,arg-type]
    rate = 2 * capacity / (sum(rows) / len(rows))
    world.arrive(poisson(rate, 1.5, seed=seed, rows=rows, shape=shapes, priority=ALL, tenant=["x", "y", "z"]))
    world.run(until=3.0)
    return world


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("rows", "max_rows"), [([1], 1), ([1], 8), ([1, 1, 2, 5], 8)])
def test_every_class_gets_its_share_and_tenants_the_same(seed: int, rows: list[int], max_rows: int) -> None:
    world = backlog(seed, rows=rows, max_rows=max_rows, replicas=1 + seed % 2, shapes=[""])
    assert world.order is not None
    assert all(world.order.served[int(p)] > 0 for p in Priority)


@pytest.mark.parametrize("seed", range(2))
def test_earliest_deadline_first_and_none_begun_in_vain(seed: int) -> None:
    model = variant("m", base=0.004, row=0.001, max_rows=4)
    world = Watched(fleet(model, tasks=[DEEP]), seed=seed, slack=8.0)
    world.arrive(poisson(1000, 1.5, seed=seed, deadline_s=[0.02, 0.05, 0.2], priority=ALL, tenant=["x", "y"]))
    trace = world.run()
    world.model.check_over()
    served = [f for _, f in trace.finished if f.outcome == "done"]
    assert len(served) > 300
    assert not [r for r in trace.ran if r.ended != "done"]


def test_while_only_one_class_has_work_it_gets_everything() -> None:
    world = Watched(fleet(variant("m", base=0.01, row=0.0, max_rows=1), tasks=[DEEP]), slack=5.0)
    world.arrive(poisson(200, 1.0, priority=Priority.LOW))
    world.run(until=1.0)
    assert world.order is not None
    assert 95 <= world.order.served[Priority.LOW] <= 101


def test_the_lowest_class_gets_no_more_than_its_share_under_pressure_from_above() -> None:
    world = Watched(fleet(variant("m", base=0.01, row=0.0, max_rows=1), tasks=[DEEP]), slack=5.0)
    world.arrive(poisson(300, 2.0, seed=1, priority=Priority.CRITICAL))
    world.arrive(poisson(300, 2.0, seed=2, name="low", priority=Priority.LOW))
    world.run(until=2.0)
    assert world.order is not None
    low = world.order.served[Priority.LOW] / sum(world.order.served.values())
    assert low == pytest.approx(GUARANTEE[Priority.LOW], abs=0.02)


def test_a_tenant_that_pauses_saves_nothing_up() -> None:
    world = Watched(fleet(variant("m", base=0.01, row=0.0, max_rows=1), tasks=[DEEP]), slack=5.0, lead=2.0)
    world.arrive(poisson(150, 2.0, seed=1, tenant="busy"))
    world.arrive(poisson(150, 1.0, seed=2, name="late", tenant="late", start=1.0))
    world.run(until=2.0)
    done = [f.request.startswith("late") for when, f in world.trace.finished if 1.1 < when < 2.0]
    assert 0.45 < sum(done) / len(done) < 0.55


def test_a_contract_without_a_class_is_normal() -> None:
    assert Contract().priority is Priority.NORMAL
