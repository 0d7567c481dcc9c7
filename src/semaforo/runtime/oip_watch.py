"""Watching a model behind a V2 server: whether it is ready, and how long its queue is.

Rules this module keeps:

1. While the model is in use it is looked at every `poll_s` seconds, otherwise ten times less often; each wait is
   drawn a fifth shorter or longer, so that many gateways do not ask at once.
2. A model that is not ready is left alone until the next look; after three looks in a row it is given up, which
   makes whoever drives it start anew.
3. Its queue is what requests have waited there since the last look, whoever sent them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httpx
import msgspec

from semaforo.runtime.oip_load import totals

_IDLE_TIMES = 10.0
_IN_USE_S = 5.0
_LOOKS = 3
_SPREAD = 0.2


class Told(Protocol):
    """Who hears what was seen."""

    def load(self, free_in_s: float) -> None:
        """Hear how many seconds requests wait there now."""
        ...

    def pause(self, seconds: float) -> None:
        """Hear that the model is to be left alone for a while."""
        ...

    def lost(self, reason: str) -> None:
        """Hear that the model is gone; called once, at the end."""
        ...


class Watch:
    """Looks at one model until it is cancelled or the model is lost.

    Args:
        get: Asks the server for a path.
        path: Path of the model.
        statistics: Whether the server tells its load.
        poll_s: Seconds between two looks while the model is in use.
        told: Who hears what was seen.
    """

    def __init__(
        self,
        get: Callable[[str], Awaitable[httpx.Response]],
        path: str,
        statistics: bool,
        poll_s: float,
        told: Told,
    ) -> None:
        self._get = get
        self._path = path
        self._statistics = statistics
        self._poll_s = poll_s
        self._told = told
        self._used = asyncio.Event()
        self._used_at = -_IN_USE_S
        self._running = 0
        self._before: tuple[int, int] | None = None

    def begin(self) -> None:
        """Note that a batch is sent."""
        self._running += 1
        self._used.set()

    def end(self) -> None:
        """Note that a batch has ended."""
        self._running -= 1
        self._used_at = time.monotonic()

    async def run(self) -> None:
        """Look, again and again."""
        missed = 0
        while True:
            await self._wait(eager=missed > 0)
            reason = await self._unready()
            if not reason:
                missed = 0
                if self._statistics and self._in_use():
                    await self._look()
                continue
            missed += 1
            if missed >= _LOOKS:
                self._told.lost(reason)
                return
            self._told.pause(2.0 * self._poll_s)

    def _in_use(self) -> bool:
        return self._running > 0 or time.monotonic() - self._used_at < _IN_USE_S

    async def _wait(self, *, eager: bool) -> None:
        share = random.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)
        if eager or self._in_use():
            await asyncio.sleep(self._poll_s * share)
            return
        self._used.clear()
        self._before = None
        try:
            async with asyncio.timeout(_IDLE_TIMES * self._poll_s * share):
                await self._used.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._poll_s * share)

    async def _unready(self) -> str:
        """Return why the model is not ready, or ""."""
        try:
            response = await self._get(f"{self._path}/ready")
        except httpx.HTTPError as error:
            return f"its server cannot be reached ({str(error) or type(error).__name__})"
        if response.status_code == 200:
            return ""
        return f"its server says that it is not ready ({response.status_code})"

    async def _look(self) -> None:
        try:
            response = await self._get(f"{self._path}/stats")
            found: Any = msgspec.json.decode(response.content)
        except (httpx.HTTPError, msgspec.DecodeError):
            return
        now = totals(found, "queue")
        before, self._before = self._before, now
        if before is None or now[0] < before[0]:
            return
        count, nanoseconds = now[0] - before[0], now[1] - before[1]
        if count:
            self._told.load(max(0.0, nanoseconds * 1e-9 / count))
        elif not self._running:
            self._told.load(0.0)
