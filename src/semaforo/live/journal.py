"""Writes the journal: buffered, in segments that begin with a snapshot, bounded on disk by rotation.

Rules this module keeps:

1. At most two files exist: `path`, and ``path.1`` with what came before it, in this run or the last.
2. One fleet writes a journal: the file is locked while it is open.
3. Requests never suffer from their journal: where the disk fails, recording ends, and the log says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from semaforo.core.controller import Controller
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import ControllerEffect, DispatcherEffect
from semaforo.core.events import ControllerEvent, DispatcherEvent
from semaforo.core.journal import HEADER, Control, Decision, Snapshot, digest, encode
from semaforo.errors import JournalError

SEGMENT_RECORDS = 20_000
BUFFER_BYTES = 1 << 18
FILE_BYTES = 64 << 20

log = logging.getLogger("semaforo.journal")


class JournalWriter:
    """Appends what the machines are told and a digest of what they answer.

    Raises:
        JournalError: The file cannot be written, or is being written already.
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
        if self._file is not None:
            self._add(encode(Decision(now, event, digest(effects))))

    def control(self, now: float, event: ControllerEvent, effects: Sequence[ControllerEffect]) -> None:
        """Record one call of the controller."""
        if self._file is not None:
            self._add(encode(Control(now, event, digest(effects))))

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        if self._file is None or not self._buffer:
            return
        left = bytes(self._buffer)
        self._buffer.clear()
        self._written += len(left)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> FileIO | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = _lock(self.path)
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and os.fstat(file.fileno()).st_size:
                # The old one stays locked until the new one is.
                with file:
                    self.path.replace(self.path.with_name(self.path.name + ".1"))
                    file = _lock(self.path)
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
                self._rotate()
            self._begin_segment()

    def _rotate(self) -> None:
        self.close()
        self._written = 0
        try:
            self._file = self._open()
        except JournalError as error:
            self._give_up(error.message)

    def _give_up(self, reason: str) -> None:
        log.error("the journal %s ends here, requests go on: %s", self.path, reason)
        if self._file is not None:
            self._file.close()
            self._file = None
        self._buffer.clear()

    def _begin_segment(self) -> None:
        self._records = 0
        if self._file is not None:
            self._buffer += encode(Snapshot(self._dispatcher.snapshot(), self._controller.snapshot()))


def locked(path: Path) -> bool:
    """Tell whether a fleet is writing a journal."""
    try:
        with _lock(path) if path.is_file() else contextlib.nullcontext():
            return False
    except JournalError:
        return True
    except OSError:
        # It cannot be written at all, as whoever opens it will say.
        return False


def _lock(path: Path) -> FileIO:
    """Open a file to append to, unbuffered, and lock it until it is closed."""
    file = path.open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise JournalError(
            f"the journal {path} is being written already: stop the fleet that writes it, or name another"
        ) from None
    return file
