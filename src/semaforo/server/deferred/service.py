"""The queue on disk as a whole: what it consists of, how it starts, and how it ends.

What happens at the end, in order:

1. Nothing more is taken from the queue; what runs may finish while the front waits for its own requests.
2. What still runs is called off and goes back into the queue.
3. The database is closed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from semaforo.entities import Priority
from semaforo.errors import NotFound, SemaforoError
from semaforo.repository.deferred import BatchRecord, Bounds, Item, Store, Work, items
from semaforo.server.app import App
from semaforo.server.deferred.batches import Batches
from semaforo.server.deferred.door import Door, has_whole_answer
from semaforo.server.deferred.drain import Drain
from semaforo.server.deferred.files import Files
from semaforo.server.deferred.hooks import Hooks
from semaforo.server.deferred.keeper import Keeper
from semaforo.server.deferred.queue import Queue
from semaforo.server.deferred.replay import Replay
from semaforo.server.deferred.settings import DeferredSettings
from semaforo.server.deferred.shown import PATH
from semaforo.server.http import HttpRequest, HttpResponse, Method, Response, Route

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

logger = logging.getLogger("semaforo.deferred")


class Figures(msgspec.Struct, frozen=True):
    """How much is kept.

    Attributes:
        by_status: Requests by status.
        bytes: Bytes of requests, results and files.
        oldest_s: Seconds since the first request of the queue was admitted; 0 where none waits.
    """

    by_status: dict[str, int]
    bytes: int
    oldest_s: float


class Deferred:
    """Deferred work of one engine; `attach` it to the application before it starts.

    Raises:
        ConfigError: The secret of webhooks is malformed.
    """

    def __init__(self, engine: Engine, settings: DeferredSettings) -> None:
        bounds = Bounds(settings.max_items, settings.max_bytes, settings.keep_s)
        store = self._store = Store(settings.path)
        self._app: App | None = None
        self._queue = Queue(store, self._error, self._cancelled)
        self._hooks = Hooks(store, settings.webhooks, settings.secret, self._queue.message)
        self._door = Door(store, bounds, self._hooks.check, self._admitted)
        self._files = Files(store, bounds)
        self._batches = Batches(store, bounds, self._serves, self._batch_queued, self._batch_cancelled)
        self._keeper = Keeper(store, settings.keep_s, self._hooks.wake)
        self._drain = Drain(
            store,
            self._replay,
            lambda target: engine.waiting_rows(target, Priority.NORMAL) > 0,
            settings.in_flight,
            self._ended,
        )

    def routes(self) -> list[Route]:
        """Return the routes of all of it."""
        return [*self._queue.routes(), *self._files.routes(), *self._batches.routes()]

    def attach(self, app: App) -> None:
        """Serve an application: it queues here, and answers what is taken from the queue."""
        self._app = app
        app.defer = self._door.take
        app.background.append(self)

    async def start(self) -> None:
        """Open the database and begin with what is in it.

        Raises:
            ConfigError: The database cannot be used.
        """
        await asyncio.to_thread(self._store.open)
        again = await self._store.run(items.recover)
        if again:
            logger.warning("%d deferred requests ran when the last server ended; they run again", again)
        await self._batches.start()
        self._keeper.start()
        self._hooks.start()
        self._drain.start()

    def end(self) -> None:
        """Take nothing more from the queue."""
        self._drain.end()

    async def close(self) -> None:
        """Put back what runs, and close the database."""
        await self._drain.close()
        await self._batches.close()
        await self._keeper.close()
        await self._hooks.close()
        await asyncio.to_thread(self._store.close)

    async def figures(self) -> Figures:
        """Return how much is kept."""
        return await self._store.run(_figures, time.time())

    def _replay(self, work: Work) -> Replay:
        assert self._app is not None, "nothing is taken from the queue before there is an application"
        return Replay(self._app, work)

    def _error(self, request: HttpRequest, error: SemaforoError) -> HttpResponse:
        assert self._app is not None, "nobody asks before there is an application"
        return self._app.error(request, error)

    def _serves(self, endpoint: str) -> bool:
        assert self._app is not None, "nobody asks before there is an application"
        whole = endpoint.isascii() and has_whole_answer(endpoint)
        return whole and self._app.takes("POST", endpoint.encode("ascii"))

    def _admitted(self, item: Item) -> None:
        self._queued(item.expires)

    def _queued(self, expires: float) -> None:
        self._keeper.expect(expires)
        self._drain.wake()

    def _batch_queued(self, batch: BatchRecord) -> None:
        self._queued(batch.expires)
        # Its last request may have ended before it was in progress.
        self._keeper.finish(batch.id)

    def _ended(self, work: Work, batch: str) -> None:
        if work.webhook:
            self._hooks.wake()
        if batch:
            self._keeper.finish(batch)

    def _cancelled(self, item: Item, running: bool) -> None:
        if running:
            self._drain.call_off(item.id)
        if item.batch:
            self._keeper.finish(item.batch)
        self._hooks.wake()

    def _batch_cancelled(self, batch: str, running: Sequence[str]) -> None:
        for item_id in running:
            self._drain.call_off(item_id)
        self._keeper.finish(batch)


def _figures(db: sqlite3.Connection, now: float) -> Figures:
    tally = items.counts(db)
    size = tally.pop("bytes")
    oldest = items.oldest(db)
    return Figures(tally, size, 0.0 if oldest is None else max(0.0, now - oldest))


def routes_without() -> list[Route]:
    """Return the same routes for a fleet without a queue on disk: each says how to have one."""

    async def refuse(request: HttpRequest) -> Response:
        raise NotFound(
            "this fleet keeps no work on disk: say where in the fleet file, for example "
            "`deferred: {path: deferred.db}`"
        )

    methods: dict[str, tuple[Method, ...]] = {
        PATH: ("GET",),
        PATH + "/{id}": ("GET", "DELETE"),
        PATH + "/{id}/result": ("GET",),
        "/v1/files": ("POST", "GET"),
        "/v1/files/{id}": ("GET", "DELETE"),
        "/v1/files/{id}/content": ("GET",),
        "/v1/batches": ("POST", "GET"),
        "/v1/batches/{id}": ("GET",),
        "/v1/batches/{id}/cancel": ("POST",),
    }
    return [Route(m, pattern, "infer", refuse) for pattern, each in methods.items() for m in each]
