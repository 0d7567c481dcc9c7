"""Keeps what the fleet learns over restarts: reads it at the start, and writes it every second, off the loop.

Answers that are not written yet are known here too, so that feedback finds them.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Finish
from semaforo.core.events import WEAK
from semaforo.core.state import History, State
from semaforo.entities import Request
from semaforo.repository.history import HistoryStore, Served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EVERY_S = 1.0
_MOST_WAITING = 100_000

log = logging.getLogger("semaforo.history")


class Memory:
    """The history of one fleet on disk; an `Archive` for feedback.

    Args:
        store: The database, which is closed with this.
        state: The dispatcher's.

    Attributes:
        noting: Returns notes to be written, by name.
    """

    def __init__(self, store: HistoryStore, state: State) -> None:
        self._store = store
        self._state = state
        self._waiting: dict[str, Served] = {}
        self._writing: dict[str, Served] = {}
        self._late: dict[str, tuple[float, str]] = {}
        self._being_judged: dict[str, tuple[float, str]] = {}
        self._keys: dict[str, str] = {}
        self._catalog: Catalog | None = None
        self._failed = False
        self.noting: Callable[[], Mapping[str, bytes]] = dict

    def remembered(self, catalog: Catalog) -> dict[str, History]:
        """Return what is known of the variants of a catalog."""
        return self._store.remembered(self._keys_of(catalog))

    def notes(self) -> dict[str, bytes]:
        """Return what parts of the fleet have noted, by name."""
        return self._store.notes()

    def accounts(self) -> dict[str, tuple[float, float]]:
        """Return what was spent: US dollars, and the age of the window in seconds."""
        now = time.time()
        return {
            name: (spent, max(0.0, now - since)) for name, (since, spent) in self._store.accounts().items()
        }

    def answered(
        self, request: Request, finish: Finish, propensity: float, features: Mapping[str, float]
    ) -> None:
        """Note one answer; it is on disk within about a second."""
        if len(self._waiting) >= _MOST_WAITING:
            # The disk does not keep up: what is served matters more than what is written of it.
            return
        variant = self._state.catalog.variants.get(finish.variant)
        self._waiting[request.id] = Served(
            request.id, time.time(), request.contract.tenant, variant.task if variant else request.target,
            finish.variant, propensity, finish.total_s, finish.cost, dict(features),
        )  # fmt: skip

    def served(self, request_id: str) -> tuple[str, str, bool] | None:
        """See `Archive`."""
        found = self._waiting.get(request_id) or self._writing.get(request_id)
        if found is None:
            stored = self._store.served(request_id)
            return None if stored is None else (*stored[:2], stored[2] or self._judged(request_id))
        told = found.score is not None and found.source not in WEAK
        return found.variant, found.tenant, told or self._judged(request_id)

    def features(self, request_id: str) -> Mapping[str, float]:
        """See `Archive`."""
        found = self._waiting.get(request_id) or self._writing.get(request_id)
        return self._store.features(request_id) if found is None else found.features

    def _judged(self, request_id: str) -> bool:
        late = self._late.get(request_id) or self._being_judged.get(request_id)
        return late is not None and late[1] not in WEAK

    def judged(self, request_id: str, score: float, source: str) -> None:
        """See `Archive`."""
        found = self._waiting.get(request_id)
        if found is not None:
            self._waiting[request_id] = msgspec.structs.replace(found, score=score, source=source)
        else:
            self._late[request_id] = (score, source)

    async def keep(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self._write()

    async def close(self) -> None:
        """Write what is left, and close the database."""
        await self._write()
        await asyncio.to_thread(self._store.close)

    async def _write(self) -> None:
        self._writing, self._waiting = self._waiting, {}
        late = self._being_judged = self._late
        self._late = {}
        keys = self._keys_of(self._state.catalog)
        ahead = time.time() - time.monotonic()
        accounts = {name: (a.since + ahead, a.spent) for name, a in self._state.accounts.items()}
        # A copy: the loop goes on to learn while a thread writes.
        known = msgspec.msgpack.decode(msgspec.msgpack.encode(self._state.history), type=dict[str, History])
        try:
            await asyncio.to_thread(
                self._store.save, known, keys, list(self._writing.values()), late, accounts, self.noting()
            )
        except sqlite3.Error as error:
            self._complain(error)
        finally:
            self._writing, self._being_judged = {}, {}

    def _complain(self, error: sqlite3.Error) -> None:
        if not self._failed:
            log.error("what was learned cannot be written to %s: %s", self._store.path, error)
        self._failed = True

    def _keys_of(self, catalog: Catalog) -> dict[str, str]:
        if catalog is not self._catalog:
            self._catalog = catalog
            self._keys = {name: _key(catalog, name) for name in catalog.variants}
        return self._keys


def _key(catalog: Catalog, variant: str) -> str:
    """Return what tells one artefact under a name from another."""
    template = catalog.templates.get(variant)
    if template is None:
        return ""
    about = template.digest or f"{template.source} {template.runtime}"
    if template.runtime == "graph":
        about = repr(template.options.get("graph"))
    return sha256(about.encode()).hexdigest()[:16]
