"""A replica in a process of its own: a crash or a leak of the model stays there.

How its health is seen:

1. The process exits, or closes its socket: lost at once.
2. A batch makes no progress for ten times its predicted time, and at least `hang_s`: hung, killed, lost.
3. Two pings in a row stay unanswered: lost where the process is stopped or idle. A model may hold the
   interpreter's lock for long inside one call, so a busy process that is not stopped is left to branch 2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import cast

from semaforo.core import events
from semaforo.entities import ReplicaSpec
from semaforo.errors import InvalidRequest, ProtocolError, RuntimeLoadError, SemaforoError, error_from
from semaforo.live.handle import Sink, Started
from semaforo.live.spawn import WorkerProcess, spawn, stopped
from semaforo.live.watch import Watch, WatchedOutbox
from semaforo.runtime.failure import Failure
from semaforo.runtime.stream import StreamEnd
from semaforo.wire.block import group, splice
from semaforo.wire.frames import SHARED, encode_run
from semaforo.wire.messages import (
    Busy,
    Cancel,
    Chunk,
    Done,
    Failed,
    Freed,
    Hello,
    Limits,
    Load,
    Loaded,
    LoadFailed,
    Message,
    Ping,
    Pong,
    RunChat,
    Stop,
    StreamDone,
)  # fmt: skip
from semaforo.wire.payload import Chat, Payload, Tensors
from semaforo.worker.arena import Arena, Lender
from semaforo.worker.link import LoopLink
from semaforo.worker.options import WorkerOptions, worker_options

_IDLE_PINGS = 5
_MISSED = 2
_LAST_WORDS_S = 0.5
_REAP_S = 5.0


class ProcessReplica:
    """Runs batches in a worker process.

    Args:
        spec: What to load.
        sink: Who hears what becomes of batches.
        memory: Shared with workers; None = all arrays travel through the socket.
    """

    def __init__(self, spec: ReplicaSpec, sink: Sink, memory: Arena | None = None) -> None:
        self._spec = spec
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._options = WorkerOptions()
        self._watch = Watch(self._options, self._loop.time)
        self._outbox = WatchedOutbox(sink, self._watch)
        self._worker: WorkerProcess | None = None
        self._memory = memory
        self._lender: Lender | None = None
        self._data = LoopLink(self._on_data, self._on_data_lost, memory)
        self._control = LoopLink(self._on_control, lambda _: None)
        self._loaded: asyncio.Future[Loaded] = self._loop.create_future()
        self._fault: ProtocolError | None = None
        self._data_over = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._ran = False
        self._pinged = 0
        self._ponged = 0
        self._unsent: dict[int, dict[int, SemaforoError]] = {}

    async def start(self) -> Started:
        """Start the process, load and warm up.

        Raises:
            SemaforoError: It could not be loaded, or the process ended or took too long.
        """
        options = self._options = worker_options(self._spec)
        self._watch = Watch(options, self._loop.time)
        self._outbox = WatchedOutbox(self._sink, self._watch)
        try:
            self._worker, data, control = await spawn(
                self._spec.id,
                self._spec.python,
                self._on_exit,
                self._memory.descriptor if self._memory is not None else -1,
            )
            await self._loop.create_unix_connection(lambda: self._data, sock=data)
            await self._loop.create_unix_connection(lambda: self._control, sock=control)
            loaded = await asyncio.wait_for(self._loaded, options.start_s)
        except BaseException as error:
            await self.stop(0.0)
            raise self._why(error) from None
        self._watch.profile = loaded.profile
        if self._memory is not None and loaded.shares:
            self._lender = Lender(self._memory)
        self._schedule(idle=True)
        return Started(
            loaded.profile, loaded.signature, loaded.memory_bytes, self._worker.pid, "process", loaded.slots
        )

    def run(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        """Send a batch, or one stream."""
        if self._closed:
            return
        first = members[0]
        self._ran = True
        self._watch.begin(batch, rows, stream=isinstance(first, Chat))
        if isinstance(first, Chat):
            self._send_chat(batch, first)
        else:
            self._send_batch(batch, cast("Sequence[Tensors]", members), rows)
        if self._idle:
            self._schedule(idle=False)

    def cancel(self, batch: int) -> None:
        """Ask the worker to stop a batch; one that blocks its worker runs to its end."""
        if batch in self._watch:
            self._control.send(Cancel(batch))

    async def stop(self, grace_s: float) -> None:
        """End the process, by force after `grace_s` seconds."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        worker = self._worker
        if worker is not None:
            if grace_s > 0 and not worker.exited.is_set():
                self._data.send(Stop())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(worker.exited.wait(), grace_s)
            worker.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.exited.wait(), _REAP_S)
            worker.close()
        self._data.close()
        self._control.close()

    def _send_chat(self, batch: int, chat: Chat) -> None:
        try:
            self._data.send(RunChat(batch, chat.body))
        except (TypeError, ValueError, OverflowError) as error:
            failure = Failure("invalid", f"the request cannot be sent to a worker: {error}")
            self._loop.call_soon(self._outbox.failed, batch, failure)

    def _send_batch(self, batch: int, members: Sequence[Tensors], rows: int) -> None:
        lender = self._lender
        groups = [members] if len(members) == 1 else group(members)
        try:
            grant = lender.grant(batch, rows) if lender is not None else None
            self._data.send_buffers(encode_run(batch, groups, lender, grant))
        except ProtocolError:
            self._send_good(batch, members)

    def _send_good(self, batch: int, members: Sequence[Tensors]) -> None:
        """Send the members that can be sent; the others fail alone, with the batch's end."""
        good: list[Tensors] = []
        bad: dict[int, SemaforoError] = {}
        for place, member in enumerate(members):
            try:
                encode_run(batch, [[member]])
                good.append(member)
            except ProtocolError as error:
                bad[place] = InvalidRequest(error.message)
        if good and len(good) < len(members):
            self._unsent[batch] = bad
            self._data.send_buffers(encode_run(batch, group(good)))
        else:
            # None is good, or all are and only together too large.
            refused = InvalidRequest("the batch is too large to be sent to a worker: lower max_batch")
            errors = [bad.get(place, refused) for place in range(len(members))]
            self._loop.call_soon(self._outbox.done, batch, errors, 0.0)

    def _why(self, error: BaseException) -> BaseException:
        if isinstance(error, SemaforoError):
            return error
        if isinstance(error, TimeoutError):
            return RuntimeLoadError(
                f"'{self._spec.source}' was not loaded within {self._options.start_s:g} s; "
                "if it needs longer, raise worker.start_s among its options"
            )
        if isinstance(error, OSError):
            return RuntimeLoadError(f"a worker cannot be started with '{self._spec.python}': {error}")
        return error

    def _on_data(self, message: Message) -> None:
        if isinstance(message, Done):
            outcomes = message.outcomes
            if self._lender is not None:
                self._answered(self._lender, message)
            if self._unsent:
                outcomes = splice(outcomes, self._unsent.pop(message.batch, {}))
            self._outbox.done(message.batch, outcomes, message.service_s)
        elif isinstance(message, Freed):
            if self._lender is not None:
                self._lender.freed(message.places)
        elif isinstance(message, Chunk):
            self._outbox.chunk(message.batch, message.chunk)
        elif isinstance(message, StreamDone):
            end = StreamEnd(message.service_s, message.prompt_tokens, message.output_tokens)
            self._outbox.ended(message.batch, end)
        elif isinstance(message, Failed):
            self._unsent.pop(message.batch, None)
            if self._lender is not None:
                self._lender.failed(message.batch)
            failure = Failure(message.kind, message.message, message.retry_after_s)
            self._outbox.failed(message.batch, failure)
        elif isinstance(message, Busy):
            self._outbox.failed(message.batch, Failure("busy", "", message.retry_after_s))
        elif isinstance(message, Limits):
            self._sink.report(events.Limits(self._spec.id, **message.limits))
        elif isinstance(message, Hello):
            self._data.send(Load(self._spec))
        elif self._loaded.done():
            return
        elif isinstance(message, Loaded):
            self._loaded.set_result(message)
        elif isinstance(message, LoadFailed):
            self._loaded.set_exception(error_from(message.code, message.message))

    @staticmethod
    def _answered(lender: Lender, message: Done) -> None:
        blocks = [outcome for outcome in message.outcomes if not isinstance(outcome, SemaforoError)]
        columns = [array for block in blocks for array in block.columns.values() if not array.dtype.hasobject]
        lender.answered(message.batch, sum(block.rows for block in blocks), columns, SHARED)

    def _on_control(self, message: Message) -> None:
        if isinstance(message, Pong):
            self._ponged = message.number

    def _on_data_lost(self, fault: ProtocolError | None) -> None:
        self._fault = fault
        self._data_over = True
        if self._worker is not None and not self._worker.exited.is_set():
            self._worker.kill()
        else:
            self._gone()

    def _on_exit(self) -> None:
        if self._lender is not None:
            # Only now: a worker that is stopped, or about to be killed, may still read and write.
            self._lender.over()
        if self._data_over:
            self._gone()
        else:
            # Its last answers may still be in the socket, whose end then tells.
            self._loop.call_later(_LAST_WORDS_S, self._gone)

    def _gone(self) -> None:
        how = self._worker.how() if self._worker else "never ran"
        reason = self._fault.message if self._fault else f"its worker {how}"
        if not self._loaded.done():
            tail = (
                "; its last lines: " + " | ".join(self._worker.tail)
                if self._worker and self._worker.tail
                else ""
            )
            error: SemaforoError = self._fault or RuntimeLoadError(
                f"'{self._spec.source}' could not be loaded: {reason}{tail}"
            )
            self._loaded.set_exception(error)
            # Where start was abandoned nobody asks for it.
            self._loaded.exception()
        else:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            self._worker.kill()
        self._sink.lost(self._spec.id, reason)

    def _schedule(self, *, idle: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._idle = idle
        delay = self._options.ping_s * (_IDLE_PINGS if idle else 1)
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        if self._closed or self._worker is None:
            return
        reason = self._watch.overdue()
        if reason:
            self._lose(reason)
            return
        missed = self._pinged - self._ponged
        if missed >= _MISSED and (not len(self._watch) or stopped(self._worker.pid)):
            self._lose(f"hung: its worker answered none of the last {missed} pings")
            return
        self._pinged += 1
        self._control.send(Ping(self._pinged))
        self._schedule(idle=not (self._ran or len(self._watch) or missed))
        self._ran = False
