"""Telling a model that hangs from one that is slow: what is open on a replica, and since when nothing moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from semaforo.entities import BatchProfile, Profile
from semaforo.entities.units import show_duration
from semaforo.live.handle import Sink
from semaforo.live.outbox import SinkOutbox
from semaforo.runtime.failure import Failure
from semaforo.runtime.stream import StreamEnd
from semaforo.wire.block import Outcome
from semaforo.wire.payload import ChatChunk
from semaforo.worker.options import WorkerOptions

_TIMES_PREDICTED = 10.0
Clock = Callable[[], float]


class _Open(msgspec.Struct):
    moved_at: float
    limit_s: float
    stream: bool


class Watch:
    """The open batches of one replica.

    Args:
        options: Gives the least limits.
        clock: Monotonic seconds.
    """

    def __init__(self, options: WorkerOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self.profile: Profile | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, batch: int) -> bool:
        return batch in self._open

    def begin(self, batch: int, rows: int, *, stream: bool) -> None:
        """Note that a batch was handed over."""
        options = self._options
        if stream:
            # A stream that stalls is ended by its own worker first; this is for a worker that cannot.
            limit = options.stall_s + options.hang_s
        elif isinstance(self.profile, BatchProfile):
            limit = max(options.hang_s, _TIMES_PREDICTED * self.profile.seconds(rows))
        else:
            limit = options.hang_s
        self._open[batch] = _Open(self._clock(), limit, stream)

    def progress(self, batch: int) -> None:
        """Note that a stream moved."""
        entry = self._open.get(batch)
        if entry is not None:
            entry.moved_at = self._clock()

    def end(self, batch: int) -> None:
        """Note that a batch ended, and that what waited behind it begins."""
        self._open.pop(batch, None)
        if self._open:
            now = self._clock()
            for entry in self._open.values():
                if not entry.stream:
                    entry.moved_at = now

    def overdue(self) -> str:
        """Say which batch has hung, or return "" where none has."""
        now = self._clock()
        for batch, entry in self._open.items():
            if now - entry.moved_at > entry.limit_s:
                return f"hung: batch {batch} made no progress for {show_duration(now - entry.moved_at)}"
        return ""


class WatchedOutbox(SinkOutbox):
    """Tells a sink, and keeps a watch up to date; says nothing of batches that are not open any more."""

    def __init__(self, sink: Sink, watch: Watch) -> None:
        super().__init__(sink)
        self._watch = watch

    def done(self, batch: int, outcomes: Sequence[Outcome], service_s: float) -> None:
        """See `SinkOutbox.done`."""
        if batch in self._watch:
            self._watch.end(batch)
            super().done(batch, outcomes, service_s)

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """See `SinkOutbox.chunk`."""
        if batch in self._watch:
            self._watch.progress(batch)
            super().chunk(batch, chunk)

    def ended(self, batch: int, end: StreamEnd) -> None:
        """See `SinkOutbox.ended`."""
        if batch in self._watch:
            self._watch.end(batch)
            super().ended(batch, end)

    def failed(self, batch: int, failure: Failure) -> None:
        """See `SinkOutbox.failed`."""
        if batch in self._watch:
            self._watch.end(batch)
            super().failed(batch, failure)
