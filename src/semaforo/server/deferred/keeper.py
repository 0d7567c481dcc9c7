"""Ends what time ends, and batches of which nothing is left to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from semaforo.errors import SemaforoError
from semaforo.repository.deferred import Store, batches
from semaforo.repository.deferred.sweep import sweep
from semaforo.server.deferred.names import new_name

logger = logging.getLogger("semaforo.deferred")

_LOOK_S = 60.0


class Keeper:
    """Sweeps when the next request expires, and once a minute.

    Args:
        store: What it keeps.
        keep_s: Seconds that what has ended is kept for.
        expired: Called after requests have expired.
    """

    def __init__(self, store: Store, keep_s: float, expired: Callable[[], None]) -> None:
        self._store = store
        self._keep_s = keep_s
        self._expired = expired
        self._wake = asyncio.Event()
        self._finish: set[str] = set()
        self._until = 0.0
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; batches that the last server left to be ended are ended first."""
        self._loop = asyncio.get_running_loop().create_task(self._keep())

    def expect(self, expires: float) -> None:
        """Look no later than something expires (seconds since 1970)."""
        if expires < self._until:
            self._wake.set()

    def finish(self, batch: str) -> None:
        """End a batch of which nothing is left to do."""
        self._finish.add(batch)
        self._wake.set()

    async def close(self) -> None:
        """Stop."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _keep(self) -> None:
        self._finish.update(await self._store.run(batches.to_finish))
        while True:
            self._wake.clear()
            delay = _LOOK_S
            try:
                while self._finish:
                    batch = next(iter(self._finish))
                    await self._store.run(
                        batches.finish, batch, lambda: new_name("file"), self._keep_s, time.time()
                    )
                    self._finish.discard(batch)
                delay = await self._sweep()
            except SemaforoError as error:
                logger.error("%s", error)
            self._until = time.time() + delay
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)

    async def _sweep(self) -> float:
        now = time.time()
        swept = await self._store.run(sweep, now, self._keep_s)
        if swept.expired:
            self._expired()
        self._finish.update(swept.batches)
        if swept.more or self._finish:
            return 0.0
        return _LOOK_S if swept.next_expiry is None else min(_LOOK_S, max(0.0, swept.next_expiry - now))
