"""A replica in a thread of its own: for callables of this process, whose cost nobody knows.

A thread cannot be ended by force. One that hangs is given up: its replica is lost, its late answer dropped, and
the thread is left to end with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, cast

from semaforo.core.events import Limits
from semaforo.entities import ReplicaSpec
from semaforo.live.handle import Sink, Started
from semaforo.live.outbox import ThreadOutbox
from semaforo.live.watch import Watch, WatchedOutbox
from semaforo.runtime.failure import Failure
from semaforo.runtime.host import Hosted, load, warm, warm_awaited
from semaforo.runtime.serve import CANCELLED, Concurrent, tell
from semaforo.wire.block import Block, group, join
from semaforo.wire.payload import Chat, Payload, Tensors
from semaforo.worker.options import WorkerOptions, worker_options

Job = Callable[[], None]


class ThreadReplica:
    """Runs batches in one thread; models that are awaited get a loop there.

    Args:
        spec: What to load.
        sink: Who hears what becomes of batches.
    """

    def __init__(self, spec: ReplicaSpec, sink: Sink) -> None:
        self._spec = spec
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._host: _ThreadHost | None = None
        self._watch: Watch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._period_s = 1.0
        self._closed = False

    async def start(self) -> Started:
        """Load and warm up in the thread.

        Raises:
            SemaforoError: It could not be loaded.
        """
        options = worker_options(self._spec)
        self._period_s = min(options.ping_s, options.hang_s / 2)
        watch = self._watch = Watch(options, self._loop.time)
        outbox = ThreadOutbox(self._loop, WatchedOutbox(self._sink, watch), lambda: self._closed)
        self._host = _ThreadHost(self._spec, options, outbox, self._loop, self._limits)
        started = await self._host.started
        watch.profile = started.profile
        return started

    def run(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        """Hand a batch to the thread."""
        if self._host is None or self._watch is None or self._closed:
            return
        self._watch.begin(batch, rows, stream=isinstance(members[0], Chat))
        self._host.run(batch, members)
        if self._timer is None:
            self._timer = self._loop.call_later(self._period_s, self._look)

    def cancel(self, batch: int) -> None:
        """Stop a stream or an awaited batch, or one that has not begun."""
        if self._host is not None and self._watch is not None and batch in self._watch:
            self._host.cancel(batch)

    async def stop(self, grace_s: float) -> None:
        """End the thread after what it runs; it is given up after `grace_s` seconds."""
        if self._timer is not None:
            self._timer.cancel()
        if self._host is not None:
            self._host.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._host.over.wait(), max(grace_s, 0.05))
        self._closed = True

    def _limits(self, said: dict[str, Any]) -> None:
        self._sink.report(Limits(self._spec.id, **said))

    def _look(self) -> None:
        self._timer = None
        if self._watch is None or self._closed:
            return
        reason = self._watch.overdue()
        if reason:
            self._closed = True
            self._sink.lost(self._spec.id, reason)
        elif len(self._watch):
            self._timer = self._loop.call_later(self._period_s, self._look)


class _ThreadHost:
    """The thread itself; what begins with ``_in_`` runs there."""

    def __init__(
        self,
        spec: ReplicaSpec,
        options: WorkerOptions,
        outbox: ThreadOutbox,
        loop: asyncio.AbstractEventLoop,
        on_limits: Callable[[dict[str, Any]], None],
    ) -> None:
        self._spec = spec
        self._options = options
        self._outbox = outbox
        self._loop = loop
        self._on_limits = on_limits
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._cancelled: set[int] = set()
        self._inner: asyncio.AbstractEventLoop | None = None
        self._concurrent: Concurrent | None = None
        self._stopping = asyncio.Event()
        self.started: asyncio.Future[Started] = loop.create_future()
        self.over = asyncio.Event()
        threading.Thread(target=self._in_life, name=f"semaforo-{spec.id}", daemon=True).start()

    def run(self, batch: int, members: Sequence[Payload]) -> None:
        self._put(lambda: self._in_run(batch, members))

    def cancel(self, batch: int) -> None:
        if self._inner is None:
            self._cancelled.add(batch)
        else:
            self._put(lambda: self._in_cancel(batch))

    def stop(self) -> None:
        self._put(None)

    def _put(self, job: Job | None) -> None:
        self._jobs.put(job)
        if self._inner is not None:
            # A loop that has closed has nothing left to stop or to cancel.
            with contextlib.suppress(RuntimeError):
                self._inner.call_soon_threadsafe(self._in_work_off)

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        # The gateway's loop may have closed while a model still ran.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _accept(self, started: Started) -> None:
        if not self.started.done():
            self.started.set_result(started)

    def _refuse(self, error: BaseException) -> None:
        if not self.started.done():
            self.started.set_exception(error)

    def _in_life(self) -> None:
        try:
            with asyncio.Runner() as runner:
                hosted = load(self._spec)
                if hosted.executor is not None:
                    warm(self._spec, hosted)
                    self._tell(self._accept, self._describe(hosted))
                    self._in_batches(hosted)
                else:
                    runner.run(self._in_awaited(hosted))
                hosted.close()
        except BaseException as error:
            self._tell(self._refuse, error)
        self._tell(self.over.set)

    def _describe(self, hosted: Hosted) -> Started:
        return Started(
            hosted.profile, hosted.signature, hosted.memory_bytes, os.getpid(), "thread", hosted.slots
        )

    def _in_batches(self, hosted: Hosted) -> None:
        executor = hosted.executor
        assert executor is not None, "awaited models are served by _in_awaited"
        self._in_execute = executor.run
        while (job := self._jobs.get()) is not None:
            job()

    async def _in_awaited(self, hosted: Hosted) -> None:
        await warm_awaited(self._spec, hosted)
        self._concurrent = Concurrent(hosted, self._outbox, stall_s=self._options.stall_s)
        self._inner = asyncio.get_running_loop()
        if hasattr(hosted.model, "on_limits"):
            hosted.model.on_limits = lambda said: self._tell(self._on_limits, said)
        self._tell(self._accept, self._describe(hosted))
        self._in_work_off()
        await self._stopping.wait()
        await self._concurrent.close(self._options.hang_s)

    def _in_work_off(self) -> None:
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                self._stopping.set()
            else:
                job()

    def _in_run(self, batch: int, members: Sequence[Payload]) -> None:
        first = members[0]
        if self._concurrent is not None:
            work: list[Block] | Chat = first if isinstance(first, Chat) else _blocks(members)
            self._concurrent.run(batch, work)
        elif batch in self._cancelled:
            self._cancelled.discard(batch)
            self._outbox.failed(batch, CANCELLED)
        elif isinstance(first, Chat):
            self._outbox.failed(batch, Failure("invalid", "this model answers tensors, not chats"))
        else:
            outcomes, service_s = self._in_execute(cast("Sequence[Tensors]", members))
            self._cancelled.discard(batch)
            tell(self._outbox, batch, outcomes, service_s)

    def _in_cancel(self, batch: int) -> None:
        if self._concurrent is not None:
            self._concurrent.cancel(batch)


def _blocks(members: Sequence[Payload]) -> list[Block]:
    return [join(alike) for alike in group(cast("Sequence[Tensors]", members))]
