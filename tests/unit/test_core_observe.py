"""Metrics and explanations as folds over events and effects."""

from __future__ import annotations

import pytest

from fleets import Rig, ask, fleet, variant
from semaforo.core.effects import Considered, Decided, Finish
from semaforo.core.events import Arrived, BatchDone, BatchFailed, Busy, DispatcherEvent, ReplicaGone
from semaforo.entities import Cost, Priority, Privacy
from semaforo.observe.explain import Explanation, Ring, contract_line, render, short
from semaforo.observe.metrics import BUCKETS_S, Metrics


class Observed(Rig):
    """A rig whose events and effects are folded into metrics and a ring."""

    def __init__(self, *args: object, size: int = 4096) -> None:
        self.metrics, self.ring = Metrics(), Ring(size)
        super().__init__(*args)  # type: ignore[arg-type]

    def _handle(self, event: DispatcherEvent, now: float) -> list:  # type: ignore[type-arg]
        effects = super()._handle(event, now)
        self.metrics.fold(event, effects, now)
        self.ring.fold(event, effects)
        return effects


def test_what_was_served_is_counted_by_variant_and_replica() -> None:
    rig = Observed(fleet(variant("m", cost=Cost(second=2.0))))
    rig.ready("a")
    rig.ask("q0")
    rig.ask("q1", rows=3)
    rig.done("q0", after=0.004)
    rig.done("q1", after=0.01)
    rig.ask("q2")
    rig.failed("q2", "invalid", message="bad")
    stats, replica = rig.metrics.variants["m/1/v"], rig.metrics.replicas["a"]
    assert (stats.ok, stats.failed, stats.rows) == (2, 1, 4)
    assert {rows: b.count for rows, b in stats.batches.items()} == {1: 1, 3: 1}
    assert abs(stats.compute_s - 0.014) < 1e-9
    assert abs(stats.queue_s - 0.004) < 1e-9
    assert abs(stats.cost - 0.028) < 1e-9
    assert stats.last_at == pytest.approx(0.014)
    assert (replica.batches, replica.rows, replica.failures) == (2, 4, 1)
    assert sum(stats.histogram) == 2
    assert len(stats.histogram) == len(BUCKETS_S) + 1
    assert rig.metrics.arrived == 3
    assert rig.metrics.outcomes["done"] == 2
    assert rig.metrics.outcomes["failed"] == 1


def test_moves_are_counted_by_reason() -> None:
    rig = Observed(fleet(variant("m")))
    rig.ready("a")
    rig.ready("b")
    rig.ask("q")
    rig.failed("q", "error")
    assert sum(rig.metrics.moves.values()) == 1


def test_nothing_is_kept_of_batches_that_were_lost_refused_or_stopped() -> None:
    rig = Observed(fleet(variant("m", max_rows=1)))
    for n in range(50):
        rig.ready("a", after=1.0)
        rig.ready("b", after=0.0)
        rig.ask(f"x{n}", deadline_s=0.5)
        rig.ask(f"y{n}", deadline_s=0.5)
        rig.tell(Busy(max(rig.model.work)), 0.001)
        rig.tell(ReplicaGone("a", "crash"), 0.001)
        rig.tell(ReplicaGone("b", "crash"), 0.001)
        rig.tick(1.0)
    for number in list(rig.model.work):
        rig.tell(BatchFailed(number, "cancelled"))
    assert len(rig.metrics._running) == 0


def test_a_crash_is_a_failure_of_the_replica_and_a_stop_is_none() -> None:
    rig = Observed(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q", deadline_s=0.1)
    rig.tick(0.2)
    rig.tell(BatchFailed(max(rig.model.work), "cancelled"))
    assert rig.metrics.replicas.get("a") is None or rig.metrics.replicas["a"].failures == 0
    rig.ask("p")
    rig.tell(ReplicaGone("a", "crash"))
    assert rig.metrics.replicas["a"].failures == 1


def test_late_news_is_not_counted() -> None:
    rig = Observed(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q")
    number = rig.batch("q")
    rig.done("q")
    rig.tell(BatchDone(number, 5.0))
    assert rig.metrics.variants["m/1/v"].rows == 1


def test_the_ring_forgets_the_oldest_and_finds_by_a_unique_beginning() -> None:
    rig = Observed(fleet(variant("m")), size=3)
    rig.ready("a")
    for rid in ("aa1", "ab2", "ab3", "cd4"):
        rig.ask(rid)
    assert rig.ring.get("aa1") is None
    found = rig.ring.get("cd")
    assert found is not None
    assert found.request.id == "cd4"
    assert rig.ring.get("ab") is None
    assert rig.ring.get("") is None
    assert [e.request.id for e in rig.ring.recent(2)] == ["cd4", "ab3"]
    assert rig.ring.recent(0) == []


def test_the_contract_in_one_line() -> None:
    request = ask(
        "q", "digits", deadline_s=0.02, min_quality=0.95, max_cost=2.3e-8, priority=Priority.HIGH,
        privacy=Privacy.SITE, tenant="demo", version="3", variant="int8",
    )  # fmt: skip
    assert contract_line(request) == (
        "digits · version 3 · variant int8 · deadline 20 ms · min quality 0.95 · max cost $2.3e-8 · priority high"
        " · privacy site · tenant demo"
    )
    assert contract_line(ask("q", "digits")) == "digits"


def test_an_explanation_reads_as_promised() -> None:
    request = ask("7f3a", "digits", deadline_s=0.02, min_quality=0.95)
    considered = (
        Considered("digits-linear/1/fp32", "quality", "0.93 < 0.95"),
        Considered("digits-net/1/fp32", score=0.71, predicted_s=0.0021, quality=0.98, cost=2.3e-8),
        Considered("digits-net/1/int8", score=0.88, predicted_s=0.0008, quality=0.97, cost=0.9e-8, free=True),
    )
    decided = Decided("7f3a", "digits", considered, "digits-net/1/int8", "net-int8-2", "best score")
    finish = Finish("7f3a", "done", 1, "digits-net/1/int8", "net-int8-2", total_s=0.0009)
    assert render(Explanation(request, [decided], finish)).splitlines() == [
        "digits · deadline 20 ms · min quality 0.95",
        "  digits-linear/fp32   ruled out by quality    0.93 < 0.95",
        "  digits-net/fp32      score 0.71   predicted  2.1 ms   quality 0.98   cost $2.3e-8   busy",
        "▸ digits-net/int8      score 0.88   predicted  800 µs   quality 0.97   cost $9.0e-9",
        "  best score: replica net-int8-2 of digits-net/int8",
        "  done in 900 µs",
    ]


def test_what_is_refused_and_what_still_runs_is_said() -> None:
    rig = Observed(fleet(variant("m", base=0.05)))
    rig.ready("a")
    rig.ask("q", deadline_s=0.02)
    rig.ask("p")
    rig.ask("w")
    texts = {rid: render(found) for rid in "qpw" if (found := rig.ring.get(rid))}
    assert "refused after 0 µs: no replica can finish before the deadline: 20 ms asked" in texts["q"]
    assert texts["p"].endswith("not finished yet")
    assert "waited behind 0 rows" in texts["w"]


def test_short_names() -> None:
    assert short("digits-net/3/int8") == "digits-net/int8"
    assert short("odd") == "odd"


def test_an_event_of_arrival_alone_is_counted() -> None:
    metrics = Metrics()
    metrics.fold(Arrived(ask("q")), [], 0.0)
    assert metrics.arrived == 1


def test_a_quality_that_nobody_measured_is_not_stated() -> None:
    ring = Ring(8)
    rig = Rig(fleet(variant("m", quality=None)))
    rig.ready("a", "m/1/v")
    event = Arrived(ask("q"))
    ring.fold(event, rig.tell(event))
    found = ring.get("q")
    assert found is not None
    assert "quality not measured" in render(found)
