"""Device time that stands idle while a request waits that the device could serve in time.

Told by two witnesses, neither of them the scheduler's counters: the stream of events and effects (read back from
the journal, whose replay is checked digest by digest), and the models' own log of when they were at work.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import DispatcherEffect, Finish, Run
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    DispatcherEvent,
    ReplicaGone,
    ReplicaReady,
)
from semaforo.core.journal import HEADER, Control, Snapshot, decode, digest

Step = tuple[float, DispatcherEvent, list[DispatcherEffect]]


def stream(path: Path) -> Iterator[Step]:
    """Yield every (now, event, effects) of the dispatcher from a journal, replayed and checked.

    Raises:
        AssertionError: The replay decides otherwise than the live run did.
    """
    data = path.read_bytes()
    assert data.startswith(HEADER), f"{path} is not a journal"
    records, _ = decode(memoryview(data)[len(HEADER) :])
    dispatcher: Dispatcher | None = None
    for record in records:
        if isinstance(record, Snapshot):
            # A snapshot in the middle is where we stand already.
            dispatcher = dispatcher or Dispatcher.restore(record.dispatcher)
        elif not isinstance(record, Control):
            assert dispatcher is not None, "a journal begins with a snapshot"
            effects = dispatcher.handle(record.event, record.now)
            assert digest(effects) == record.digest, f"the replay differs at {record.now}: {record.event}"
            yield record.now, record.event, effects


class Idle:
    """Adds up idle device time while something waits, from a stream.

    Args:
        seconds: Seconds a replica's model takes for one row, by variant id.
        start, end: The moments between which time counts.

    Attributes:
        idle_s: Seconds that free replicas stood beside a waiting request they could have served in time.
        device_s: Seconds of all ready replicas.
        waits: (start, end, deadline) of every wait, for the other witness.
    """

    def __init__(self, seconds: Callable[[str], float], start: float, end: float) -> None:
        self.idle_s = 0.0
        self.device_s = 0.0
        self.by_variant: dict[str, float] = {}
        self.waits: list[tuple[float, float, float]] = []
        self._seconds = seconds
        self._start, self._end = start, end
        self._ready: dict[str, str] = {}
        self._free: set[str] = set()
        self._batches: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._waiting: dict[str, tuple[float, float]] = {}
        self._deadlines: dict[str, float] = {}
        self._at = 0.0

    def fold(self, now: float, event: DispatcherEvent, effects: Sequence[DispatcherEffect]) -> None:
        """Take in one step of the stream."""
        self._pass(now)
        if isinstance(event, Arrived):
            limit = event.request.contract.deadline_s
            self._deadlines[event.request.id] = now + limit if limit is not None else float("inf")
            self._wait(event.request.id, now)
        elif isinstance(event, ReplicaReady):
            self._ready[event.replica.id] = event.replica.variant
            self._free.add(event.replica.id)
        elif isinstance(event, ReplicaGone):
            self._ready.pop(event.replica, None)
            self._free.discard(event.replica)
        elif isinstance(event, BatchDone | BatchFailed) and event.batch in self._batches:
            replica, members = self._batches.pop(event.batch)
            if replica in self._ready:
                self._free.add(replica)
            for member in members if isinstance(event, BatchFailed) else ():
                if member in self._deadlines:
                    self._wait(member, now)
        for effect in effects:
            if isinstance(effect, Run):
                self._batches[effect.batch] = (effect.replica, effect.members)
                self._free.discard(effect.replica)
                for member in effect.members:
                    self._stop_waiting(member, now)
            elif isinstance(effect, Finish):
                self._stop_waiting(effect.request, now)
                self._deadlines.pop(effect.request, None)

    def _wait(self, request: str, now: float) -> None:
        self._waiting[request] = (now, self._deadlines[request])

    def _stop_waiting(self, request: str, now: float) -> None:
        since = self._waiting.pop(request, None)
        if since is not None and now > since[0] and self._start <= now < self._end:
            self.waits.append((since[0], now, since[1]))

    def _pass(self, now: float) -> None:
        before, self._at = self._at, now
        span = min(now, self._end) - max(before, self._start)
        if span <= 0:
            return
        self.device_s += span * len(self._ready)
        if not self._waiting or not self._free:
            return
        latest = max(deadline for _, deadline in self._waiting.values())
        for replica in self._free:
            variant = self._ready[replica]
            if before + self._seconds(variant) <= latest:
                self.idle_s += span
                self.by_variant[variant] = self.by_variant.get(variant, 0.0) + span


def idle_by_log(
    busy: Sequence[tuple[float, float]],
    waits: Sequence[tuple[float, float, float]],
    one_row_s: float,
    start: float,
    end: float,
) -> float:
    """Return the seconds in which a model was not at work, by its own log, while a request waited for it.

    Hand-overs count here: the time from the end of one batch until the next one has come through.
    """
    pieces = sorted((max(s, start), min(e, end, d - one_row_s)) for s, e, d in waits)
    starts = [b[0] for b in busy]
    idle = 0.0
    reached = start
    for s, e in pieces:
        s = max(s, reached)
        if e <= s:
            continue
        reached = e
        idle += e - s
        at = max(0, bisect_right(starts, s) - 1)
        while at < len(busy) and busy[at][0] < e:
            idle -= max(0.0, min(e, busy[at][1]) - max(s, busy[at][0]))
            at += 1
    return idle
