"""Requests that a server answers later, from its queue on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from semaforo.api.answer import FleetAnswer
from semaforo.api.calls import Calls
from semaforo.api.exchange import Call, Ticket
from semaforo.errors import Expired

_FIRST_S = 0.05
_MOST_S = 1.0


class Deferred:
    """A request in the server's queue.

    Attributes:
        id: Its id there, by which any client of the same tenant finds it.
    """

    def __init__(self, ticket: Ticket, calls: Calls, run: Callable[[Call[object]], object]) -> None:
        self.id = ticket.id
        self._ticket = ticket
        self._calls = calls
        self._run = run

    def status(self) -> str:
        """Return how it stands, as the server says it: ``queued``, ``running``, ``done`` and so on."""
        return str(self._run(self._calls.standing(self._ticket)))

    def cancel(self) -> str:
        """Call it off where it has not ended, and return how it stands."""
        return str(self._run(self._calls.standing(self._ticket, cancel=True)))

    def result(self, timeout: float | None = None) -> FleetAnswer:
        """Wait for the answer, `timeout` seconds at most; None waits as long as it takes.

        Raises:
            Expired: It was not there in time (and may still come), or its own deadline is over.
            SemaforoError: Why there is no answer.
        """
        pauses = _Pauses(self.id, timeout)
        while True:
            found = self._run(self._calls.outcome(self._ticket))
            if isinstance(found, FleetAnswer):
                return found
            time.sleep(pauses.next())


class AsyncDeferred:
    """The same, awaited; see `Deferred`."""

    def __init__(
        self, ticket: Ticket, calls: Calls, run: Callable[[Call[object]], Awaitable[object]]
    ) -> None:
        self.id = ticket.id
        self._ticket = ticket
        self._calls = calls
        self._run = run

    async def status(self) -> str:
        """See `Deferred.status`."""
        return str(await self._run(self._calls.standing(self._ticket)))

    async def cancel(self) -> str:
        """See `Deferred.cancel`."""
        return str(await self._run(self._calls.standing(self._ticket, cancel=True)))

    async def result(self, timeout: float | None = None) -> FleetAnswer:
        """See `Deferred.result`."""
        pauses = _Pauses(self.id, timeout)
        while True:
            found = await self._run(self._calls.outcome(self._ticket))
            if isinstance(found, FleetAnswer):
                return found
            await asyncio.sleep(pauses.next())


class _Pauses:
    """How long to wait until asking again: short at first, a second in the end."""

    def __init__(self, request: str, timeout_s: float | None) -> None:
        self._request = request
        self._timeout_s = timeout_s
        self._begun = time.monotonic()
        self._pause_s = _FIRST_S

    def next(self) -> float:
        left_s = _MOST_S
        if self._timeout_s is not None:
            left_s = self._begun + self._timeout_s - time.monotonic()
            if left_s <= 0:
                raise Expired(
                    f"request {self._request} has no answer after {self._timeout_s:g} s; it may still come"
                )
        pause_s = min(self._pause_s, left_s)
        self._pause_s = min(2 * self._pause_s, _MOST_S)
        return pause_s
