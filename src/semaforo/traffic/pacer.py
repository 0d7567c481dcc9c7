"""Wakes an event loop when requests are due, from a thread: uvloop's own timers count in whole milliseconds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

_LONGEST_S = 0.1


class Pacer:
    """Calls `due` on the loop's thread at each of the moments; ones that come close together may share a call."""

    def __init__(
        self,
        moments: Sequence[float],
        began: float,
        loop: asyncio.AbstractEventLoop,
        due: Callable[[], None],
    ) -> None:
        self._moments = moments
        self._began = began
        self._loop = loop
        self._due = due
        self._called = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def _call(self) -> None:
        self._called = False
        self._due()

    def _run(self) -> None:
        for moment in self._moments:
            at = self._began + moment
            while (left := at - time.monotonic()) > 0:
                if self._over.is_set():
                    return
                # An Event's wait is coarser than sleep; a long one is cut up so that the end is heard.
                time.sleep(min(left, _LONGEST_S))
            if self._over.is_set():
                return
            if not self._called:
                self._called = True
                self._loop.call_soon_threadsafe(self._call)
