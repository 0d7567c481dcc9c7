"""The engine: the asyncio shell that gives the machines their events and carries out their effects.

Rules this module keeps:

1. It decides nothing. What it knows beyond the machines is payloads, callbacks and handles.
2. Everything happens on the loop's thread, and handles report from callbacks of their own: an effect tells the
   machines nothing while it is carried out (`Machines`).
3. Payloads are kept from `submit` to `Release`, callbacks from `submit` to `Finish`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Believed, Cancel, Decided, Drained, Ejected, Finish, Release, Run, Score
from semaforo.core.events import (
    Arrived,
    BatchFailed,
    Cancelled,
    FleetChanged,
)
from semaforo.core.state import History
from semaforo.entities import Priority, ReplicaSpec, Request
from semaforo.errors import NotFound
from semaforo.features.plan import Sources
from semaforo.graph import graph
from semaforo.live.answer import Answer, Waiter
from semaforo.live.cache import Said
from semaforo.live.conductor import Asked
from semaforo.live.crew import Crew, ReplicaStatus
from semaforo.live.graph_replica import GraphReplica
from semaforo.live.handle import Handle, Sink
from semaforo.live.inbox import Inbox
from semaforo.live.learning import Again, Learning
from semaforo.live.load import LoadMeter
from semaforo.live.machines import Machines
from semaforo.live.operations import Operations
from semaforo.live.sessions import Sessions
from semaforo.live.stream import Stream
from semaforo.observe.explain import Explanation, Looked, Ring
from semaforo.observe.metrics import Metrics
from semaforo.repository.history import HistoryStore
from semaforo.repository.routers import Routed
from semaforo.routing.tasks import Inferred, TaskModel
from semaforo.wire.payload import Payload

log = logging.getLogger("semaforo.engine")

_RESOLUTION_S = 0.001


class Engine:
    """A live fleet.

    Args:
        handles: Makes the handle that hosts a replica.
        journal: File to record every decision in, or None.
        explain_ring: Explanations to keep.
        routers: Trained routers by task.
        sources: What looks at payloads, so that routers know what they hold; None = what is built in.
        tasks: What tells tasks apart, for requests that name none.
        history: Where what is learned is kept over restarts, or None; it is closed with the engine.

    Attributes:
        learning: What is learned from requests and answers, and by what.
    """

    def __init__(
        self,
        handles: Callable[[ReplicaSpec, Sink], Handle],
        *,
        journal: Path | None = None,
        explain_ring: int = 4096,
        history: HistoryStore | None = None,
        routers: Mapping[str, Routed] | None = None,
        sources: Sources | None = None,
        tasks: TaskModel | None = None,
    ) -> None:
        self.tasks = tasks
        self.metrics = Metrics()
        self.ring = Ring(explain_ring)
        self._machines = Machines(self.metrics, journal)
        self._dispatcher = self._machines.dispatcher
        self._tell, self._control = self._machines.tell, self._machines.control
        self._factory = handles
        self._sessions = Sessions(time.monotonic)
        self._payloads: dict[str, Payload] = {}
        self._waiters: dict[str, Callable[[Answer], None]] = {}
        self._inbox = Inbox(self._dispatcher.state, self._tell, self._lost)
        self._streams = self._inbox.streams
        self.learning = Learning(
            self._dispatcher.state, self.ring, self._tell, self, history, routers or {}, sources
        )
        self._ids = itertools.count(1)
        self._prefix = secrets.token_hex(4)
        self._hurry: Callable[[], None] | None = None
        # Replicas in the loop that were given work since the last hurry.
        self._inline: set[str] = set()
        self._meter: LoadMeter | None = None
        self._act: dict[type, Callable[[Any], None]] = {
            Decided: self._decided,
            Run: self._run,
            Finish: self._finish,
            Release: self._release,
            Cancel: self._cancel_batch,
            Drained: lambda e: self._crew.drained(e.replica),
            Ejected: self._ejected,
            Believed: self.learning.believed,
            Score: self._score,
        }

    # --- life ------------------------------------------------------------------------------------------

    async def start(self, catalog: Catalog, *, ready_timeout_s: float = 60.0) -> None:
        """Start the least replicas of all variants and wait until each is ready or has failed.

        Raises:
            JournalError: The journal cannot be written.
        """
        self._loop = asyncio.get_running_loop()
        # Not the loop's clock: uvloop's moves in steps of a millisecond.
        self._clock = time.monotonic
        self._crew = Crew(self._handle, self._inbox, self._tell, self._control)
        self.operations = Operations(
            self._dispatcher.state, self._machines.controller, self._crew, self._control, self.ready
        )
        self._machines.start(self._act, self._crew)
        self._meter = LoadMeter(self.metrics, self._dispatcher.state, self._control)
        await self.apply(catalog)
        self.learning.start(catalog)
        await self._crew.settled(self._machines.controller, ready_timeout_s)

    async def apply(self, catalog: Catalog) -> None:
        """Serve another catalog from now on; requests that wait are placed anew."""
        self.learning.changed(self.catalog, catalog)
        event = FleetChanged(catalog)
        self._tell(event)
        self._control(event)
        assert self._meter is not None
        self._meter.watch(catalog)

    async def stop(self, grace_s: float = 10.0) -> None:
        """Finish what runs within `grace_s` seconds, then stop every replica and answer what is left."""
        if not hasattr(self, "_crew"):
            return
        until = self._clock() + grace_s
        self.learning.quiet()
        while self._waiters or self._streams:
            if self._clock() >= until:
                break
            await asyncio.sleep(0.01)
        for request_id in list(self._waiters) + list(self._streams):
            self.cancel(request_id)
        if self._meter is not None:
            self._meter.close()
        await self._crew.close(max(0.1, until - self._clock()))
        await self.learning.stop()
        self._machines.close()

    # --- requests --------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """Return a fresh request id of 16 hexadecimal characters, random at the front."""
        # An odd multiplier scrambles the counter, so that the first characters tell requests apart.
        return f"{next(self._ids) * 0x9E3779B1 & 0xFFFFFFFF:08x}{self._prefix}"

    def submit(self, request: Request, payload: Payload, on_answer: Callable[[Answer], None]) -> None:
        """Serve a request; `on_answer` is called once, on the loop's thread, perhaps before this returns."""
        if (found := self.learning.found(request, payload, self._clock())) is not None:
            on_answer(found[0])
            return
        self._waiters[request.id] = on_answer
        self._enter(request, payload)

    async def infer(self, request: Request, payload: Payload, *, at_once: bool = False) -> Answer:
        """Serve a request and wait for its answer; cancelling the wait cancels the request.

        Args:
            request: What is asked for.
            payload: With which data.
            at_once: Do not wait a round of the loop for company where the model runs in the loop: for a front
                whose requests come one by one.
        """
        waiter = Waiter()
        self.submit(request, payload, waiter.settle)
        if at_once and waiter.answer is None and self._hurry is not None:
            self._hurry()
        if waiter.answer is not None:
            return waiter.answer
        waiter.future = self._loop.create_future()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self.cancel(request.id)
            raise

    def stream(self, request: Request, payload: Payload) -> Stream:
        """Serve a request whose answer comes in chunks."""
        stream = Stream(request.id, self.cancel)
        if (found := self.learning.found(request, payload, self._clock())) is not None:
            stream.give(*found)
            return stream
        if self.learning.wanted(request):
            stream.kept = []
        self._streams[request.id] = stream
        self._enter(request, payload)
        return stream

    def cancel(self, request_id: str) -> None:
        """Stop a request, waiting or running, and the steps it has caused; unknown ids are ignored."""
        if self.learning.let_go(request_id):
            # It waits for its embedding, so the dispatcher does not know it.
            finish = Finish(request_id, "cancelled", code="cancelled", message="cancelled by the client")
            self.ring.finished(finish)
            self._payloads.pop(request_id, None)
            self._end(request_id, Answer(finish))
        self._tell(Cancelled(request_id))

    def _enter(self, request: Request, payload: Payload) -> None:
        self._payloads[request.id] = payload
        self.ring.arrived(request)
        if not self.learning.look(request, payload, self._go_on):
            self._tell(Arrived(request))

    def _go_on(self, request: Request, found: Again | None) -> None:
        if found is None:
            self._tell(Arrived(request))
            return
        self._payloads.pop(request.id, None)
        self._end(request.id, *found)

    def _end(self, request_id: str, answer: Answer, said: Said | None = None) -> None:
        waiter = self._waiters.pop(request_id, None)
        stream = self._streams.pop(request_id, None)
        if waiter is not None:
            waiter(answer)
        elif stream is not None:
            stream.give(answer, said)

    # --- what graphs ask (`Conductor`) -----------------------------------------------------------------

    def now(self) -> float:
        """Return the monotonic second that events are dated with."""
        return self._clock()

    def asked(self, batch: int) -> Asked | None:
        """Return the request that a batch of one answers; None where nobody waits for it any more."""
        state = self._dispatcher.state
        running = state.batches.get(batch)
        job = state.jobs.get(running.members[0]) if running is not None else None
        return None if job is None else Asked(job.request, job.deadline)

    def hurry(self) -> None:
        """Run what waits for the loop's next round now; not to be called from within an effect."""
        busy, self._inline = self._inline, set()
        for replica in busy:
            handle = self._crew.inline.get(replica)
            if handle is not None:
                handle.hurry()

    def predicted_s(self, target: str, rows: int) -> float:
        """Return the seconds a target takes for so many rows, by its slowest variant in service."""
        books = self._dispatcher.state.variants
        try:
            found = [books[v.id] for v in self.catalog.resolve(target) if v.id in books and books[v.id].ready]
        except NotFound:
            return 0.0
        return max((b.stream_s or b.fit.seconds(rows) for b in found), default=0.0)

    def inferred(self, request_id: str, found: Inferred) -> None:
        """Keep how the task of a request that named none was found, to be explained."""
        self.ring.inferred(request_id, found.probability)

    def agreed(self, finish: Finish, score: float, weight: float) -> None:
        """Learn that an answer was with what was fused of several."""
        self.learning.agreed(finish, score, weight)

    def lost(self, request_id: str, without: tuple[str, ...]) -> None:
        """Keep what the answer to a request had to do without, to be explained."""
        self.ring.lost(request_id, without)

    def looked(self, request_id: str, looked: Looked) -> None:
        """Keep what a step of a graph saw of its rows, to be explained."""
        self.ring.looked(request_id, looked)

    def _handle(self, spec: ReplicaSpec, sink: Sink) -> Handle:
        if spec.runtime == graph.RUNTIME:
            return GraphReplica(spec, self._inbox, self, self._sessions)
        return self._factory(spec, sink)

    def decide(self, request: Request) -> Decided:
        """Return the decision a request would meet now, without running it.

        Raises:
            NotFound: The target does not exist.
        """
        return self._dispatcher.decide(request, self._clock())

    def waiting_rows(self, target: str, priority: Priority) -> int:
        """Return the rows that wait for a target's task in this class and above; 0 for an unknown target."""
        try:
            queue = self._dispatcher.state.queues.get(self.catalog.task_of(target).name)
        except NotFound:
            return 0
        return sum(queue.rows[: priority + 1]) if queue is not None else 0

    @property
    def history(self) -> dict[str, History]:
        """What variants have shown themselves to be worth, by id."""
        return self._dispatcher.state.history

    def explanation(self, request_id: str) -> Explanation | None:
        """Return why a request went where it went; a unique beginning of its id will do."""
        return self.ring.get(request_id)

    # --- the fleet -------------------------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """The catalog being served, with the profiles that were measured at load."""
        return self._dispatcher.state.catalog

    def replicas(self) -> list[ReplicaStatus]:
        """Return every replica, running or not."""
        books = self._dispatcher.state.replicas
        found = self._crew.status(
            self._machines.controller, {name: book.rows for name, book in books.items()}
        )
        for status in found:
            stats = self.metrics.replicas.get(status.id)
            if stats is not None:
                status.served_rows, status.service_s = stats.rows, stats.compute_s
            book = books.get(status.id)
            if book is not None and book.ejected:
                status.state = "ejected"
        return found

    def ready(self, target: str, version: str = "") -> bool:
        """Tell whether some variant of the target has a replica in service.

        Raises:
            NotFound: The target or version does not exist.
        """
        books = self._dispatcher.state.variants
        return any(books[v.id].ready > 0 for v in self.catalog.resolve(target, version) if v.id in books)

    # --- effects ------------------------------------------------------------------------------------------

    def _score(self, effect: Score) -> None:
        self.learning.score(effect, self._payloads.get(effect.request))

    def _decided(self, effect: Decided) -> None:
        self.ring.decided(effect)
        if effect.spoke is not None:
            self.learning.spoke(effect)
        if effect.shadow:
            self.learning.shadow(effect, self._payloads.get(effect.request))
        if effect.move:
            self.metrics.decided(effect)

    def _ejected(self, effect: Ejected) -> None:
        self.metrics.ejected(effect)
        log.warning("replica %s is left alone for %.0f s: %s", effect.replica, effect.for_s, effect.reason)

    def _run(self, effect: Run) -> None:
        self.metrics.running(effect)
        payloads = self._payloads
        members = [payloads[m] for m in effect.members]
        if len(members) == 1 and effect.members[0] in self._streams:
            self._inbox.expect_stream(effect.batch, effect.members[0])
        handle = self._crew.handles.get(effect.replica)
        if handle is None:
            # Lost between the decision and now: the dispatcher hears of it next.
            event = BatchFailed(effect.batch, "crash", f"replica {effect.replica} is gone")
            self._loop.call_soon(self._tell, event)
            return
        handle.run(effect.batch, members, effect.rows)
        if effect.replica in self._crew.inline:
            self._inline.add(effect.replica)
            self._hurry = self._crew.inline[effect.replica].hurry
        else:
            self._hurry = None

    def _finish(self, effect: Finish) -> None:
        rid = effect.request
        self.ring.finished(effect)
        self.metrics.finished(effect)
        result = self._inbox.results.pop(rid, None)
        self.learning.finished(effect, self._payloads.get(rid), result, self._streams.get(rid), self._clock())
        answer = Answer(effect, result)
        if effect.variant:
            answer.model, answer.version, answer.variant = effect.variant.split("/", 2)
        self._end(rid, answer)

    def _release(self, effect: Release) -> None:
        self._payloads.pop(effect.request, None)

    def _cancel_batch(self, effect: Cancel) -> None:
        handle = self._crew.handles.get(effect.replica)
        if handle is not None:
            handle.cancel(effect.batch)

    def _lost(self, replica: str, reason: str) -> None:
        self._crew.lost(replica, reason)
