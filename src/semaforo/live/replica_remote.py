"""A replica that waits more than it computes: driven on the event loop, many batches or streams at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from semaforo.core.events import Limits, Report
from semaforo.entities import ReplicaSpec
from semaforo.errors import RuntimeLoadError
from semaforo.live.handle import Sink, Started
from semaforo.live.outbox import SinkOutbox
from semaforo.runtime.handed import HANDED, Handed
from semaforo.runtime.host import Hosted, load, warm_awaited
from semaforo.runtime.serve import Concurrent
from semaforo.wire.block import group, join
from semaforo.wire.payload import Chat, Payload, Tensors
from semaforo.worker.options import worker_options


@runtime_checkable
class Hands(Protocol):
    """A sink that knows the contract of a batch."""

    def handed(self, batch: int) -> Handed:
        """Return what is handed on with a batch that is about to run."""
        ...


class RemoteReplica:
    """Drives a model served elsewhere.

    Args:
        spec: What to load.
        sink: Who hears what becomes of batches, and of the upstream's limits.
    """

    def __init__(self, spec: ReplicaSpec, sink: Sink) -> None:
        self._spec = spec
        self._sink = sink
        self._hands = sink if isinstance(sink, Hands) else None
        self._hosted: Hosted | None = None
        self._concurrent: Concurrent | None = None

    async def start(self) -> Started:
        """Load; nothing is measured, since running may cost money.

        Raises:
            SemaforoError: It could not be loaded.
        """
        options = worker_options(self._spec)
        hosted = self._hosted = await asyncio.to_thread(load, self._spec)
        if hosted.executor is not None:
            raise RuntimeLoadError(f"'{self._spec.source}' blocks: set isolation to thread or process")
        if hasattr(hosted.model, "on_limits"):
            hosted.model.on_limits = self._limits
        await warm_awaited(self._spec, hosted)
        self._concurrent = Concurrent(hosted, SinkOutbox(self._sink), stall_s=options.stall_s, remote=True)
        watch = getattr(hosted.model, "watch", None)
        if watch is not None:
            watch(self)
        return Started(
            hosted.profile or getattr(hosted.model, "profile", None),
            hosted.signature,
            hosted.memory_bytes,
            os.getpid(),
            "remote",
            hosted.slots,
            getattr(hosted.model, "max_rows", 0),
            shared=getattr(hosted.model, "shared", False),
        )

    def run(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        """Begin a batch, or one stream."""
        if self._concurrent is None:
            return
        first = members[0]
        # The task that runs the batch takes a copy of the context as it is now.
        handed = HANDED.set(self._hands.handed(batch) if self._hands else None)
        try:
            if isinstance(first, Chat):
                self._concurrent.run(batch, first)
            else:
                groups = group(cast("Sequence[Tensors]", members))
                self._concurrent.run(batch, [join(alike) for alike in groups])
        finally:
            HANDED.reset(handed)

    def cancel(self, batch: int) -> None:
        """Stop a batch: its connection is closed."""
        if self._concurrent is not None:
            self._concurrent.cancel(batch)

    async def stop(self, grace_s: float) -> None:
        """End what is open, by force after `grace_s` seconds, then close."""
        concurrent, self._concurrent = self._concurrent, None
        if concurrent is not None:
            await concurrent.close(grace_s)
        hosted, self._hosted = self._hosted, None
        if hosted is not None:
            hosted.close()

    def _limits(self, said: dict[str, Any]) -> None:
        self._sink.report(Limits(self._spec.id, **said))

    # --- what a model says of its server ---------------------------------------------------------------

    def load(self, free_in_s: float) -> None:
        """Hear how many seconds requests wait at the server now."""
        self._sink.report(Report(self._spec.id, free_in_s))

    def pause(self, seconds: float) -> None:
        """Hear that the model is to be left alone for a while."""
        self._sink.report(Limits(self._spec.id, retry_after_s=seconds))

    def lost(self, reason: str) -> None:
        """Hear that the model is gone."""
        self._sink.lost(self._spec.id, reason)
