"""The tables, and how an older database becomes one of this version.

`tally` counts items by status and bytes over all tables. Triggers keep it, so it is right in every transaction.
"""

from __future__ import annotations

import sqlite3

from semaforo.errors import ConfigError
from semaforo.repository.deferred.records import STATUSES

VERSION = 1
APPLICATION_ID = 0x53454D41
ROW_BYTES = 512
"""What a row counts for beside its payload."""

_TABLES = """
CREATE TABLE items (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    batch TEXT NOT NULL,
    line INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    lane TEXT NOT NULL,
    target TEXT NOT NULL,
    status TEXT NOT NULL,
    path TEXT NOT NULL,
    headers BLOB NOT NULL,
    body BLOB,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    expires REAL NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    error_code TEXT,
    error_message TEXT,
    response_status INTEGER,
    response_headers BLOB,
    response_body BLOB,
    webhook TEXT NOT NULL,
    hook_due REAL,
    hook_tries INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX items_by_key ON items (tenant, key) WHERE key <> '';
CREATE INDEX items_queued ON items (seq) WHERE status = 'queued';
CREATE INDEX items_by_lane ON items (lane, seq) WHERE status = 'queued';
CREATE INDEX items_running ON items (seq) WHERE status = 'running';
CREATE INDEX items_expiring ON items (expires) WHERE ended IS NULL;
CREATE INDEX items_ended ON items (ended) WHERE ended IS NOT NULL;
CREATE INDEX items_hooks ON items (hook_due) WHERE hook_due IS NOT NULL;
CREATE INDEX items_of_batch ON items (batch, status) WHERE batch <> '';
CREATE INDEX items_of_tenant ON items (tenant, seq) WHERE batch = '';
CREATE TABLE files (
    id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL
);
CREATE TABLE parts (
    file TEXT NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (file, number)
) WITHOUT ROWID;
CREATE TABLE batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    status TEXT NOT NULL,
    key TEXT NOT NULL,
    expires REAL NOT NULL,
    ended REAL,
    record BLOB NOT NULL
);
CREATE UNIQUE INDEX batches_by_key ON batches (tenant, key) WHERE key <> '';
CREATE TABLE tally (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER items_come AFTER INSERT ON items BEGIN
    UPDATE tally SET n = n + 1 WHERE name = NEW.status;
    UPDATE tally SET n = n + NEW.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER items_change AFTER UPDATE OF status, bytes ON items BEGIN
    UPDATE tally SET n = n - 1 WHERE name = OLD.status;
    UPDATE tally SET n = n + 1 WHERE name = NEW.status;
    UPDATE tally SET n = n + NEW.bytes - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER items_go AFTER DELETE ON items BEGIN
    UPDATE tally SET n = n - 1 WHERE name = OLD.status;
    UPDATE tally SET n = n - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER files_come AFTER INSERT ON files BEGIN
    UPDATE tally SET n = n + NEW.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER files_go AFTER DELETE ON files BEGIN
    UPDATE tally SET n = n - OLD.bytes WHERE name = 'bytes';
    DELETE FROM parts WHERE file = OLD.id;
END;
"""


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Make the tables of a new database, and make sure that an older one is ours.

    Raises:
        ConfigError: It is another program's, or of a later version.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    if version == 0 and owner == 0:
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables:
            raise ConfigError(f"{path} is another program's database: name another file in deferred.path")
        db.execute("BEGIN IMMEDIATE")
        for statement in _statements():
            db.execute(statement)
        db.executemany("INSERT INTO tally VALUES (?, 0)", [(name,) for name in (*STATUSES, "bytes")])
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    elif owner != APPLICATION_ID:
        raise ConfigError(f"{path} is another program's database: name another file in deferred.path")
    elif version != VERSION:
        raise ConfigError(
            f"{path} was written by a later version (its format is {version}, this one's is {VERSION}): "
            "serve it with that version, or name another file in deferred.path"
        )


def _statements() -> list[str]:
    found: list[str] = []
    text = ""
    for line in _TABLES.splitlines():
        text += line + "\n"
        if sqlite3.complete_statement(text):
            found.append(text.strip())
            text = ""
    return found
