"""A replica on the event loop itself: for models so short that any hop would cost more than they do.

A batch runs in a loop callback of its own, never inside `run`. So the loop reads its sockets between two
batches, and what arrives meanwhile forms the next one.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from typing import cast

from semaforo.entities import BatchProfile, ReplicaSpec
from semaforo.errors import RuntimeLoadError
from semaforo.live.handle import Sink, Started
from semaforo.live.outbox import SinkOutbox
from semaforo.runtime.failure import Failure
from semaforo.runtime.host import Hosted, load, warm
from semaforo.runtime.profile import rows_within
from semaforo.runtime.serve import CANCELLED, tell
from semaforo.wire.payload import Payload, Tensors
from semaforo.worker.options import worker_options

LONGEST_S = 0.002
"""Seconds for which one batch may keep the loop from its sockets."""


def load_inline(spec: ReplicaSpec) -> Hosted:
    """Load and warm a model up for the loop; blocks, so call it in a thread.

    Raises:
        SemaforoError: It cannot be loaded, or cannot run on the loop.
    """
    worker_options(spec)
    hosted = load(spec)
    try:
        if hosted.executor is None:
            raise RuntimeLoadError(
                f"'{spec.source}' is awaited or streams, so it has a loop of its own: "
                "set isolation to thread or process"
            )
        warm(spec, hosted)
    except BaseException:
        hosted.close()
        raise
    return hosted


class InlineReplica:
    """Runs batches on the loop.

    Args:
        spec: What to load.
        sink: Who hears what becomes of batches.
        hosted: The model, where it is loaded already.
    """

    def __init__(self, spec: ReplicaSpec, sink: Sink, hosted: Hosted | None = None) -> None:
        self._spec = spec
        self._outbox = SinkOutbox(sink)
        self._hosted = hosted
        self._waiting: deque[tuple[int, Sequence[Payload]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def start(self) -> Started:
        """Load and warm up.

        Raises:
            SemaforoError: It could not be loaded.
        """
        if self._hosted is None:
            self._hosted = await asyncio.to_thread(load_inline, self._spec)
        hosted = self._hosted
        most = self._spec.max_rows
        if isinstance(hosted.profile, BatchProfile):
            most = rows_within(hosted.profile, LONGEST_S, most)
        return Started(hosted.profile, hosted.signature, hosted.memory_bytes, os.getpid(), "inline", 1, most)

    def run(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        """Begin a batch in the loop's next round."""
        self._waiting.append((batch, members))
        self._loop.call_soon(self._next)

    def hurry(self) -> None:
        """Run what waits for the loop's next round now; not to be called from within an effect."""
        while self._waiting and not self._closed:
            self._next()

    def cancel(self, batch: int) -> None:
        """Drop a batch that has not begun."""
        for entry in self._waiting:
            if entry[0] == batch:
                self._waiting.remove(entry)
                self._loop.call_soon(self._outbox.failed, batch, CANCELLED)
                return

    async def stop(self, grace_s: float) -> None:
        """Free the model; nothing runs between two rounds of the loop."""
        self._closed = True
        if self._hosted is not None:
            hosted, self._hosted = self._hosted, None
            hosted.close()

    def _next(self) -> None:
        if self._closed or not self._waiting:
            return
        batch, members = self._waiting.popleft()
        executor = self._hosted.executor if self._hosted else None
        if executor is None or not isinstance(members[0], Tensors):
            self._outbox.failed(batch, Failure("invalid", "this model answers tensors, not chats"))
            return
        outcomes, service_s = executor.run(cast("Sequence[Tensors]", members))
        tell(self._outbox, batch, outcomes, service_s)
