"""Takes work from the queue on disk while there is capacity to spare, and ends each piece of it once.

Rules this module keeps:

1. At most so many requests run at once, and one target never has all of these places.
2. A target waits while direct calls of higher classes wait for it, and for a while after it had no capacity.
3. What fails for want of capacity goes back into the queue; everything else is an end, and is written before
   anything else happens.
4. What was taken and is not ended when the server stops goes back into the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from semaforo.errors import Cancelled, Expired, ModelFailed, NotReady, Refused, SemaforoError, Shed
from semaforo.repository.deferred import Outcome, Store, Work, items
from semaforo.repository.deferred.turns import Turns
from semaforo.server.deferred.replay import Replay
from semaforo.server.http import HttpResponse

T = TypeVar("T")

logger = logging.getLogger("semaforo.deferred")

MOST_CRASHES = 5
"""Times the server may end while a request runs, before that request is held to be the cause."""

_LOOK_S = 0.05
_AGAIN_S = (0.5, 60.0)
_HOLD_S = (0.2, 30.0)
_WRITE_AGAIN_S = 5.0
_FOR_NOW = (Refused, Shed, NotReady, Cancelled, Expired)


class Drain:
    """The runner of deferred work.

    Args:
        store: Where it is kept.
        replay: Prepares a run.
        busy: Tells whether direct calls wait for a target.
        most: Requests that run at once.
        ended: Called with a request that has ended, and the batch that this ends or "".
    """

    def __init__(
        self,
        store: Store,
        replay: Callable[[Work], Replay],
        busy: Callable[[str], bool],
        most: int,
        ended: Callable[[Work, str], None],
    ) -> None:
        self._store = store
        self._replay = replay
        self._busy = busy
        self._most = most
        self._most_of_target = max(1, most - most // 4)
        self._ended = ended
        self._turns = Turns()
        self._running: dict[str, tuple[asyncio.Task[None], Replay]] = {}
        self._places: Counter[str] = Counter()
        self._held: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._ending = False
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop().create_task(self._drain())

    def wake(self) -> None:
        """Look at the queue: something was added."""
        self._wake.set()

    def call_off(self, item_id: str) -> None:
        """Stop a request that runs and has been ended in the database."""
        running = self._running.get(item_id)
        if running is not None:
            running[1].call_off()
            running[0].cancel()

    def end(self) -> None:
        """Take no more work."""
        self._ending = True
        self._wake.set()

    async def close(self) -> None:
        """Stop, and put what runs back into the queue."""
        self.end()
        if self._loop is not None:
            await self._loop
        unfinished = list(self._running)
        for item_id in unfinished:
            self.call_off(item_id)
        await asyncio.gather(*(task for task, _ in self._running.values()), return_exceptions=True)
        if unfinished:
            await self._store.run(items.give_back, unfinished, 0.0)

    async def _drain(self) -> None:
        while not self._ending:
            self._wake.clear()
            try:
                wait = await self._fill()
            except SemaforoError as error:
                logger.error("the queue on disk cannot be read: %s", error)
                wait = _WRITE_AGAIN_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _fill(self) -> float | None:
        """Take work for the places that are free; return after how many seconds to look again, or None."""
        free = self._most - len(self._running)
        if free <= 0:
            return None
        now = time.monotonic()
        self._held = {target: until for target, until in self._held.items() if until > now}
        full = [target for target, places in self._places.items() if places >= self._most_of_target]
        without = {*self._held, *full}
        taken, due = await self._store.run(self._turns.take, time.time(), free, without)
        back: list[str] = []
        for work in taken:
            if self._ending or self._busy(work.target):
                self._held[work.target] = now + _LOOK_S
                back.append(work.id)
            else:
                self._begin(work)
        if back:
            await self._store.run(items.give_back, back, 0.0, begun=False)
            return 0.001
        if len(taken) == free:
            return None
        waits = [until - now for until in self._held.values()]
        if due is not None:
            waits.append(due - time.time())
        return max(0.001, min(waits)) if waits else None

    def _begin(self, work: Work) -> None:
        replay = self._replay(work)
        self._places[work.target] += 1
        task = asyncio.get_running_loop().create_task(self._run(work, replay))
        self._running[work.id] = (task, replay)
        task.add_done_callback(lambda _: self._done(work))

    def _done(self, work: Work) -> None:
        self._running.pop(work.id, None)
        self._places[work.target] -= 1
        if not self._places[work.target]:
            del self._places[work.target]
        self._wake.set()

    async def _run(self, work: Work, replay: Replay) -> None:
        try:
            outcome = await self._outcome(work, replay)
        except SemaforoError as error:
            if not replay.called_off:
                await self._again(work, error)
        else:
            self._misses.pop(work.target, None)
            await self._keep(work, outcome)

    async def _outcome(self, work: Work, replay: Replay) -> Outcome:
        """Return how a run ended; raise what another run may get past."""
        known: SemaforoError
        try:
            if work.crashes >= MOST_CRASHES:
                raise ModelFailed(f"the server ended {work.crashes} times without warning while this ran")
            async with asyncio.timeout(max(0.0, work.expires - time.time())) as expiry:
                response = await replay.run()
        except SemaforoError as error:
            if isinstance(error, _FOR_NOW):
                raise
            known = error
        except Exception as error:
            if isinstance(error, TimeoutError) and expiry.expired():
                replay.call_off()
                known = Expired("it expired while it ran")
            else:
                logger.exception("deferred request %s, run as %s, failed", work.id, replay.request.id)
                known = SemaforoError(f"internal error; the log has it as {replay.request.id}")
        else:
            if response.status < 400:
                return Outcome(status="done", response=_kept(response))
            message = f"answered with status {response.status}"
            return Outcome(status="failed", error=("failed", message), response=_kept(response))
        return Outcome(
            status="expired" if isinstance(known, Expired) else "failed",
            error=(known.code, known.message),
            response=_kept(replay.error(known)),
        )

    async def _again(self, work: Work, error: SemaforoError) -> None:
        """Put work back that had no capacity, and leave it and its target alone for a while."""
        least = min(error.retry_after_s or 0.0, _AGAIN_S[1])
        pause = max(least, min(_AGAIN_S[1], _AGAIN_S[0] * 2.0 ** min(work.attempts - 1, 16)))
        now = time.monotonic()
        if self._held.get(work.target, 0.0) <= now:
            # What comes back together tells of the same want of capacity.
            misses = self._misses[work.target] = min(self._misses.get(work.target, 0) + 1, 16)
            self._held[work.target] = now + max(least, min(_HOLD_S[1], _HOLD_S[0] * 2.0 ** (misses - 1)))
        logger.debug("deferred request %s goes back for %.1f s: %s", work.id, pause, error)
        await self._write(lambda: self._store.run(items.give_back, [work.id], time.time() + pause))

    async def _keep(self, work: Work, outcome: Outcome) -> None:
        batch = await self._write(lambda: self._store.run(items.settle, work.id, outcome, time.time()))
        self._ended(work, batch or "")

    async def _write(self, write: Callable[[], Awaitable[T]]) -> T | None:
        """Write until it is written; what is not when the server stops is run again by the next one."""
        while True:
            try:
                return await write()
            except SemaforoError as error:
                logger.error("%s", error)
                if self._ending:
                    return None
            await asyncio.sleep(_WRITE_AGAIN_S)


def _kept(response: HttpResponse) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers)
    return response.status, tuple(headers), response.body
