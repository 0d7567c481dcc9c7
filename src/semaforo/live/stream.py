"""A streamed answer as its caller sees it: an async iterator of chunks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from semaforo.live.answer import Answer
from semaforo.wire.payload import ChatChunk, Tensors

MOST_WAITING = 100_000


class Stream:
    """Chunks of one answer, in order.

    Iterating raises the `SemaforoError` that ended the stream badly. `answer` is set once it has ended.

    Attributes:
        request_id: Id of the request.
        answer: The terminal answer, or None while the stream runs.
        variant, replica: Who serves it, "" until it is bound.
        without: Of a graph: what its answer had to do without, each with the reason.
        kept: Every chunk, to be given again; None where nothing is kept.
    """

    def __init__(self, request_id: str, cancel: Callable[[str], None]) -> None:
        self.request_id = request_id
        self.answer: Answer | None = None
        self.variant = ""
        self.replica = ""
        self.without: tuple[str, ...] = ()
        self.kept: list[ChatChunk] | None = None
        self._cancel = cancel
        self._chunks: deque[ChatChunk] = deque()
        self._changed = asyncio.Event()

    async def first(self) -> None:
        """Wait until there is a chunk, or the stream has ended.

        Raises:
            SemaforoError: It ended badly before its first chunk.
        """
        while not self._chunks and self.answer is None:
            await self._wait()
        if not self._chunks and self.answer is not None and not self.answer.ok:
            raise self.answer.error()

    async def ready(self, seconds: float | None) -> bool:
        """Wait until there is something to read or the end, for so long at most; tell whether there is."""
        if self._chunks or self.answer is not None:
            return True
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._changed.set)
        self._changed.clear()
        try:
            # Giving up this wait is no reason to stop the work, as giving up on a chunk is.
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
        return bool(self._chunks) or self.answer is not None

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self

    async def __anext__(self) -> ChatChunk:
        while not self._chunks:
            if self.answer is not None:
                if self.answer.ok:
                    raise StopAsyncIteration
                raise self.answer.error()
            await self._wait()
        return self._chunks.popleft()

    def close(self) -> None:
        """Stop the work if it still runs; what was not read is dropped."""
        if self.answer is None:
            self._cancel(self.request_id)
        self._chunks.clear()

    async def _wait(self) -> None:
        self._changed.clear()
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            self.close()
            raise

    # --- the engine's side -----------------------------------------------------------------------------

    def put(self, chunk: ChatChunk) -> None:
        """Add a chunk; a reader that falls hopelessly behind is cut off."""
        if len(self._chunks) >= MOST_WAITING:
            self.close()
            return
        self._chunks.append(chunk)
        if self.kept is not None:
            if chunk.restart:
                self.kept.clear()
            else:
                self.kept.append(chunk)
        self._changed.set()

    def give(self, answer: Answer, said: Tensors | tuple[ChatChunk, ...] | None) -> None:
        """End with an answer, after the chunks that were kept of it, if any."""
        self.variant, self.replica = answer.finish.variant, answer.finish.replica
        for chunk in said if isinstance(said, tuple) else ():
            self.put(chunk)
        self.end(answer)

    def end(self, answer: Answer) -> None:
        """Note how the stream ended."""
        answer.lost = self.without
        self.answer = answer
        self._changed.set()
