"""Replays a journal: the same events at the same times must give the very same effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from semaforo.core.controller import Controller
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import ControllerEffect, DispatcherEffect
from semaforo.core.journal import HEADER, Control, Snapshot, decode, digest
from semaforo.errors import JournalError


class Difference(msgspec.Struct, frozen=True):
    """The first place where a replay differs from what was recorded."""

    record: int
    now: float
    event: str
    effects: tuple[str, ...]


class Replay(msgspec.Struct):
    """What a replay found.

    Attributes:
        segments, events: How much was replayed.
        kinds: Events by kind.
        outcomes: Terminal answers by outcome.
        seconds: Time between the first and the last event.
        difference: The first difference, or None when every decision was the same.
        cut: Bytes at the end that are no whole record (the writer was interrupted).
    """

    segments: int = 0
    events: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    seconds: float = 0.0
    difference: Difference | None = None
    cut: int = 0


def replay(path: Path) -> Replay:
    """Replay a journal file.

    Raises:
        JournalError: It cannot be read, or is not a journal.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}") from error
    try:
        return replay_bytes(data)
    except JournalError as error:
        raise JournalError(f"{path}: {error.message}") from error


def replay_bytes(data: bytes) -> Replay:
    """Replay a journal given as bytes.

    Raises:
        JournalError: It is not a journal.
    """
    if not data.startswith(HEADER):
        raise JournalError("not a journal of this version: it does not begin with 'semaforo journal 1'")
    records, used = decode(memoryview(data)[len(HEADER) :])
    found = Replay(cut=len(data) - len(HEADER) - used)
    dispatcher, controller = Dispatcher(), Controller()
    first: float | None = None
    for index, record in enumerate(records):
        if isinstance(record, Snapshot):
            try:
                dispatcher = Dispatcher.restore(record.dispatcher)
                controller = Controller.restore(record.controller)
            except msgspec.DecodeError as error:
                raise JournalError(f"the snapshot in record {index + 1} is damaged: {error}") from error
            found.segments += 1
            continue
        if not found.segments:
            raise JournalError("it does not begin with a snapshot")
        effects: Sequence[DispatcherEffect | ControllerEffect]
        if isinstance(record, Control):
            effects = controller.handle(record.event, record.now)
        else:
            effects = dispatcher.handle(record.event, record.now)
        found.events += 1
        found.kinds[type(record.event).__name__] += 1
        first = record.now if first is None else first
        found.seconds = record.now - first
        for effect in effects:
            outcome = getattr(effect, "outcome", None)
            if outcome is not None:
                found.outcomes[outcome] += 1
        if digest(effects) != record.digest:
            found.difference = Difference(
                index + 1, record.now, repr(record.event), tuple(repr(e) for e in effects)
            )
            break
    if not found.segments:
        raise JournalError("it holds no whole snapshot to begin from")
    return found
