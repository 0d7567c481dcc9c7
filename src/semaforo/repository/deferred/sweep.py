"""What time ends: requests past their expiry, results and files past their keeping."""

from __future__ import annotations

import sqlite3

import msgspec

from semaforo.repository.deferred.items import find, unfinished
from semaforo.repository.deferred.records import Item
from semaforo.repository.deferred.schema import ROW_BYTES

_AT_ONCE = 2000


class Swept(msgspec.Struct):
    """What a sweep came to.

    Attributes:
        expired: Requests that ended by it.
        batches: Batches of which nothing is left to do.
        next_expiry: When the next request expires, or None.
        more: Whether it should be done again at once.
    """

    expired: list[str]
    batches: list[str]
    next_expiry: float | None
    more: bool


def sweep(db: sqlite3.Connection, now: float, keep_s: float) -> Swept:
    """End what has expired and drop what was kept long enough, so much at once."""
    rows = db.execute(
        "SELECT id, batch FROM items WHERE ended IS NULL AND expires <= ? AND status = 'queued' LIMIT ?",
        (now, _AT_ONCE),
    ).fetchall()
    db.executemany(
        "UPDATE items SET status = 'expired', ended = ?, body = NULL, bytes = ?, error_code = 'expired', "
        "error_message = 'it expired before it could be run', "
        "hook_due = CASE webhook WHEN '' THEN NULL ELSE ? END WHERE id = ?",
        [(now, ROW_BYTES, now, item_id) for item_id, _ in rows],
    )
    batches = [b for b in {batch for _, batch in rows if batch} if not unfinished(db, b)]
    before = now - keep_s
    dropped = db.execute(
        "DELETE FROM items WHERE seq IN (SELECT seq FROM items WHERE ended IS NOT NULL AND ended <= ? "
        "AND batch = '' LIMIT ?)",
        (before, _AT_ONCE),
    ).rowcount
    db.execute("DELETE FROM files WHERE expires <= ?", (now,))
    db.execute("DELETE FROM batches WHERE ended IS NOT NULL AND ended <= ?", (before,))
    # A request that runs past its expiry is ended by whoever runs it.
    query = "SELECT min(expires) FROM items WHERE ended IS NULL AND status = 'queued'"
    return Swept(
        [item_id for item_id, _ in rows],
        batches,
        db.execute(query).fetchone()[0],
        len(rows) == _AT_ONCE or dropped == _AT_ONCE,
    )


def hooks_due(db: sqlite3.Connection, now: float, most: int) -> tuple[list[Item], float | None]:
    """Return requests whose webhook is due, and when the next one is."""
    ids = db.execute(
        "SELECT id FROM items WHERE hook_due IS NOT NULL AND hook_due <= ? ORDER BY hook_due LIMIT ?",
        (now, most),
    ).fetchall()
    due = [item for (item_id,) in ids if (item := find(db, item_id)) is not None]
    query = "SELECT min(hook_due) FROM items WHERE hook_due IS NOT NULL"
    return due, db.execute(query).fetchone()[0]


def hook_told(db: sqlite3.Connection, item_id: str, again: float | None) -> None:
    """Note a webhook that was tried: told or given up (None), or when to try again."""
    db.execute(
        "UPDATE items SET hook_due = ?, hook_tries = hook_tries + 1 WHERE id = ?",
        (again, item_id),
    )
