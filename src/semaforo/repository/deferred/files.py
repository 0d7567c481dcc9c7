"""Files in the database: kept in parts, so that a large one is never held whole to be sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from semaforo.repository.deferred.items import make_room
from semaforo.repository.deferred.records import FileRecord
from semaforo.repository.deferred.schema import ROW_BYTES
from semaforo.repository.deferred.store import Bounds

PART_BYTES = 1 << 20
_COLUMNS = "id, tenant, filename, purpose, bytes, created, expires"


def put(db: sqlite3.Connection, file: FileRecord, content: bytes, bounds: Bounds) -> None:
    """Store a file.

    Raises:
        StorageFull: The bound of bytes is reached.
    """
    make_room(db, bounds, 0, len(content) + ROW_BYTES)
    parts = (content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES))
    write(db, file, parts)


def write(db: sqlite3.Connection, file: FileRecord, parts: Iterable[bytes]) -> FileRecord:
    """Store a file whose size is that of its parts."""
    total = 0
    for number, part in enumerate(parts):
        db.execute("INSERT INTO parts VALUES (?, ?, ?)", (file.id, number, part))
        total += len(part)
    db.execute(
        "INSERT INTO files (id, seq, tenant, filename, purpose, bytes, created, expires) "
        "VALUES (?, (SELECT coalesce(max(seq), 0) + 1 FROM files), ?, ?, ?, ?, ?, ?)",
        (file.id, file.tenant, file.filename, file.purpose, total, file.created, file.expires),
    )
    return FileRecord(
        id=file.id,
        tenant=file.tenant,
        filename=file.filename,
        purpose=file.purpose,
        bytes=total,
        created=file.created,
        expires=file.expires,
    )


def find(db: sqlite3.Connection, file_id: str, tenant: str | None) -> FileRecord | None:
    """Return a file; None where there is none, or none of this tenant."""
    row = db.execute(f"SELECT {_COLUMNS} FROM files WHERE id = ?", (file_id,)).fetchone()
    return None if row is None or (tenant is not None and row[1] != tenant) else _file(row)


def part(db: sqlite3.Connection, file_id: str, number: int) -> bytes | None:
    """Return a part of a file; None behind the last."""
    query = "SELECT content FROM parts WHERE file = ? AND number = ?"
    row = db.execute(query, (file_id, number)).fetchone()
    return None if row is None else bytes(row[0])


def listed(
    db: sqlite3.Connection, tenant: str | None, purpose: str, after: str, most: int, newest_first: bool
) -> list[FileRecord]:
    """Return files that come after one of them."""
    where, values = ["1"], list[Any]()
    if tenant is not None:
        where.append("tenant = ?")
        values.append(tenant)
    if purpose:
        where.append("purpose = ?")
        values.append(purpose)
    if after:
        where.append(f"seq {'<' if newest_first else '>'} (SELECT seq FROM files WHERE id = ?)")
        values.append(after)
    order = "DESC" if newest_first else "ASC"
    query = f"SELECT {_COLUMNS} FROM files WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?"
    return [_file(row) for row in db.execute(query, (*values, most))]


def drop(db: sqlite3.Connection, file_id: str) -> None:
    """Delete a file."""
    db.execute("DELETE FROM files WHERE id = ?", (file_id,))


def _file(row: Sequence[Any]) -> FileRecord:
    return FileRecord(
        id=row[0],
        tenant=row[1],
        filename=row[2],
        purpose=row[3],
        bytes=row[4],
        created=row[5],
        expires=row[6],
    )
