"""Counters as a fold over (event, effects). They are plain numbers; the server writes them for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from semaforo.core.effects import Decided, DispatcherEffect, Ejected, Finish, Run
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Busy,
    DispatcherEvent,
    ReplicaGone,
    ReplicaReady,
)

BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the latency histogram, in seconds."""


class BatchStats(msgspec.Struct):
    """Batches of one size: how many, and seconds in all."""

    count: int = 0
    seconds: float = 0.0


class VariantStats(msgspec.Struct):
    """Counters of one variant.

    Attributes:
        ok, failed: Requests that ended well, or badly.
        ok_s, failed_s: Seconds from arrival to answer, in all.
        queue_s: Seconds waited before the last binding, in all.
        compute_s: Seconds that workers spent, in all.
        rows: Rows served.
        cost: US dollars.
        batches: By number of rows.
        last_at: When a batch last ended (monotonic seconds); 0 = never.
        histogram: Requests answered by latency bucket (`BUCKETS_S`, then the rest).
    """

    ok: int = 0
    failed: int = 0
    ok_s: float = 0.0
    failed_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    rows: int = 0
    cost: float = 0.0
    batches: dict[int, BatchStats] = {}
    last_at: float = 0.0
    histogram: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))


class ReplicaStats(msgspec.Struct):
    """Counters of one replica."""

    batches: int = 0
    rows: int = 0
    compute_s: float = 0.0
    failures: int = 0
    ejections: int = 0


class Metrics:
    """Everything counted since the start.

    Attributes:
        arrived: Requests that arrived.
        outcomes: Requests by outcome.
        moves: Bindings after a failure or for a hedge, by reason.
        variants, replicas: Counters by id.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.outcomes: dict[str, int] = dict.fromkeys(
            ("done", "failed", "shed", "expired", "cancelled", "refused"), 0
        )
        self.moves: dict[str, int] = {}
        self.variants: dict[str, VariantStats] = {}
        self.replicas: dict[str, ReplicaStats] = {}
        self._running: dict[int, tuple[str, int]] = {}
        self._variant_of: dict[str, str] = {}

    def fold(self, event: DispatcherEvent, effects: Sequence[DispatcherEffect], now: float) -> None:
        """Take in one event and its effects; O(1) each."""
        self.event(event, now)
        for effect in effects:
            if isinstance(effect, Finish):
                self.finished(effect)
            elif isinstance(effect, Run):
                self.running(effect)
            elif isinstance(effect, Decided):
                self.decided(effect)
            elif isinstance(effect, Ejected):
                self.ejected(effect)

    def event(self, event: DispatcherEvent, now: float) -> None:
        """Take in one event."""
        kind = type(event)
        if kind is Arrived:
            self.arrived += 1
        elif isinstance(event, BatchDone):
            self._batch_done(event, now)
        elif isinstance(event, BatchFailed):
            known = self._running.pop(event.batch, None)
            if known is not None and event.kind != "cancelled":
                self._replica(known[0]).failures += 1
        elif isinstance(event, Busy):
            self._running.pop(event.batch, None)
        elif isinstance(event, ReplicaGone):
            self._lost(event.replica)
        elif isinstance(event, ReplicaReady):
            self._lost(event.replica.id)
            self._variant_of[event.replica.id] = event.replica.variant

    def _lost(self, replica_id: str) -> None:
        for batch in [n for n, (name, _) in self._running.items() if name == replica_id]:
            del self._running[batch]
            self._replica(replica_id).failures += 1

    def decided(self, effect: Decided) -> None:
        """Take in one decision."""
        if effect.replica and effect.move:
            self.moves[effect.reason] = self.moves.get(effect.reason, 0) + 1

    def running(self, effect: Run) -> None:
        """Take in a batch that begins."""
        self._running[effect.batch] = (effect.replica, effect.rows)

    def ejected(self, effect: Ejected) -> None:
        """Take in an ejection."""
        self._replica(effect.replica).ejections += 1

    def _replica(self, replica_id: str) -> ReplicaStats:
        found = self.replicas.get(replica_id)
        if found is None:
            found = self.replicas[replica_id] = ReplicaStats()
        return found

    def variant(self, variant_id: str) -> VariantStats:
        """Return the counters of a variant, zero when it has served nothing."""
        found = self.variants.get(variant_id)
        if found is None:
            found = self.variants[variant_id] = VariantStats()
        return found

    def _batch_done(self, event: BatchDone, now: float) -> None:
        known = self._running.pop(event.batch, None)
        if known is None:
            return
        replica_id, rows = known
        replica = self._replica(replica_id)
        replica.batches += 1
        replica.rows += rows
        replica.compute_s += event.service_s
        stats = self.variant(self._variant_of.get(replica_id, ""))
        stats.compute_s += event.service_s
        stats.rows += rows
        stats.last_at = now
        size = stats.batches.get(rows)
        if size is None:
            size = stats.batches[rows] = BatchStats()
        size.count += 1
        size.seconds += event.service_s

    def finished(self, effect: Finish) -> None:
        """Take in a terminal answer."""
        self.outcomes[effect.outcome] += 1
        if not effect.variant:
            return
        stats = self.variant(effect.variant)
        if effect.outcome == "done":
            stats.ok += 1
            stats.ok_s += effect.total_s
            stats.queue_s += effect.waited_s
            stats.cost += effect.cost
            stats.histogram[bisect_left(BUCKETS_S, effect.total_s)] += 1
        else:
            stats.failed += 1
            stats.failed_s += effect.total_s
