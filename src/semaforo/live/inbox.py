"""What replicas report, turned into events for the dispatcher and chunks for those who read streams.

Rules this module keeps:

1. Results are kept by request only from the report of a batch to the answers that it causes.
2. News of a batch that the dispatcher does not know any more (its replica was lost, or it was stopped) is dropped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import msgspec

from semaforo.core.events import (
    BatchDone,
    BatchFailed,
    Busy,
    DispatcherEvent,
    FirstChunk,
    Limits,
    Progress,
    Report,
)
from semaforo.core.state import State
from semaforo.errors import SemaforoError
from semaforo.live.stream import Stream
from semaforo.runtime.handed import Handed
from semaforo.wire.payload import ChatChunk, Tensors

PROGRESS_S = 0.05


class Inbox:
    """The engine's `Sink`.

    Attributes:
        streams: Streams that are being read, by request id.
        results: Outputs of the batch at hand, by request id.
    """

    def __init__(
        self, state: State, tell: Callable[[DispatcherEvent], None], lost: Callable[[str, str], None]
    ) -> None:
        self.streams: dict[str, Stream] = {}
        self.results: dict[str, Tensors] = {}
        self._state = state
        self._tell = tell
        self._lost = lost
        self._stream_of: dict[int, str] = {}
        self._progress: dict[int, tuple[float, int]] = {}

    def expect_stream(self, batch: int, request_id: str) -> None:
        """Note that a batch that begins is the stream of this request."""
        self._stream_of[batch] = request_id

    def batch_done(self, batch: int, results: Sequence[Tensors | SemaforoError], service_s: float) -> None:
        """See `Sink`."""
        running = self._state.batches.get(batch)
        if running is None:
            return
        failed: list[tuple[str, str, str, float]] = []
        for member, result in zip(running.members, results, strict=True):
            if isinstance(result, Tensors):
                if member in self._state.jobs:
                    self.results[member] = result
            else:
                failed.append((member, result.code, result.message, result.retry_after_s or 0.0))
        self._tell(BatchDone(batch, service_s, failed=tuple(failed)))

    def graph_done(self, batch: int, result: Tensors | SemaforoError, service_s: float, cost: float) -> None:
        """See `GraphSink`."""
        running = self._state.batches.get(batch)
        if running is None:
            return
        (member,) = running.members
        failed: tuple[tuple[str, str, str, float], ...] = ()
        if isinstance(result, SemaforoError):
            failed = ((member, result.code, result.message, result.retry_after_s or 0.0),)
        elif batch in self._stream_of:
            stream = self.streams.get(member)
            if stream is not None and result.without:
                stream.without = result.without
                # Not what the next one who asks should get.
                stream.kept = None
        elif member in self._state.jobs:
            self.results[member] = result
        self._forget(batch)
        self._tell(BatchDone(batch, service_s, failed=failed, cost=cost))

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """See `Sink`."""
        stream = self.streams.get(self._stream_of.get(batch, ""))
        running = self._state.batches.get(batch)
        if stream is None or running is None:
            return
        now = asyncio.get_running_loop().time()
        progress = self._progress.get(batch)
        if progress is None:
            stream.variant, stream.replica = running.variant, running.replica
            self._progress[batch] = (now, chunk.tokens)
            self._tell(FirstChunk(batch))
        else:
            told_at, tokens = progress[0], progress[1] + chunk.tokens
            if now - told_at >= PROGRESS_S:
                told_at = now
                self._tell(Progress(batch, tokens))
            self._progress[batch] = (told_at, tokens)
        stream.put(chunk)

    def stream_done(self, batch: int, service_s: float, prompt_tokens: int, output_tokens: int) -> None:
        """See `Sink`."""
        self._forget(batch)
        self._tell(BatchDone(batch, service_s, prompt_tokens, output_tokens))

    def batch_failed(self, event: BatchFailed) -> None:
        """See `Sink`."""
        progress = self._progress.get(event.batch)
        self._forget(event.batch)
        if progress is not None:
            event = msgspec.structs.replace(event, output_tokens=progress[1])
        self._tell(event)

    def busy(self, batch: int, retry_after_s: float) -> None:
        """See `Sink`."""
        self._forget(batch)
        self._tell(Busy(batch, retry_after_s))

    def report(self, event: Report | Limits) -> None:
        """See `Sink`."""
        self._tell(event)

    def handed(self, batch: int) -> Handed:
        """Return the contract that goes with a batch to a model that is served elsewhere."""
        running = self._state.batches.get(batch)
        jobs = [self._state.jobs[m] for m in running.members if m in self._state.jobs] if running else []
        if not jobs:
            return Handed()
        deadline = min(job.deadline for job in jobs)
        first = jobs[0].request
        return Handed(
            None if math.isinf(deadline) else deadline,
            min(job.request.contract.priority for job in jobs),
            first.traceparent if len(jobs) == 1 else "",
        )

    def lost(self, replica: str, reason: str) -> None:
        """See `Sink`."""
        for batch in [b for b in self._stream_of if b not in self._state.batches or self._on(b, replica)]:
            self._forget(batch)
        self._lost(replica, reason)

    def _on(self, batch: int, replica: str) -> bool:
        return self._state.batches[batch].replica == replica

    def _forget(self, batch: int) -> None:
        self._stream_of.pop(batch, None)
        self._progress.pop(batch, None)
