"""Requests in the database: admitted, taken, given back, ended. Each function is one piece of a transaction.

Rules this module keeps:

1. A request ends once: whatever changes its status looks at it first, and what has ended stays as it is.
2. Only a request that is queued is taken, and it is running from the commit that takes it.
3. The request itself is kept until it ends, its result until it is swept away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from semaforo.errors import Conflict
from semaforo.repository.deferred.records import Header, Item, NewItem, Outcome, Status
from semaforo.repository.deferred.schema import ROW_BYTES
from semaforo.repository.deferred.store import Bounds, QueueFull, StorageFull

_COLUMNS = (
    "id, tenant, status, path, target, created, started, ended, expires, attempts, batch, error_code, "
    "error_message, response_status, webhook, hook_due, hook_tries, seq"
)


def admit(db: sqlite3.Connection, new: NewItem, bounds: Bounds, now: float) -> tuple[Item, bool]:
    """Put a request into the queue.

    Returns:
        How it stands, and whether its key had admitted it before.

    Raises:
        Conflict: Its key was used for another request.
        QueueFull: The bound of the queue is reached.
        StorageFull: The bound of bytes is reached.
    """
    if new.key:
        row = db.execute(
            "SELECT id, digest FROM items WHERE tenant = ? AND key = ? AND key <> ''", (new.tenant, new.key)
        ).fetchone()
        if row is not None:
            if row[1] != new.digest:
                raise Conflict(f"the idempotency key '{new.key}' was used for another request; use a new one")
            known = find(db, row[0])
            assert known is not None
            return known, True
    before = make_room(db, bounds, 1, size(new))
    insert(db, new, now)
    item = Item(
        id=new.id,
        tenant=new.tenant,
        status="queued",
        path=new.path,
        target=new.target,
        created=now,
        started=None,
        ended=None,
        expires=new.expires,
        attempts=0,
        webhook=new.webhook,
        position=before,
    )
    return item, False


def make_room(db: sqlite3.Connection, bounds: Bounds, items: int, size_bytes: int) -> int:
    """Make sure that so much more may be stored.

    Returns:
        Requests that are queued.

    Raises:
        QueueFull: The bound of the queue is reached.
        StorageFull: The bound of bytes is reached.
    """
    tally = counts(db)
    waiting = tally["queued"] + tally["running"]
    if items and waiting + items > bounds.items:
        raise QueueFull(
            f"{waiting} requests wait in the queue on disk and {items} more would exceed its bound of "
            f"{bounds.items} (deferred.max)",
            retry_after_s=5.0,
        )
    if tally["bytes"] + size_bytes > bounds.bytes:
        raise StorageFull(
            f"{tally['bytes']} bytes are stored and {size_bytes} more would exceed the bound of {bounds.bytes} "
            "(deferred.bytes): delete files, or wait until old results are dropped",
            retry_after_s=60.0,
        )
    return tally["queued"]


def size(new: NewItem) -> int:
    """Return the bytes that a request counts for."""
    return ROW_BYTES + len(new.path) + len(new.body) + sum(len(n) + len(v) for n, v in new.headers)


def insert(db: sqlite3.Connection, new: NewItem, now: float) -> None:
    """Store a request as queued."""
    db.execute(
        "INSERT INTO items (id, tenant, batch, line, custom_id, lane, target, status, path, headers, body, "
        "created, expires, key, digest, webhook, bytes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.id, new.tenant, new.batch, new.line, new.custom_id, lane(new.tenant, new.batch), new.target,
            new.path, msgspec.json.encode(new.headers), new.body, now, new.expires, new.key, new.digest,
            new.webhook, size(new),
        ),
    )  # fmt: skip


def lane(tenant: str, batch: str) -> str:
    """Return the name of the lane in which a tenant's requests, or those of one batch, follow each other."""
    return f"{tenant}\n{batch}"


def find(db: sqlite3.Connection, item_id: str, tenant: str | None = None) -> Item | None:
    """Return how a request stands; None where there is none, or none of this tenant."""
    row = db.execute(f"SELECT {_COLUMNS} FROM items WHERE id = ?", (item_id,)).fetchone()
    if row is None or (tenant is not None and row[1] != tenant):
        return None
    position = None
    if row[2] == "queued":
        query = "SELECT count(*) FROM items WHERE status = 'queued' AND seq < ?"
        position = int(db.execute(query, (row[17],)).fetchone()[0])
    return _item(row, position)


def result(
    db: sqlite3.Connection, item_id: str, tenant: str | None
) -> tuple[Item, tuple[int, tuple[Header, ...], bytes] | None] | None:
    """Return how a request stands with its result, if it has one; None where there is no such request."""
    item = find(db, item_id, tenant)
    if item is None or item.response_status is None:
        return None if item is None else (item, None)
    headers, body = db.execute(
        "SELECT response_headers, response_body FROM items WHERE id = ?", (item_id,)
    ).fetchone()
    return item, (item.response_status, msgspec.json.decode(headers, type=tuple[Header, ...]), bytes(body))


def listed(
    db: sqlite3.Connection, tenant: str | None, statuses: Collection[Status], after: str, most: int
) -> list[Item]:
    """Return requests that are in no batch, the newest first, that come after one of them."""
    where, values = ["batch = ''"], list[Any]()
    if tenant is not None:
        where.append("tenant = ?")
        values.append(tenant)
    if statuses:
        where.append(f"status IN ({', '.join('?' * len(statuses))})")
        values += statuses
    if after:
        where.append("seq < (SELECT seq FROM items WHERE id = ?)")
        values.append(after)
    query = f"SELECT {_COLUMNS} FROM items WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    return [_item(row, None) for row in db.execute(query, (*values, most))]


def settle(db: sqlite3.Connection, item_id: str, outcome: Outcome, now: float) -> str:
    """End a request that has not ended; a result that is written once is never written again.

    Returns:
        The batch whose last request this was, or "".
    """
    code, message = outcome.error or (None, None)
    status, headers, body = outcome.response or (None, None, None)
    packed = None if headers is None else msgspec.json.encode(headers)
    kept = ROW_BYTES + len(packed or b"") + len(body or b"")
    changed = db.execute(
        "UPDATE items SET status = ?, ended = ?, body = NULL, error_code = ?, error_message = ?, "
        "response_status = ?, response_headers = ?, response_body = ?, bytes = ?, "
        "hook_due = CASE webhook WHEN '' THEN NULL ELSE ? END WHERE id = ? AND ended IS NULL",
        (outcome.status, now, code, message, status, packed, body, kept, now, item_id),
    ).rowcount
    return last_of_batch(db, item_id) if changed else ""


def cancel(db: sqlite3.Connection, item_id: str, tenant: str | None, now: float) -> tuple[Item, bool] | None:
    """Cancel a request that has not ended.

    Returns:
        How it stands now, and whether it was running; None where there is none.
    """
    before = find(db, item_id, tenant)
    if before is None:
        return None
    db.execute(
        "UPDATE items SET status = 'cancelled', ended = ?, body = NULL, bytes = ?, error_code = 'cancelled', "
        "error_message = 'cancelled by the client', "
        "hook_due = CASE webhook WHEN '' THEN NULL ELSE ? END WHERE id = ? AND ended IS NULL",
        (now, ROW_BYTES, now, item_id),
    )
    after = find(db, item_id)
    assert after is not None
    return after, before.status == "running"


def last_of_batch(db: sqlite3.Connection, item_id: str) -> str:
    """Return the batch of a request where nothing of it is left to do, else ""."""
    (batch,) = db.execute("SELECT batch FROM items WHERE id = ?", (item_id,)).fetchone()
    return batch if batch and not unfinished(db, batch) else ""


def unfinished(db: sqlite3.Connection, batch: str) -> bool:
    """Tell whether a batch has requests that have not ended."""
    query = "SELECT 1 FROM items WHERE batch = ? AND batch <> '' AND status IN ('queued', 'running') LIMIT 1"
    return db.execute(query, (batch,)).fetchone() is not None


def give_back(db: sqlite3.Connection, ids: Sequence[str], not_before: float, *, begun: bool = True) -> None:
    """Put requests that were taken back into the queue, not to be taken before a time."""
    db.executemany(
        "UPDATE items SET status = 'queued', not_before = ?, attempts = attempts - ? "
        "WHERE id = ? AND status = 'running'",
        [(not_before, 0 if begun else 1, item_id) for item_id in ids],
    )


def recover(db: sqlite3.Connection) -> int:
    """Put what ran when the server ended without warning back into the queue; return how many."""
    db.execute("UPDATE items SET not_before = 0 WHERE status = 'queued' AND not_before > 0")
    return db.execute(
        "UPDATE items SET status = 'queued', not_before = 0, crashes = crashes + 1 WHERE status = 'running'"
    ).rowcount


def counts(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many requests there are by status, and all ``bytes``."""
    return dict(db.execute("SELECT name, n FROM tally").fetchall())


def oldest(db: sqlite3.Connection) -> float | None:
    """Return when the first request of the queue was admitted."""
    row = db.execute("SELECT created FROM items WHERE status = 'queued' ORDER BY seq LIMIT 1").fetchone()
    return None if row is None else row[0]


def _item(row: Sequence[Any], position: int | None) -> Item:
    return Item(
        id=row[0],
        tenant=row[1],
        status=row[2],
        path=row[3],
        target=row[4],
        created=row[5],
        started=row[6],
        ended=row[7],
        expires=row[8],
        attempts=row[9],
        batch=row[10],
        error=None if row[11] is None else (row[11], row[12]),
        response_status=row[13],
        webhook=row[14],
        hook_due=row[15],
        hook_tries=row[16],
        position=position,
    )
