"""Batches in the database: their requests come a few at a time, and leave together, as two files.

Rules this module keeps:

1. A line of a batch is one request, by its id: to queue a batch whose queueing was cut short is to do it again.
2. It ends once nothing of it is queued or running: the files of its results are written, its requests dropped and
   its status changed together, so an end that was cut short is simply done again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from semaforo.errors import Conflict
from semaforo.repository.deferred import files
from semaforo.repository.deferred.items import insert, make_room, unfinished
from semaforo.repository.deferred.records import BatchRecord, BatchStatus, FileRecord, Header, NewItem
from semaforo.repository.deferred.schema import ROW_BYTES
from semaforo.repository.deferred.store import Bounds
from semaforo.wire.batches import result_line

_OPEN = ("validating", "in_progress", "finalizing", "cancelling")
_decoder = msgspec.json.Decoder(BatchRecord)


def create(db: sqlite3.Connection, batch: BatchRecord) -> tuple[BatchRecord, bool]:
    """Store a batch whose input is to be checked.

    Returns:
        The batch, and whether its key had created it before.

    Raises:
        Conflict: Its key was used for another batch.
    """
    if batch.key:
        row = db.execute(
            "SELECT id FROM batches WHERE tenant = ? AND key = ? AND key <> ''", (batch.tenant, batch.key)
        ).fetchone()
        known = None if row is None else find(db, row[0], None)
        if known is not None:
            if known.digest != batch.digest:
                raise Conflict(f"the idempotency key '{batch.key}' was used for another batch; use a new one")
            return known, True
    db.execute(
        "INSERT INTO batches (id, tenant, status, key, expires, record) VALUES (?, ?, ?, ?, ?, ?)",
        (batch.id, batch.tenant, batch.status, batch.key, batch.expires, msgspec.json.encode(batch)),
    )
    return batch, False


def find(db: sqlite3.Connection, batch_id: str, tenant: str | None) -> BatchRecord | None:
    """Return a batch with its counts; None where there is none, or none of this tenant."""
    row = db.execute("SELECT record, tenant FROM batches WHERE id = ?", (batch_id,)).fetchone()
    if row is None or (tenant is not None and row[1] != tenant):
        return None
    return _counted(db, _decoder.decode(row[0]))


def listed(db: sqlite3.Connection, tenant: str | None, after: str, most: int) -> list[BatchRecord]:
    """Return batches, the newest first, that come after one of them."""
    where, values = ["1"], list[Any]()
    if tenant is not None:
        where.append("tenant = ?")
        values.append(tenant)
    if after:
        where.append("seq < (SELECT seq FROM batches WHERE id = ?)")
        values.append(after)
    query = f"SELECT record FROM batches WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    rows = db.execute(query, (*values, most)).fetchall()
    return [_counted(db, _decoder.decode(record)) for (record,) in rows]


def to_validate(db: sqlite3.Connection) -> list[str]:
    """Return the batches whose input has not been checked."""
    rows = db.execute("SELECT id FROM batches WHERE status = 'validating' ORDER BY seq").fetchall()
    return [batch_id for (batch_id,) in rows]


def to_finish(db: sqlite3.Connection) -> list[str]:
    """Return the batches of which nothing is left to do but to end them."""
    rows = db.execute("SELECT id FROM batches WHERE status IN ('in_progress', 'cancelling')").fetchall()
    return [batch_id for (batch_id,) in rows if not unfinished(db, batch_id)]


def fail(db: sqlite3.Connection, batch_id: str, errors: Sequence[dict[str, Any]], now: float) -> None:
    """End a batch whose input is wrong, or could not be read to the end."""
    batch = find(db, batch_id, None)
    if batch is not None and batch.status == "validating":
        db.execute("DELETE FROM items WHERE batch = ? AND batch <> ''", (batch_id,))
        _save(db, _reached(batch, "failed", now, errors=tuple(errors), total=0), now)


def expect(db: sqlite3.Connection, batch_id: str, requests: int, size_bytes: int, bounds: Bounds) -> None:
    """Note how many requests a batch whose input is right has.

    Raises:
        QueueFull: The bound of the queue would be exceeded.
        StorageFull: The bound of bytes would be.
    """
    batch = find(db, batch_id, None)
    if batch is None or batch.status != "validating" or batch.total:
        return
    make_room(db, bounds, requests, size_bytes)
    _save(db, msgspec.structs.replace(batch, total=requests), None)


def add(db: sqlite3.Connection, batch_id: str, requests: Sequence[NewItem], now: float) -> bool:
    """Queue some requests of a batch; those that are there already stay as they are.

    Returns:
        Whether to go on: it was not cancelled meanwhile.
    """
    status = db.execute("SELECT status FROM batches WHERE id = ?", (batch_id,)).fetchone()
    if status != ("validating",):
        return False
    known = "SELECT 1 FROM items WHERE id = ?"
    for new in requests:
        if db.execute(known, (new.id,)).fetchone() is None:
            insert(db, new, now)
    return True


def begin(db: sqlite3.Connection, batch_id: str, now: float) -> None:
    """Note that all requests of a batch are queued."""
    batch = find(db, batch_id, None)
    if batch is not None and batch.status == "validating":
        _save(db, _reached(batch, "in_progress", now), None)


def cancel(
    db: sqlite3.Connection, batch_id: str, tenant: str | None, now: float
) -> tuple[BatchRecord, list[str]] | None:
    """Cancel what of a batch has not ended.

    Returns:
        The batch, and its requests that were running; None where there is no such batch.

    Raises:
        Conflict: It has ended.
    """
    batch = find(db, batch_id, tenant)
    if batch is None:
        return None
    if batch.status in ("cancelling", "cancelled"):
        return batch, []
    if batch.status not in _OPEN:
        raise Conflict(f"batch {batch_id} is {batch.status}: there is nothing left to cancel")
    running = db.execute(
        "SELECT id FROM items WHERE batch = ? AND batch <> '' AND status = 'running'", (batch_id,)
    ).fetchall()
    db.execute(
        "UPDATE items SET status = 'cancelled', ended = ?, body = NULL, bytes = ?, error_code = 'cancelled', "
        "error_message = 'its batch was cancelled' WHERE batch = ? AND batch <> '' AND ended IS NULL",
        (now, ROW_BYTES, batch_id),
    )
    batch = _reached(batch, "cancelling", now)
    _save(db, batch, None)
    return batch, [item_id for (item_id,) in running]


def finish(
    db: sqlite3.Connection, batch_id: str, new_id: Callable[[], str], keep_s: float, now: float
) -> BatchRecord | None:
    """Write the files of a batch of which nothing is left to do, and end it; None where it is not so."""
    batch = find(db, batch_id, None)
    if batch is None or batch.status not in ("in_progress", "cancelling") or unfinished(db, batch_id):
        return None
    by_status = _by_status(db, batch_id)
    good = by_status.get("done", 0)
    written: dict[str, str] = {}
    for field, wanted in (("output_file", "= 'done'"), ("error_file", "<> 'done'")):
        if (field == "output_file" and not good) or (field == "error_file" and good == batch.total):
            continue
        record = FileRecord(
            id=new_id(),
            tenant=batch.tenant,
            filename=f"{batch.id}_{field.partition('_')[0]}.jsonl",
            purpose="batch_output",
            bytes=0,
            created=now,
            expires=now + keep_s,
        )
        written[field] = files.write(db, record, _parts(_results(db, batch_id, wanted))).id
    status: BatchStatus = "completed"
    if batch.status == "cancelling":
        status = "cancelled"
    elif by_status.get("expired"):
        status = "expired"
    batch = _reached(batch, "finalizing", now, completed=good, failed=batch.total - good, **written)
    batch = _reached(batch, status, now)
    db.execute("DELETE FROM items WHERE batch = ? AND batch <> ''", (batch_id,))
    _save(db, batch, now)
    return batch


def _results(db: sqlite3.Connection, batch_id: str, wanted: str) -> Iterator[bytes]:
    rows = db.execute(
        "SELECT id, custom_id, response_status, response_headers, response_body, error_code, error_message, "
        f"status FROM items WHERE batch = ? AND batch <> '' AND status {wanted} ORDER BY line",
        (batch_id,),
    )
    for item_id, custom_id, status, headers, body, code, message, ended in rows:
        response = None
        if status is not None and ended in ("done", "failed"):
            sent = dict(msgspec.json.decode(headers, type=tuple[Header, ...]))
            response = (status, sent.get("semaforo-request-id", ""), bytes(body))
        error = (f"batch_{code}" if code in ("expired", "cancelled") else code or "internal", message or "")
        yield result_line(item_id, custom_id, response, error)


def _parts(lines: Iterator[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    length = 0
    for line in lines:
        gathered.append(line)
        length += len(line)
        if length >= files.PART_BYTES:
            yield b"".join(gathered)
            gathered, length = [], 0
    if gathered:
        yield b"".join(gathered)


def _reached(batch: BatchRecord, status: BatchStatus, now: float, **changed: Any) -> BatchRecord:
    return msgspec.structs.replace(batch, status=status, at={**batch.at, status: now}, **changed)


def _save(db: sqlite3.Connection, batch: BatchRecord, ended: float | None) -> None:
    db.execute(
        "UPDATE batches SET status = ?, ended = ?, record = ? WHERE id = ?",
        (batch.status, ended, msgspec.json.encode(batch), batch.id),
    )


def _counted(db: sqlite3.Connection, batch: BatchRecord) -> BatchRecord:
    if batch.status not in ("in_progress", "cancelling"):
        return batch
    by_status = _by_status(db, batch.id)
    waiting = by_status.get("queued", 0) + by_status.get("running", 0)
    good = by_status.get("done", 0)
    return msgspec.structs.replace(batch, completed=good, failed=batch.total - good - waiting)


def _by_status(db: sqlite3.Connection, batch_id: str) -> dict[str, int]:
    query = "SELECT status, count(*) FROM items WHERE batch = ? AND batch <> '' GROUP BY status"
    return dict(db.execute(query, (batch_id,)).fetchall())
