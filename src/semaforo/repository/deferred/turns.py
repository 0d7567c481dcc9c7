"""Who is served next: tenants in turn, the batches of a tenant in turn, the oldest request of each first."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection

import msgspec

from semaforo.repository.deferred.records import Header, Work

_LANES = """
WITH RECURSIVE lanes (name) AS (
    SELECT min(lane) FROM items WHERE status = 'queued'
    UNION ALL
    SELECT (SELECT min(lane) FROM items WHERE status = 'queued' AND lane > name) FROM lanes WHERE name NOTNULL
)
SELECT name FROM lanes WHERE name NOTNULL
"""
_COLUMNS = "id, tenant, path, headers, body, target, expires, attempts, crashes, batch, webhook"


class Turns:
    """Takes requests from the queue. Used by the store's thread only."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self._lanes: dict[str, int] = {}
        self._tenants: dict[str, int] = {}

    def take(
        self, db: sqlite3.Connection, now: float, most: int, without: Collection[str]
    ) -> tuple[list[Work], float | None]:
        """Take the next requests; they are running then.

        Args:
            db: The database.
            now: Seconds since 1970.
            most: How many at most.
            without: Targets to leave alone.

        Returns:
            What was taken; and, where that is less than `most`, when the next request that is held back is due.
        """
        lanes = [name for (name,) in db.execute(_LANES)]
        self._lanes = {name: self._lanes.get(name, 0) for name in lanes}
        owners = {name: name.partition("\n")[0] for name in lanes}
        self._tenants = {tenant: self._tenants.get(tenant, 0) for tenant in owners.values()}
        left = "" if not without else f"AND target NOT IN ({', '.join('?' * len(without))})"
        query = (
            f"SELECT {_COLUMNS} FROM items WHERE status = 'queued' AND lane = ? AND not_before <= ? "
            f"AND expires > ? {left} ORDER BY seq LIMIT 1"
        )
        taken: list[Work] = []
        while lanes and len(taken) < most:
            lane = min(lanes, key=lambda name: (self._tenants[owners[name]], self._lanes[name]))
            row = db.execute(query, (lane, now, now, *without)).fetchone()
            if row is None:
                lanes.remove(lane)
                continue
            self._lanes[lane] = self._tenants[owners[lane]] = next(self._count)
            db.execute(
                "UPDATE items SET status = 'running', started = ?, attempts = attempts + 1 WHERE id = ?",
                (now, row[0]),
            )
            taken.append(_work(row))
        if len(taken) == most:
            return taken, None
        due = db.execute(
            "SELECT min(not_before) FROM items WHERE status = 'queued' AND not_before > ?", (now,)
        )
        return taken, due.fetchone()[0]


def _work(row: tuple[str, str, str, bytes, bytes, str, float, int, int, str, str]) -> Work:
    return Work(
        id=row[0],
        tenant=row[1],
        path=row[2],
        headers=msgspec.json.decode(row[3], type=tuple[Header, ...]),
        body=bytes(row[4]),
        target=row[5],
        expires=row[6],
        attempts=row[7] + 1,
        crashes=row[8],
        batch=row[9],
        webhook=row[10],
    )
