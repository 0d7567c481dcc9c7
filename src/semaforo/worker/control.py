"""The second thread of a worker: it answers pings and takes cancellations while a batch runs.

So a gateway can tell a worker that is gone or stopped (no answer) from a model that hangs (answers, and a
batch that grows old).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from semaforo.errors import ProtocolError
from semaforo.wire.messages import Cancel, Ping, Pong
from semaforo.worker.link import BlockingLink

_REMEMBERED = 1024
ORPHANED = 3
"""Exit status of a worker whose gateway is gone."""


class Progress:
    """How far a worker is: written by the threads that run batches, read by the control thread."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self._open: dict[int, float] = {}

    def begin(self, batch: int) -> None:
        """Note that a batch begins."""
        self.begun += 1
        self._open[batch] = time.monotonic()

    def end(self, batch: int) -> None:
        """Note that a batch ended, however it did."""
        if self._open.pop(batch, None) is not None:
            self.ended += 1

    def age_s(self) -> float:
        """Return the seconds for which the oldest open batch has run; 0 where none is open."""
        begun = min(list(self._open.values()), default=None)
        return 0.0 if begun is None else time.monotonic() - begun


class Control(threading.Thread):
    """Serves the control socket until the gateway closes it, which ends the process."""

    def __init__(self, link: BlockingLink, progress: Progress) -> None:
        super().__init__(name="semaforo-control", daemon=True)
        self._link = link
        self._progress = progress
        self._cancelled: dict[int, None] = {}
        self.on_cancel: Callable[[int], None] | None = None

    def take_cancelled(self, batch: int) -> bool:
        """Tell whether a batch was cancelled before it began, and forget it."""
        return self._cancelled.pop(batch, 0) is None

    def run(self) -> None:
        """Answer until the socket closes."""
        try:
            for message in self._link.messages():
                if isinstance(message, Ping):
                    progress = self._progress
                    self._link.send(Pong(message.number, progress.begun, progress.ended, progress.age_s()))
                elif isinstance(message, Cancel):
                    self._cancel(message.batch)
        except (OSError, ProtocolError):
            pass
        # Not sys.exit: the main thread may hang in a model, and nobody is left to wait for it.
        os._exit(ORPHANED)

    def _cancel(self, batch: int) -> None:
        self._cancelled[batch] = None
        # A batch that had ended already is never asked about: forget the oldest.
        while len(self._cancelled) > _REMEMBERED:
            self._cancelled.pop(next(iter(self._cancelled)))
        if self.on_cancel is not None:
            self.on_cancel(batch)
