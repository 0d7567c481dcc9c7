"""What becomes of a batch, told to a sink: at once on the loop's thread, or through it from another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from semaforo.core.events import BatchFailed
from semaforo.live.handle import Sink
from semaforo.runtime.failure import Failure
from semaforo.runtime.stream import StreamEnd
from semaforo.wire.block import Outcome, expand
from semaforo.wire.payload import ChatChunk


class SinkOutbox:
    """Tells a sink; used on the loop's thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def done(self, batch: int, outcomes: Sequence[Outcome], service_s: float) -> None:
        """Tell one result for each member."""
        self._sink.batch_done(batch, expand(outcomes), service_s)

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """Hand a chunk on."""
        self._sink.chunk(batch, chunk)

    def ended(self, batch: int, end: StreamEnd) -> None:
        """Tell that a stream ended well."""
        self._sink.stream_done(batch, end.service_s, end.prompt_tokens, end.output_tokens)

    def failed(self, batch: int, failure: Failure) -> None:
        """Tell that a batch failed as a whole, or was not run."""
        kind = failure.kind
        if kind == "busy":
            self._sink.busy(batch, failure.retry_after_s)
        else:
            self._sink.batch_failed(BatchFailed(batch, kind, failure.message, failure.retry_after_s))


class ThreadOutbox:
    """Tells another outbox on the loop's thread; used on any thread.

    Args:
        loop: The loop.
        inner: Who is told there.
        closed: Whether nobody listens any more.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, inner: SinkOutbox, closed: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._inner = inner
        self._closed = closed

    def done(self, batch: int, outcomes: Sequence[Outcome], service_s: float) -> None:
        """See `SinkOutbox.done`."""
        self._soon(self._inner.done, batch, outcomes, service_s)

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """See `SinkOutbox.chunk`."""
        self._soon(self._inner.chunk, batch, chunk)

    def ended(self, batch: int, end: StreamEnd) -> None:
        """See `SinkOutbox.ended`."""
        self._soon(self._inner.ended, batch, end)

    def failed(self, batch: int, failure: Failure) -> None:
        """See `SinkOutbox.failed`."""
        self._soon(self._inner.failed, batch, failure)

    def _soon(self, tell: Callable[..., None], *arguments: Any) -> None:
        def on_loop() -> None:
            if not self._closed():
                tell(*arguments)

        try:
            self._loop.call_soon_threadsafe(on_loop)
        except RuntimeError:
            # The loop has closed while the model was still running.
            return
