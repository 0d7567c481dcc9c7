"""The crew: the replicas of one fleet as they really are. It carries out what the controller asks for.

Rules this module keeps:

1. A handle is in `handles` exactly while the dispatcher may send it work.
2. Stopping is: no new work (the dispatcher drains it), wait until idle or the grace is over, then end it.
3. Whatever happens to a replica is told to both machines, the dispatcher first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from semaforo.core.controller import Controller
from semaforo.core.effects import ControllerEffect, StartReplica
from semaforo.core.events import (
    ControllerEvent,
    DispatcherEvent,
    DrainReplica,
    ReplicaFailed,
    ReplicaGone,
    ReplicaReady,
    ReplicaStopped,
)
from semaforo.entities import ReplicaSpec, ReplicaView
from semaforo.errors import SemaforoError
from semaforo.live.handle import Handle, Hurried, Sink, Started

log = logging.getLogger("semaforo.fleet")


class ReplicaStatus(msgspec.Struct):
    """One replica, for people and programs to look at."""

    id: str
    variant: str
    state: str
    isolation: str = ""
    device: str = ""
    pid: int = 0
    in_flight_rows: int = 0
    restarts: int = 0
    last_error: str = ""
    memory_bytes: int = 0
    slots: int = 0
    served_rows: int = 0
    service_s: float = 0.0


class Crew:
    """Starts, watches and stops handles.

    Args:
        factory: Makes the handle for a specification.
        sink: Where handles report.
        tell: Gives an event to the dispatcher.
        control: Gives an event to the controller.
        grace_s: Seconds a replica that is told to stop may use to finish its work.
    """

    def __init__(
        self,
        factory: Callable[[ReplicaSpec, Sink], Handle],
        sink: Sink,
        tell: Callable[[DispatcherEvent], None],
        control: Callable[[ControllerEvent], None],
        grace_s: float = 30.0,
    ) -> None:
        self.handles: dict[str, Handle] = {}
        self.inline: dict[str, Hurried] = {}
        self.started: dict[str, Started] = {}
        self.grace_s = grace_s
        self._factory = factory
        self._sink = sink
        self._tell = tell
        self._control = control
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._idle: dict[str, asyncio.Event] = {}
        self._news = asyncio.Event()
        self.closing = False

    def act(self, effect: ControllerEffect) -> None:
        """Carry out one effect of the controller."""
        if isinstance(effect, StartReplica):
            if not self.closing:
                spec = effect.spec
                self._starting[spec.id] = asyncio.ensure_future(self._start(spec))
        else:
            self._stopping[effect.replica] = asyncio.ensure_future(self._stop(effect.replica, self.grace_s))

    async def _start(self, spec: ReplicaSpec) -> None:
        handle = self._factory(spec, self._sink)
        try:
            started = await handle.start()
        except asyncio.CancelledError:
            await handle.stop(0.0)
            raise
        except SemaforoError as error:
            await self._failed(spec, handle, str(error))
        except Exception as error:
            log.exception("replica %s could not be started", spec.id)
            await self._failed(spec, handle, f"{type(error).__name__}: {error}")
        else:
            self.handles[spec.id] = handle
            self.started[spec.id] = started
            self._note_inline()
            inline = started.isolation == "inline"
            view = ReplicaView(
                spec.id,
                spec.variant,
                "loop" if inline else spec.device,
                started.slots,
                exclusive=inline,
                shared=started.shared,
                max_rows=started.max_rows,
                ahead=started.isolation == "process" and started.slots == 1,
            )
            log.info("replica %s is ready (%s, pid %d)", spec.id, started.isolation, started.pid)
            event = ReplicaReady(view, started.profile)
            self._tell(event)
            self._control(event)
        finally:
            self._starting.pop(spec.id, None)
            self._news.set()

    async def _failed(self, spec: ReplicaSpec, handle: Handle, reason: str) -> None:
        log.error("replica %s could not be started: %s", spec.id, reason)
        await handle.stop(0.0)
        if not self.closing:
            self._control(ReplicaFailed(spec.id, reason))

    async def _stop(self, replica: str, grace_s: float) -> None:
        starting = self._starting.pop(replica, None)
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        handle = self.handles.get(replica)
        if handle is not None:
            idle = self._idle[replica] = asyncio.Event()
            self._tell(DrainReplica(replica))
            try:
                await asyncio.wait_for(idle.wait(), grace_s)
            except TimeoutError:
                log.warning("replica %s still worked after %.0f s and is stopped", replica, grace_s)
            del self._idle[replica]
            if self.handles.pop(replica, None) is not None:
                self.started.pop(replica, None)
                self._note_inline()
                self._tell(ReplicaGone(replica, "stopped"))
                await handle.stop(min(grace_s, 5.0))
        self._stopping.pop(replica, None)
        self._control(ReplicaStopped(replica))
        self._news.set()

    def _note_inline(self) -> None:
        self.inline = {name: handle for name, handle in self.handles.items() if isinstance(handle, Hurried)}

    def drained(self, replica: str) -> None:
        """Note that the dispatcher says a draining replica is idle."""
        idle = self._idle.get(replica)
        if idle is not None:
            idle.set()

    def lost(self, replica: str, reason: str) -> None:
        """Note that a replica died; what is left of it is cleared away."""
        handle = self.handles.pop(replica, None)
        if handle is None:
            return
        log.warning("replica %s was lost: %s", replica, reason)
        self.started.pop(replica, None)
        self._stopping[f"{replica} (lost)"] = task = asyncio.ensure_future(handle.stop(0.0))
        task.add_done_callback(lambda _: self._stopping.pop(f"{replica} (lost)", None))
        self._tell(ReplicaGone(replica, reason))
        if not self.closing:
            self._control(ReplicaGone(replica, reason))
        self.drained(replica)
        self._news.set()

    async def settled(self, controller: Controller, timeout_s: float) -> None:
        """Wait until no replica is being started for the first time, or the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while self._starting and loop.time() < until:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), max(0.001, until - loop.time()))
            except TimeoutError:
                return

    async def close(self, grace_s: float) -> None:
        """Stop every replica at once, each with the same grace."""
        self.closing = True
        for task in list(self._starting.values()):
            task.cancel()
        if self._starting:
            await asyncio.wait(list(self._starting.values()))
        for replica in list(self.handles):
            if replica not in self._stopping:
                self._stopping[replica] = asyncio.ensure_future(self._stop(replica, grace_s))
        while self._stopping:
            await asyncio.wait(list(self._stopping.values()))

    def status(self, controller: Controller, rows: dict[str, int]) -> list[ReplicaStatus]:
        """Return every replica the controller knows, with what is known of it here."""
        found = []
        for name, managed in controller.state.replicas.items():
            started = self.started.get(name)
            found.append(
                ReplicaStatus(
                    id=name,
                    variant=managed.spec.variant,
                    state=str(managed.state),
                    isolation=started.isolation if started else managed.spec.isolation,
                    device=managed.spec.device,
                    pid=started.pid if started else 0,
                    in_flight_rows=rows.get(name, 0),
                    restarts=managed.restarts,
                    last_error=managed.error,
                    memory_bytes=started.memory_bytes if started else 0,
                    slots=started.slots if started else 0,
                )
            )
        return found
