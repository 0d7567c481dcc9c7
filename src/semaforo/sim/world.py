"""A small world with a virtual clock: replicas that take the time their profiles say, and faults on request.

Rules this module keeps:

1. It runs the very machines that serve; only the world around them is made up.
2. Everything random comes from one seeded generator, and events at the same moment keep their order, so a
   simulation with the same arguments gives the same effects, always.
3. What it reports is counted here, from effects and from its own replicas, never read from the machines' state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Literal

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core import journal
from semaforo.core.controller import Controller
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import (
    Cancel,
    ControllerEffect,
    DispatcherEffect,
    Drained,
    Finish,
    Release,
    Run,
    Score,
    StartReplica,
)
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Cancelled,
    ControllerEvent,
    DispatcherEvent,
    DrainReplica,
    FirstChunk,
    FleetChanged,
    ReplicaGone,
    ReplicaReady,
    ReplicaStopped,
    Scale,
    Scored,
    Tick,
)
from semaforo.entities import ReplicaSpec, ReplicaView, Request, StreamProfile
from semaforo.observe.explain import Ring
from semaforo.observe.metrics import Metrics


class Fault(msgspec.Struct, frozen=True):
    """Something that happens to a replica.

    Attributes:
        at: When, in seconds.
        replica: Which.
        kind: ``crash`` it dies; ``slow`` it takes `factor` times as long; ``errors`` its batches fail.
        for_s: How long ``slow`` and ``errors`` last.
        factor: See ``slow``.
    """

    at: float
    replica: str
    kind: Literal["crash", "slow", "errors"]
    for_s: float = 1.0
    factor: float = 10.0


Happening = DispatcherEvent | Scale | Fault | Callable[[], None]


class Ran(msgspec.Struct, frozen=True):
    """One batch as it really ran: `end` is when it ended, was stopped or was lost."""

    batch: int
    replica: str
    members: tuple[str, ...]
    rows: int
    start: float
    end: float
    ended: Literal["done", "error", "crash", "cancelled"]


class Trace(msgspec.Struct):
    """What happened.

    Attributes:
        finished: Terminal answers in order: (time, answer).
        released: Ids whose payload was released, in order.
        ran: Batches in order of their end.
        effects: Every effect of the dispatcher with its time, when asked for.
        metrics: The same counters a live fleet has.
        ring: Explanations.
        journal: Records, when asked for.
    """

    finished: list[tuple[float, Finish]]
    released: list[str]
    ran: list[Ran]
    effects: list[tuple[float, DispatcherEffect]]
    metrics: Metrics
    ring: Ring
    journal: bytes = b""


class World:
    """One simulated fleet.

    Args:
        catalog: What is served. True service times are its profiles, times `noise`.
        seed: Of the generator.
        noise: Standard deviation of the factor on service times (log-normal), 0 = exact.
        start_s: Seconds a replica takes to start.
        speeds: True factor on service time by replica id; 1 where none is given.
        output_tokens: Mean length of a streamed answer.
        record: Keep effects and a journal.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        seed: int = 0,
        noise: float = 0.05,
        start_s: float = 0.0,
        speeds: dict[str, float] | None = None,
        output_tokens: int = 64,
        record: bool = False,
    ) -> None:
        self.now = 0.0
        self.dispatcher = Dispatcher()
        self.controller = Controller()
        self.trace = Trace([], [], [], [], Metrics(), Ring(1 << 20 if record else 4096))
        self._random = random.Random(seed)
        self._noise = noise
        self._start_s = start_s
        self._speeds = speeds or {}
        self._output_tokens = output_tokens
        self._record = record
        self._agenda: list[tuple[float, int, Happening]] = []
        self._order = 0
        self._running: dict[int, tuple[Run, float]] = {}
        self._busy_until: dict[str, float] = {}
        self._slow: dict[str, tuple[float, float]] = {}
        self._broken: dict[str, float] = {}
        self._records = bytearray()
        if record:
            self._records += journal.HEADER
            snapshot = journal.Snapshot(self.dispatcher.snapshot(), self.controller.snapshot())
            self._records += journal.encode(snapshot)
        self.tell(FleetChanged(catalog))
        self.control(FleetChanged(catalog))

    # --- what the caller schedules ---------------------------------------------------------------------

    def at(self, when: float, event: Happening) -> None:
        """Let something happen at a moment."""
        self._order += 1
        heappush(self._agenda, (when, self._order, event))

    def arrive(self, arrivals: Iterable[tuple[float, Request]]) -> None:
        """Schedule requests."""
        for when, request in arrivals:
            self.at(when, Arrived(request))

    def snapshot(self) -> None:
        """Begin a new segment of the journal here."""
        snapshot = journal.Snapshot(self.dispatcher.snapshot(), self.controller.snapshot())
        self._records += journal.encode(snapshot)

    def run(self, until: float = float("inf")) -> Trace:
        """Let time pass until nothing is left to happen, or until a moment; return what has happened."""
        while True:
            when = self._agenda[0][0] if self._agenda else float("inf")
            for machine in (self.dispatcher, self.controller):
                at = machine.next_deadline()
                if at is not None and at < when:
                    when = at
            if when == float("inf") or when > until:
                break
            self.now = max(self.now, when)
            if self._agenda and self._agenda[0][0] <= self.now:
                self._happen(heappop(self._agenda)[2])
            else:
                self.tell(Tick())
                self.control(Tick())
        if until < float("inf"):
            self.now = max(self.now, until)
        self.trace.journal = bytes(self._records)
        return self.trace

    # --- events and effects ----------------------------------------------------------------------------

    def tell(self, event: DispatcherEvent) -> None:
        """Give the dispatcher an event now."""
        effects = self.dispatcher.handle(event, self.now)
        self.trace.metrics.fold(event, effects, self.now)
        self.trace.ring.fold(event, effects)
        if self._record:
            self.trace.effects += [(self.now, e) for e in effects]
            self._records += journal.encode(journal.Decision(self.now, event, journal.digest(effects)))
        for effect in effects:
            self._act(effect)

    def control(self, event: ControllerEvent) -> None:
        """Give the controller an event now."""
        effects = self.controller.handle(event, self.now)
        if self._record:
            self._records += journal.encode(journal.Control(self.now, event, journal.digest(effects)))
        for effect in effects:
            self._manage(effect)

    def _act(self, effect: DispatcherEffect) -> None:
        if isinstance(effect, Run):
            self._begin(effect)
        elif isinstance(effect, Finish):
            self.trace.finished.append((self.now, effect))
        elif isinstance(effect, Release):
            self.trace.released.append(effect.request)
        elif isinstance(effect, Cancel) and effect.batch in self._running:
            self._end(effect.batch, "cancelled")
            self.at(self.now, BatchFailed(effect.batch, "cancelled"))
        elif isinstance(effect, Score):
            # Requests hold nothing here that could be looked at.
            self.at(self.now, Scored(effect.request, {}, 0.0))
        elif isinstance(effect, Drained):
            self.at(self.now, ReplicaGone(effect.replica, "stopped"))

    def _manage(self, effect: ControllerEffect) -> None:
        if isinstance(effect, StartReplica):
            spec = effect.spec
            slots = self._slots(spec)
            exclusive = spec.isolation == "inline"
            ahead = spec.isolation == "process" and slots == 1
            view = ReplicaView(spec.id, spec.variant, spec.device, slots, exclusive, ahead=ahead)
            self.at(self.now + self._start_s, ReplicaReady(view))
        else:
            self.at(self.now, DrainReplica(effect.replica))

    def _slots(self, spec: ReplicaSpec) -> int:
        profile = self.controller.state.catalog.variants[spec.variant].profile
        return profile.slots if isinstance(profile, StreamProfile) else 1

    def _begin(self, run: Run) -> None:
        variant = self.dispatcher.state.catalog.variants[self.dispatcher.state.replicas[run.replica].variant]
        factor = self._random.lognormvariate(0.0, self._noise) if self._noise else 1.0
        factor *= self._speeds.get(run.replica, 1.0)
        until, slower = self._slow.get(run.replica, (0.0, 1.0))
        if self.now < until:
            factor *= slower
        profile = variant.profile
        start = self.now
        if not isinstance(profile, StreamProfile):
            # A batch that was handed over ahead begins when the one before it ends.
            start = max(start, self._busy_until.get(run.replica, 0.0))
        self._running[run.batch] = (run, start)
        if isinstance(profile, StreamProfile):
            tokens = max(1, int(self._random.expovariate(1.0 / self._output_tokens)))
            first = profile.seconds(0, 0) * factor
            seconds = first + profile.token_s * tokens * factor
            self.at(self.now + first, FirstChunk(run.batch))
            self.at(self.now + seconds, BatchDone(run.batch, seconds, 0, tokens))
        else:
            seconds = profile.seconds(run.rows) * factor
            end = self._busy_until[run.replica] = start + seconds
            if self.now < self._broken.get(run.replica, 0.0):
                self.at(end, BatchFailed(run.batch, "error", "injected error"))
            else:
                self.at(end, BatchDone(run.batch, seconds))

    def _end(self, batch: int, how: Literal["done", "error", "crash", "cancelled"]) -> None:
        run, start = self._running.pop(batch)
        if not any(other.replica == run.replica for other, _ in self._running.values()):
            self._busy_until.pop(run.replica, None)
        self.trace.ran.append(Ran(batch, run.replica, run.members, run.rows, start, self.now, how))

    def _happen(self, event: Happening) -> None:
        if isinstance(event, Fault):
            self._fault(event)
            return
        if callable(event):
            event()
            return
        if isinstance(event, BatchDone | BatchFailed):
            if event.batch in self._running:
                self._end(event.batch, "done" if isinstance(event, BatchDone) else "error")
            elif not (isinstance(event, BatchFailed) and event.kind == "cancelled"):
                return  # It was lost or stopped before it could end.
        if isinstance(event, FirstChunk) and event.batch not in self._running:
            return
        if isinstance(event, ReplicaReady):
            managed = self.controller.state.replicas.get(event.replica.id)
            if managed is None or managed.state != "starting":
                return
            self.tell(event)
            self.control(event)
        elif isinstance(event, ReplicaGone):
            self.tell(event)
            self.control(ReplicaStopped(event.replica))
        elif isinstance(event, DrainReplica):
            if event.replica in self.dispatcher.state.replicas:
                self.tell(event)
            else:
                self.control(ReplicaStopped(event.replica))
        elif isinstance(event, Scale):
            self.control(event)
        elif isinstance(event, FleetChanged):
            self.tell(event)
            self.control(event)
        else:
            self.tell(event)

    def _fault(self, fault: Fault) -> None:
        if fault.kind == "slow":
            self._slow[fault.replica] = (self.now + fault.for_s, fault.factor)
        elif fault.kind == "errors":
            self._broken[fault.replica] = self.now + fault.for_s
        elif fault.replica in self.dispatcher.state.replicas:
            for batch in [n for n, (run, _) in self._running.items() if run.replica == fault.replica]:
                self._end(batch, "crash")
            gone = ReplicaGone(fault.replica, "injected crash")
            self.tell(gone)
            self.control(gone)

    def cancel(self, when: float, request: str) -> None:
        """Let a client go away at a moment."""
        self.at(when, Cancelled(request))
