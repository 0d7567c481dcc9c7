"""Several batches or streams at once on one event loop, for models that are awaited.

The worker process, a thread's own loop and the gateway's loop all serve this way; they differ in where the
news goes (`Outbox`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from semaforo.errors import InvalidRequest
from semaforo.runtime.execute import wholly_failed
from semaforo.runtime.failure import Failure, classify
from semaforo.runtime.host import Hosted
from semaforo.runtime.stream import StreamEnd, drive
from semaforo.wire.block import Block, Outcome
from semaforo.wire.payload import Chat, ChatChunk


class Outbox(Protocol):
    """Hears what becomes of each batch; exactly one of `done`, `ended` and `failed` ends it."""

    def done(self, batch: int, outcomes: Sequence[Outcome], service_s: float) -> None:
        """A batch of tensors ended."""
        ...

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """A stream gave a chunk."""
        ...

    def ended(self, batch: int, end: StreamEnd) -> None:
        """A stream ended well."""
        ...

    def failed(self, batch: int, failure: Failure) -> None:
        """A batch or stream failed as a whole."""
        ...


def tell(
    outbox: Outbox, batch: int, outcomes: Sequence[Outcome], service_s: float, *, remote: bool = False
) -> None:
    """Report a batch of tensors: as failed where the model, which may be `remote`, is at fault throughout."""
    error = wholly_failed(outcomes)
    if error is None:
        outbox.done(batch, outcomes, service_s)
    else:
        outbox.failed(batch, classify(error, begun=False, remote=remote))


CANCELLED = Failure("cancelled", "the batch was cancelled")


class Concurrent:
    """Runs batches and streams of one replica as tasks; how many at once is decided by who sends them."""

    def __init__(
        self,
        hosted: Hosted,
        outbox: Outbox,
        *,
        stall_s: float,
        remote: bool = False,
        on_begin: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._hosted = hosted
        self._outbox = outbox
        self._stall_s = stall_s
        self._remote = remote
        self._on_begin = on_begin
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def run(self, batch: int, work: Sequence[Block] | Chat) -> None:
        """Begin a batch or a stream."""
        if isinstance(work, Chat):
            task = asyncio.ensure_future(self._stream(batch, work))
        else:
            task = asyncio.ensure_future(self._batch(batch, work))
        self._tasks[batch] = task
        task.add_done_callback(lambda task: self._over(batch, task))

    def cancel(self, batch: int) -> None:
        """Stop a batch; unknown ones have ended."""
        task = self._tasks.get(batch)
        if task is not None:
            task.cancel()

    async def close(self, grace_s: float) -> None:
        """Wait for what is open, then cancel it."""
        tasks = list(self._tasks.values())
        if tasks:
            _, open_ = await asyncio.wait(tasks, timeout=grace_s)
            for task in open_:
                task.cancel()
            if open_:
                await asyncio.wait(open_, timeout=1.0)

    def _over(self, batch: int, task: asyncio.Task[None]) -> None:
        del self._tasks[batch]
        # Told here, since a task that is cancelled before its first step never enters its own code.
        if task.cancelled():
            self._outbox.failed(batch, CANCELLED)
        elif (error := task.exception()) is not None:
            self._outbox.failed(batch, classify(error, begun=True, remote=self._remote))

    async def _batch(self, batch: int, blocks: Sequence[Block]) -> None:
        self._on_begin(batch)
        if self._hosted.awaited is None:
            self._outbox.failed(batch, Failure("invalid", "this model answers chats, not tensors"))
            return
        outcomes, service_s = await self._hosted.awaited.run_blocks(blocks)
        tell(self._outbox, batch, outcomes, service_s, remote=self._remote)

    async def _stream(self, batch: int, request: Chat) -> None:
        self._on_begin(batch)
        begun = False

        def on_chunk(chunk: ChatChunk) -> None:
            nonlocal begun
            begun = True
            self._outbox.chunk(batch, chunk)

        try:
            if self._hosted.chat is None:
                raise InvalidRequest("this model answers tensors, not chats")
            end = await drive(self._hosted.chat, request, on_chunk, stall_s=self._stall_s)
        except Exception as error:
            self._outbox.failed(batch, classify(error, begun=begun, remote=self._remote))
        else:
            self._outbox.ended(batch, end)
