"""Writes the journal: buffered, in segments that begin with a snapshot, bounded on disk by rotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from semaforo.core.controller import Controller
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import ControllerEffect, DispatcherEffect
from semaforo.core.events import ControllerEvent, DispatcherEvent
from semaforo.core.journal import HEADER, Control, Decision, Snapshot, digest, encode
from semaforo.errors import JournalError

SEGMENT_RECORDS = 20_000
BUFFER_BYTES = 1 << 18
FILE_BYTES = 64 << 20


class JournalWriter:
    """Appends what the machines are told and a digest of what they answer.

    At most two files exist: `path`, and ``path.1`` with what came before it.

    Raises:
        JournalError: The file cannot be written.
    """

    def __init__(self, path: Path, dispatcher: Dispatcher, controller: Controller) -> None:
        self.path = path
        self._dispatcher = dispatcher
        self._controller = controller
        self._buffer = bytearray()
        self._records = 0
        self._written = 0
        self._file = self._open()
        self._begin_segment()

    def decision(self, now: float, event: DispatcherEvent, effects: Sequence[DispatcherEffect]) -> None:
        """Record one call of the dispatcher."""
        self._add(encode(Decision(now, event, digest(effects))))

    def control(self, now: float, event: ControllerEvent, effects: Sequence[ControllerEffect]) -> None:
        """Record one call of the controller."""
        self._add(encode(Control(now, event, digest(effects))))

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        if self._buffer:
            self._file.write(self._buffer)
            self._written += len(self._buffer)
            self._buffer.clear()
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()

    def _open(self) -> BinaryIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("wb")
        except OSError as error:
            raise JournalError(f"cannot write the journal {self.path}: {error.strerror}") from error
        self._buffer += HEADER
        return file

    def _add(self, record: bytes) -> None:
        self._buffer += record
        self._records += 1
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()
        if self._records >= SEGMENT_RECORDS:
            if self._written >= FILE_BYTES:
                self.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._written = 0
                self._file = self._open()
            self._begin_segment()

    def _begin_segment(self) -> None:
        self._records = 0
        self._buffer += encode(Snapshot(self._dispatcher.snapshot(), self._controller.snapshot()))
