"""What is known of variants, and every answer with what it was said to be worth, in one SQLite database.

Rules this module keeps:

1. What is known of a variant counts only for the artefact it was learned of: `key` tells artefacts apart.
2. Answers are written in batches, off the loop; a crash loses at most what the last second brought.
3. The oldest answers go first, once there are more than `most`.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from semaforo.core.events import WEAK
from semaforo.core.state import History
from semaforo.errors import ConfigError

VERSION = 1
APPLICATION_ID = 0x53454D48
_VARIANTS = """
CREATE TABLE variants (
    variant TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    saved REAL NOT NULL,
    history BLOB NOT NULL
) WITHOUT ROWID
"""
_ANSWERS = """
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    tenant TEXT NOT NULL,
    task TEXT NOT NULL,
    variant TEXT NOT NULL,
    propensity REAL NOT NULL,
    total_s REAL NOT NULL,
    cost REAL NOT NULL,
    features BLOB NOT NULL,
    score REAL,
    source TEXT NOT NULL
)
"""
_ACCOUNTS = """
CREATE TABLE accounts (
    name TEXT PRIMARY KEY,
    since REAL NOT NULL,
    spent REAL NOT NULL
) WITHOUT ROWID
"""
_NOTES = """
CREATE TABLE IF NOT EXISTS notes (
    name TEXT PRIMARY KEY,
    note BLOB NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "id, at, tenant, task, variant, propensity, total_s, cost, features, score, source"


class Served(msgspec.Struct, frozen=True, gc=False):
    """One answer.

    Attributes:
        id: Id of the request.
        at: Seconds since 1970.
        tenant, task, variant: Whose it was, what was asked, and who answered.
        propensity: Probability with which the router picked this variant.
        total_s: Seconds from arrival to answer.
        cost: US dollars.
        features: Signals of the request by name, where they were looked at.
        score: What it was said to be worth, 0…1; None = nothing was said.
        source: Who said so.
    """

    id: str
    at: float
    tenant: str
    task: str
    variant: str
    propensity: float = 1.0
    total_s: float = 0.0
    cost: float = 0.0
    features: dict[str, float] = {}
    score: float | None = None
    source: str = ""


class HistoryStore:
    """One database, for one fleet at a time.

    Args:
        path: The file; made where it is not there.
        most: Answers to keep.

    Raises:
        ConfigError: The file is another program's, of a later version, in use, or cannot be written.
    """

    def __init__(self, path: Path, *, most: int = 1_000_000) -> None:
        self.path = path
        self._most = most
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._held = _hold(path)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
            # A writer holds its connection for as long as the disk takes; who asks does not wait for that.
            self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ConfigError(f"cannot keep the history in {path}: {error}") from None
        except OSError as error:
            raise ConfigError(f"cannot keep the history in {path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._reader.close()
            self._db.close()
            self._held.close()

    def remembered(self, keys: Mapping[str, str]) -> dict[str, History]:
        """Return what is known of variants that are the same artefacts as then.

        Args:
            keys: Variant → key of its artefact now.
        """
        with self._lock:
            rows = self._db.execute("SELECT variant, key, history FROM variants").fetchall()
        found: dict[str, History] = {}
        for variant, key, blob in rows:
            if keys.get(variant) == key:
                found[variant] = msgspec.msgpack.decode(blob, type=History)
        return found

    def accounts(self) -> dict[str, tuple[float, float]]:
        """Return by account of a budget the start of its window (seconds since 1970) and what was spent in it."""
        with self._lock:
            rows = self._db.execute("SELECT name, since, spent FROM accounts").fetchall()
        return {name: (since, spent) for name, since, spent in rows}

    def notes(self) -> dict[str, bytes]:
        """Return what was noted, by name."""
        with self._lock:
            return dict(self._db.execute("SELECT name, note FROM notes").fetchall())

    def save(
        self,
        known: Mapping[str, History],
        keys: Mapping[str, str],
        answers: Sequence[Served] = (),
        judged: Mapping[str, tuple[float, str]] | None = None,
        accounts: Mapping[str, tuple[float, float]] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write what is known of variants, new answers, and what older ones were said to be worth, at once.

        Args:
            known: By variant.
            keys: Variant → key of its artefact.
            answers: New ones.
            judged: Request → (score, source).
            accounts: Account of a budget → (start of its window in seconds since 1970, US dollars spent in it).
            notes: What parts of the fleet want kept, by name.
        """
        now = time.time()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT INTO variants VALUES (?, ?, ?, ?) ON CONFLICT (variant) DO UPDATE SET"
                    " key = excluded.key, saved = excluded.saved, history = excluded.history",
                    [
                        (name, keys[name], now, msgspec.msgpack.encode(h))
                        for name, h in known.items()
                        if name in keys
                    ],
                )
                self._db.executemany(
                    f"INSERT OR IGNORE INTO answers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (a.id, a.at, a.tenant, a.task, a.variant, a.propensity, a.total_s, a.cost,
                         msgspec.msgpack.encode(a.features), a.score, a.source)
                        for a in answers
                    ],
                )  # fmt: skip
                self._db.executemany(
                    "UPDATE answers SET score = ?, source = ? WHERE id = ?",
                    [(score, source, name) for name, (score, source) in (judged or {}).items()],
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)",
                    [(name, since, spent) for name, (since, spent) in (accounts or {}).items()],
                )
                self._db.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", (notes or {}).items())
                self._db.execute(
                    "DELETE FROM answers WHERE seq <= (SELECT coalesce(max(seq), 0) FROM answers) - ?",
                    (self._most,),
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def served(self, request_id: str) -> tuple[str, str, bool] | None:
        """Return (variant, tenant, judged already by who may judge once) of an answer, or None."""
        row = self._reader.execute(
            "SELECT variant, tenant, score, source FROM answers WHERE id = ?", (request_id,)
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2] is not None and row[3] not in WEAK)

    def features(self, request_id: str) -> dict[str, float]:
        """Return the signals of an answered request by name; empty where there are none."""
        row = self._reader.execute("SELECT features FROM answers WHERE id = ?", (request_id,)).fetchone()
        return {} if row is None else msgspec.msgpack.decode(row[0], type=dict[str, float])

    def answers(self, *, task: str = "", judged: bool = False) -> list[Served]:
        """Return answers in order, of one task or of all; with `judged` only those that something was said of."""
        where = ["1"] + ["task = :task"] * bool(task) + ["score IS NOT NULL"] * judged
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM answers WHERE {' AND '.join(where)} ORDER BY seq",
                {"task": task},
            ).fetchall()
        return [_served(row) for row in rows]

    def _prepare(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        owner = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        if version == 0 and owner == 0:
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise ConfigError(
                    f"{self.path} is another program's database: name another file in `history`"
                )
            self._db.execute("BEGIN IMMEDIATE")
            for table in (_VARIANTS, _ANSWERS, _ACCOUNTS):
                self._db.execute(table)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("COMMIT")
        elif owner != APPLICATION_ID:
            raise ConfigError(f"{self.path} is another program's database: name another file in `history`")
        elif version != VERSION:
            raise ConfigError(
                f"{self.path} was written by a later version (its format is {version}, this one's is {VERSION}): "
                "name another file in `history`"
            )
        self._db.execute(_NOTES)


def read_answers(path: Path) -> list[Served]:
    """Return the answers of a history that something was said of, though a fleet may be writing it.

    Raises:
        ConfigError: It cannot be read, or is no history.
    """
    rows = _read(path, f"SELECT {_COLUMNS} FROM answers WHERE score IS NOT NULL ORDER BY seq")
    return [_served(row) for row in rows]


def read_lately(path: Path, most: int) -> list[Served]:
    """Return the latest answers of a history in order, though a fleet may be writing it.

    Raises:
        ConfigError: It cannot be read, or is no history.
    """
    rows = _read(path, f"SELECT {_COLUMNS} FROM answers ORDER BY seq DESC LIMIT {int(most)}")
    return [_served(row) for row in reversed(rows)]


def read_known(path: Path) -> dict[str, History]:
    """Return what a history knows of variants by id, though a fleet may be writing it.

    Raises:
        ConfigError: It cannot be read, or is no history.
    """
    rows = _read(path, "SELECT variant, history FROM variants")
    try:
        return {variant: msgspec.msgpack.decode(blob, type=History) for variant, blob in rows}
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} cannot be read as a history: {error}") from None


def _read(path: Path, query: str) -> list[Any]:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"{path} cannot be read as a history: {error}") from None


def _served(row: Sequence[Any]) -> Served:
    values = dict(zip(Served.__struct_fields__, row, strict=True))
    return Served(**{**values, "features": msgspec.msgpack.decode(values["features"])})


def in_use(path: Path) -> bool:
    """Tell whether a fleet keeps its history in a database now."""
    try:
        if path.exists():
            _hold(path).close()
    except ConfigError:
        return True
    except OSError:
        # It cannot be written at all, as whoever opens it will say.
        return False
    return False


def _hold(path: Path) -> FileIO:
    """Lock the database for one fleet until the returned file is closed."""
    file = path.with_name(path.name + ".lock").open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"the history {path} is in use: stop the fleet that writes it, or name another file in `history`"
        ) from None
    return file
