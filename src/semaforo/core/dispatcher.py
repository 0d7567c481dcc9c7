"""The dispatcher: one per gateway. `handle(event, now)` is the whole of it.

Rules this module keeps:

1. Pure: no clock, no I/O, no thread; the same state, events and times give the same effects, always.
2. `handle` never raises for anything that an event can say. Events about batches, replicas or requests that are
   not known (any more) are late news, and change nothing.
3. Every request gets one `Finish`. See `core.ledger`.
4. Effects are in the order in which they should be carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from typing import Any

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.arrival import Door
from semaforo.core.effects import Decided, DispatcherEffect, Drained
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Busy,
    Cancelled,
    DispatcherEvent,
    DrainReplica,
    Feedback,
    FirstChunk,
    FleetChanged,
    Limits,
    Progress,
    Remembered,
    ReplicaGone,
    ReplicaReady,
    Report,
    Scored,
    Tick,
)
from semaforo.core.exploring import learned
from semaforo.core.foresight import Foresight
from semaforo.core.history import Historian
from semaforo.core.ledger import MAX_WAIT_S, Ledger
from semaforo.core.outcome import Outcomes
from semaforo.core.placing import Placer
from semaforo.core.plan import Planner
from semaforo.core.state import DECODER, ENCODER, Job, Phase, State, Timer
from semaforo.core.supply import EXPECT_BACK_S, Supply, new_book
from semaforo.entities import BatchProfile, Request

_INFINITE = float("inf")


class Dispatcher:
    """Queues, admits, routes, batches and balances the requests of one gateway."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state = state or State()
        self._supply = Supply(state)
        self._planner = Planner(state)
        self._ledger = Ledger(state)
        self._placer = Placer(state, self._supply, self._ledger)
        self._door = Door(state, self._supply, self._planner, self._ledger, self._placer)
        self._foresight = Foresight(self._planner, self._door)
        self._historian = Historian(state, self._planner)
        self._outcomes = Outcomes(
            state, self._supply, self._ledger, self._placer, self._door, self._historian
        )
        self._on: dict[type, Callable[[Any, float, list[DispatcherEffect]], None]] = {
            Arrived: self._arrived,
            Scored: self._scored,
            Feedback: self._feedback,
            Remembered: self._remembered,
            Cancelled: self._cancelled,
            BatchDone: self._outcomes.done,
            BatchFailed: self._outcomes.failed,
            Busy: self._outcomes.busy,
            FirstChunk: self._outcomes.first_chunk,
            Progress: self._outcomes.progress,
            Report: self._report,
            Limits: self._limits,
            ReplicaReady: self._ready,
            ReplicaGone: self._gone,
            DrainReplica: self._drain,
            FleetChanged: self._fleet,
            Tick: self._tick,
        }

    def handle(self, event: DispatcherEvent, now: float) -> list[DispatcherEffect]:
        """Take in one event at the monotonic time `now` (seconds, never going back)."""
        out: list[DispatcherEffect] = []
        self._on[type(event)](event, now, out)
        # Most timers have lost their reason by the time they are next: dropping them here saves a `Tick` each.
        timers = self.state.timers
        jobs = self.state.jobs
        while timers and timers[0][3] not in jobs and not self._ledger.alive(timers[0][2], timers[0][3]):
            heappop(timers)
        return out

    def next_deadline(self) -> float | None:
        """Return when a `Tick` is due (monotonic seconds), or None."""
        timers = self.state.timers
        return timers[0][0] if timers else None

    def decide(self, request: Request, now: float) -> Decided:
        """Return the decision a request would meet, without running it.

        Raises:
            NotFound: The target does not exist.
        """
        return self._foresight.decide(request, now)

    def snapshot(self) -> bytes:
        """Encode the whole state."""
        return ENCODER.encode(self.state)

    @classmethod
    def restore(cls, snapshot: bytes) -> Dispatcher:
        """Rebuild a dispatcher that will decide exactly as the one that gave the snapshot."""
        return cls(DECODER.decode(snapshot))

    # --- requests --------------------------------------------------------------------------------------

    def _arrived(self, event: Arrived, now: float, out: list[DispatcherEffect]) -> None:
        self._door.arrive(event.request, now, out)

    def _scored(self, event: Scored, now: float, out: list[DispatcherEffect]) -> None:
        job = self.state.jobs.get(event.request)
        if job is not None and job.phase == Phase.SCORING:
            job.gain, job.trust = event.gain, float(event.trust)
            if event.context:
                learned(self.state, job, self._door.choices(job), event.context)
            job.spoke = self._foresight.spoke(job, event, now) if event.router else None
            self._after_scoring(job, now, out)

    def _after_scoring(self, job: Job, now: float, out: list[DispatcherEffect]) -> None:
        job.phase = Phase.WAITING
        if job.deadline < _INFINITE:
            self._ledger.set_timer(job.deadline, Timer.DEADLINE, job.request.id)
        self._door.replace(job, now, out, "best score")

    def _feedback(self, event: Feedback, now: float, out: list[DispatcherEffect]) -> None:
        if self._historian.feedback(event, out):
            self._replan(now, out)

    def _remembered(self, event: Remembered, now: float, out: list[DispatcherEffect]) -> None:
        self._historian.remembered(event, out)
        self._ledger.spending.remember(event.accounts, now)
        self._replan(now, out)

    def _replan(self, now: float, out: list[DispatcherEffect]) -> None:
        """Place waiting requests anew whose variants are others by what is believed now."""
        moved = [
            job for job in self.state.jobs.values()
            if job.phase == Phase.WAITING and self._planner.plan(job.request, job.gain).lane != job.lane
        ]  # fmt: skip
        for job in moved:
            self._ledger.dequeue(job)
            self._door.replace(job, now, out, "quality changed")

    def _cancelled(self, event: Cancelled, now: float, out: list[DispatcherEffect]) -> None:
        job = self.state.jobs.get(event.request)
        if job is not None:
            if job.phase == Phase.WAITING:
                self._ledger.dequeue(job)
            self._ledger.finish(
                job, "cancelled", now, out, code="cancelled", message="cancelled by the client"
            )
        for child in tuple(self.state.children.get(event.request, ())):
            self._cancelled(Cancelled(child), now, out)

    # --- replicas --------------------------------------------------------------------------------------

    def _ready(self, event: ReplicaReady, now: float, out: list[DispatcherEffect]) -> None:
        state = self.state
        view = event.replica
        variant = state.catalog.variants.get(view.variant)
        if variant is None or view.variant not in state.variants:
            return
        if view.id in state.replicas:
            self._lose(view.id, now, out, expected=True)
        limited: list[Job] = []
        if event.profile is not None:
            state.measured[view.variant] = event.profile
        if event.profile is not None and event.profile != variant.profile:
            variants = dict(state.catalog.variants)
            variants[view.variant] = msgspec.structs.replace(variant, profile=event.profile)
            state.catalog = msgspec.structs.replace(state.catalog, variants=variants)
            self._planner.forget()
            limited = [
                j for j in state.jobs.values()
                if j.phase == Phase.WAITING and j.request.contract.max_cost is not None
            ]  # fmt: skip
        measured = event.profile if isinstance(event.profile, BatchProfile) else None
        self._supply.ready(view, measured, now)
        # A cost depends on the profile, so what was within a request's limit may not be any more.
        for job in limited:
            self._ledger.dequeue(job)
            self._door.replace(job, now, out, "profile changed")
        self._placer.fill(view.id, now, out)

    def _gone(self, event: ReplicaGone, now: float, out: list[DispatcherEffect]) -> None:
        replica = self.state.replicas.get(event.replica)
        if replica is None:
            return
        expected = event.reason != "stopped" and not replica.draining
        self._lose(event.replica, now, out, expected=expected)
        if not expected and not self.state.variants[replica.variant].ready:
            self._give_up_waiting(now, out)

    def _lose(self, replica_id: str, now: float, out: list[DispatcherEffect], *, expected: bool) -> None:
        lost = [n for n, b in self.state.batches.items() if b.replica == replica_id]
        replica = self._supply.gone(replica_id, now, expected=expected)
        if expected:
            self._ledger.set_timer(now + EXPECT_BACK_S, Timer.READY, replica_id)
        for number in lost:
            self._outcomes.failed(BatchFailed(number, "crash", f"replica {replica_id} was lost"), now, out)
        if replica is not None:
            self._placer.fill_siblings(replica.variant, now, out)
            if replica.exclusive:
                self._placer.fill_turn(replica.device, now, out)

    def _drain(self, event: DrainReplica, now: float, out: list[DispatcherEffect]) -> None:
        replica = self.state.replicas.get(event.replica)
        if replica is None or replica.draining:
            return
        self._supply.drain(event.replica)
        if not replica.in_flight:
            out.append(Drained(event.replica))
        self._placer.fill_siblings(replica.variant, now, out)

    def _report(self, event: Report, now: float, out: list[DispatcherEffect]) -> None:
        replica = self.state.replicas.get(event.replica)
        if replica is not None and now - event.age_s >= replica.reported_at:
            replica.reported_at = now - event.age_s
            replica.free_at = replica.reported_at + event.free_in_s

    def _limits(self, event: Limits, now: float, out: list[DispatcherEffect]) -> None:
        replica = self.state.replicas.get(event.replica)
        if replica is None:
            return
        pause = event.retry_after_s
        if not pause and (event.requests_left == 0 or event.tokens_left == 0):
            pause = event.reset_s
        if pause > 0.0 and now + pause > replica.away_until:
            self._supply.send_away(event.replica, replica, now + pause, ejected=False)
            self._placer.fill_siblings(replica.variant, now, out)

    def _fleet(self, event: FleetChanged, now: float, out: list[DispatcherEffect]) -> None:
        state = self.state
        waiting = [j for j in state.jobs.values() if j.phase == Phase.WAITING]
        for job in waiting:
            self._ledger.dequeue(job)
        catalog, known = state.catalog, state.catalog.variants
        state.catalog = self._with_measured(event.catalog)
        for variant in state.catalog.variants.values():
            before = known.get(variant.id)
            if variant.id not in state.variants or before is None or before.profile != variant.profile:
                book = new_book(variant)
                old = state.variants.get(variant.id)
                if old is not None:
                    old.fit, old.work, old.task = book.fit, book.work, book.task
                    old.stream_s = book.stream_s
                else:
                    state.variants[variant.id] = book
        for name in [n for n, b in state.variants.items() if n not in event.catalog.variants and not b.ready]:
            if not any(r.variant == name for r in state.replicas.values()):
                del state.variants[name]
        self._historian.forget(catalog)
        self._planner.forget_lanes()
        for job in waiting:
            self._door.replace(job, now, out, "fleet changed")

    def _with_measured(self, catalog: Catalog) -> Catalog:
        # What was measured of the very same artefact is worth more than what a file says of it.
        state, before = self.state, self.state.catalog.templates
        state.measured = {
            name: profile
            for name, profile in state.measured.items()
            if name in catalog.variants and before.get(name) == catalog.templates.get(name)
        }
        variants = dict(catalog.variants)
        for name, profile in state.measured.items():
            variants[name] = msgspec.structs.replace(variants[name], profile=profile)
        return msgspec.structs.replace(catalog, variants=variants)

    # --- time ------------------------------------------------------------------------------------------

    def _tick(self, event: Tick, now: float, out: list[DispatcherEffect]) -> None:
        timers = self.state.timers
        while timers and timers[0][0] <= now:
            _, _, kind, key = heappop(timers)
            if kind == Timer.REPLICA:
                self._return(key, now, out)
            elif kind == Timer.HEDGE:
                self._outcomes.hedge(int(key), now, out)
            elif kind == Timer.READY:
                self._give_up_waiting(now, out)
            else:
                job = self.state.jobs.get(key)
                if job is None:
                    continue
                if kind == Timer.DEADLINE:
                    self._deadline(job, now, out)
                elif kind == Timer.PRESS and job.phase == Phase.WAITING:
                    self._press(job, now, out)
                elif kind == Timer.SCORE and job.phase == Phase.SCORING:
                    self._after_scoring(job, now, out)

    def _deadline(self, job: Job, now: float, out: list[DispatcherEffect]) -> None:
        if job.phase == Phase.WAITING:
            if job.deadline == _INFINITE:
                if now < job.arrived + MAX_WAIT_S:
                    return
                self._ledger.dequeue(job)
                text = f"waited {now - job.arrived:.0f} s and no replica came free"
                self._ledger.finish(job, "expired", now, out, code="expired", message=text)
                return
            latest = job.deadline - self._placer.fastest_s(job)
            if now >= latest:
                self._placer.drop_late(job, now, out)
            else:
                self._ledger.set_timer(latest, Timer.DEADLINE, job.request.id)
        elif job.deadline <= now:
            self._ledger.expire(job, now, out)
        elif job.deadline < _INFINITE:
            self._ledger.set_timer(job.deadline, Timer.DEADLINE, job.request.id)

    def _press(self, job: Job, now: float, out: list[DispatcherEffect]) -> None:
        for name in self.state.lanes[job.lane].reserve:
            book = self.state.variants[name]
            if self._supply.has_free(book):
                self._placer.fill(book.idle[0][2], now, out)
                if job.phase != Phase.WAITING:
                    return

    def _return(self, replica_id: str, now: float, out: list[DispatcherEffect]) -> None:
        replica = self.state.replicas.get(replica_id)
        if replica is not None and replica.away_until and replica.away_until <= now:
            self._supply.return_from_away(replica_id, replica)
            self._placer.fill(replica_id, now, out)

    def _give_up_waiting(self, now: float, out: list[DispatcherEffect]) -> None:
        for job in [j for j in self.state.jobs.values() if j.phase == Phase.WAITING]:
            lane = self.state.lanes[job.lane]
            books = [self.state.variants[n] for n in lane.open + lane.reserve if n in self.state.variants]
            if not any(b.ready or b.expected_until > now for b in books):
                self._ledger.dequeue(job)
                text = "the replicas that could serve it were lost and none came back"
                self._ledger.finish(job, "failed", now, out, code="not_ready", message=text)
