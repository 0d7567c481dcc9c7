"""Serving a model that blocks: the main thread reads a batch, runs it, and answers, with no hop between threads."""

from __future__ import annotations

from collections.abc import Sequence

from semaforo.errors import ProtocolError
from semaforo.runtime.execute import Executor
from semaforo.runtime.failure import Failure
from semaforo.runtime.serve import CANCELLED, tell
from semaforo.runtime.stream import StreamEnd
from semaforo.wire.block import Outcome
from semaforo.wire.frames import Place, encode_done
from semaforo.wire.messages import Busy, Chunk, Failed, Freed, Run, RunChat, Stop, StreamDone
from semaforo.wire.payload import ChatChunk
from semaforo.worker.arena import Window
from semaforo.worker.control import Control, Progress
from semaforo.worker.link import BlockingLink, LoopLink


class FrameOutbox:
    """Sends what becomes of each batch to the gateway.

    Attributes:
        place: Shared memory for the answer to the batch at hand.
    """

    def __init__(self, link: BlockingLink | LoopLink, progress: Progress) -> None:
        self.place: Place | None = None
        self._link = link
        self._progress = progress

    def done(self, batch: int, outcomes: Sequence[Outcome], service_s: float) -> None:
        """Send the outcomes; those that cannot be sent are a failure of the model."""
        self._progress.end(batch)
        try:
            buffers = encode_done(batch, service_s, outcomes, self.place)
        except ProtocolError as error:
            self._link.send(Failed(batch, "error", f"the model's answer cannot be sent: {error.message}"))
        else:
            self._link.send_buffers(buffers)

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """Send one chunk."""
        self._link.send(Chunk(batch, chunk))

    def ended(self, batch: int, end: StreamEnd) -> None:
        """Send the end of a stream."""
        self._progress.end(batch)
        self._link.send(StreamDone(batch, end.service_s, end.prompt_tokens, end.output_tokens))

    def failed(self, batch: int, failure: Failure) -> None:
        """Send a failure, or that nothing was run."""
        self._progress.end(batch)
        if failure.kind == "busy":
            self._link.send(Busy(batch, failure.retry_after_s))
        else:
            self._link.send(Failed(batch, failure.kind, failure.message, failure.retry_after_s))


def serve_batches(
    link: BlockingLink, executor: Executor, control: Control, progress: Progress, window: Window | None
) -> None:
    """Run batches in order until the gateway says stop or goes away."""
    outbox = FrameOutbox(link, progress)
    messages = link.messages()
    while (message := next(messages, None)) is not None:
        if isinstance(message, Run):
            if window is not None:
                outbox.place = window.grant(message.grant)
            _run(message, outbox, executor, control, progress)
        elif isinstance(message, RunChat):
            outbox.failed(message.batch, Failure("invalid", "this model answers tensors, not chats"))
        elif isinstance(message, Stop):
            return
        # Nothing is held while the next message is awaited, so that memory is given back at once.
        outbox.place = message = None
        if window is not None and window.freed:
            freed, window.freed = window.freed, []
            link.send(Freed(freed))


def _run(message: Run, outbox: FrameOutbox, executor: Executor, control: Control, progress: Progress) -> None:
    batch = message.batch
    if control.take_cancelled(batch):
        outbox.failed(batch, CANCELLED)
        return
    progress.begin(batch)
    outcomes, service_s = executor.run_blocks(message.blocks)
    tell(outbox, batch, outcomes, service_s)
