"""The contract between the engine and whatever hosts a replica: inline, a thread, a process, or remote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from semaforo.core.events import BatchFailed, Limits, Report
from semaforo.entities import Profile, Signature
from semaforo.errors import SemaforoError
from semaforo.wire.payload import ChatChunk, Payload, Tensors


class Started(msgspec.Struct):
    """What a handle knows once its replica is loaded and warm.

    Attributes:
        profile: Measured by the warm-up curve; None where running costs money or nothing can be measured.
        signature: In the task's terms (after the adapter); None for chat.
        memory_bytes: Bytes the replica holds.
        pid: Process that hosts it.
        isolation: ``inline``, ``thread``, ``process`` or ``remote``.
        slots: Batches it takes at once.
        max_rows: Most rows a batch should have here (an inline batch blocks the loop); 0 = no limit of its own.
        shared: Whether others use it too, so that its own word on its load counts.
    """

    profile: Profile | None
    signature: Signature | None
    memory_bytes: int
    pid: int
    isolation: str
    slots: int = 1
    max_rows: int = 0
    shared: bool = False


class Sink(Protocol):
    """Where a handle reports; always called on the event loop's thread."""

    def batch_done(self, batch: int, results: Sequence[Tensors | SemaforoError], service_s: float) -> None:
        """A batch ended: one result, or one error, for each member in order."""
        ...

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """A stream produced a chunk."""
        ...

    def stream_done(self, batch: int, service_s: float, prompt_tokens: int, output_tokens: int) -> None:
        """A stream ended well."""
        ...

    def batch_failed(self, event: BatchFailed) -> None:
        """A batch or stream failed as a whole."""
        ...

    def busy(self, batch: int, retry_after_s: float) -> None:
        """The replica refused the batch without running it."""
        ...

    def report(self, event: Report | Limits) -> None:
        """The replica says something about its load or limits."""
        ...

    def lost(self, replica: str, reason: str) -> None:
        """The replica died or hung; its batches are lost. Called once."""
        ...


class Handle(Protocol):
    """One replica as the engine drives it."""

    async def start(self) -> Started:
        """Load and warm up.

        Raises:
            SemaforoError: It could not be loaded; the message says what to do.
        """
        ...

    def run(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        """Begin a batch (or one stream); never blocks but inline, never raises: the sink hears the end."""
        ...

    def cancel(self, batch: int) -> None:
        """Stop a batch if possible; the sink still hears its end (done, or failed as ``cancelled``)."""
        ...

    async def stop(self, grace_s: float) -> None:
        """End the replica, by force after `grace_s` seconds."""
        ...


@runtime_checkable
class Hurried(Protocol):
    """A handle whose batches wait for the loop's next round."""

    def hurry(self) -> None:
        """Run them now; not to be called from within an effect."""
        ...
