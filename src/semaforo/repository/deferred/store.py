"""The one thread that writes, and what it promises.

Rules this module keeps:

1. What `run` has answered is on disk: every transaction ends in an fsync (WAL, synchronous=FULL).
2. Pieces of work that wait at the same time share a transaction, each in a savepoint of its own: one that fails
   leaves the others as they are.
3. One server uses a database: it is locked while it is open, and the lock goes with the process.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from semaforo.errors import ConfigError, NotReady, Refused, SemaforoError
from semaforo.repository.deferred.schema import prepare

T = TypeVar("T")
P = ParamSpec("P")
_Piece = tuple[Callable[[sqlite3.Connection], object], "Future[object]"]
_MOST_TOGETHER = 256


class QueueFull(Refused):
    """As many requests wait as the operator allows."""

    code = "queue_full"
    status = 429


class StorageFull(SemaforoError):
    """The bound on stored bytes is reached, or the disk is full."""

    code = "storage_full"
    status = 507


class Bounds(msgspec.Struct, frozen=True):
    """How much may be kept.

    Attributes:
        items: Requests that wait or run.
        bytes: Bytes of requests, results and files.
        keep_s: Seconds that what has ended is kept for.
    """

    items: int = 100_000
    bytes: int = 10_000_000_000
    keep_s: float = 7 * 86_400.0


class Store:
    """A database of deferred work, from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Open the database, which is made where there is none.

        Raises:
            ConfigError: The file cannot be used; the message says why and what to do.
        """
        opened: Future[None] = Future()
        thread = threading.Thread(target=self._work, args=(opened,), name="deferred", daemon=True)
        thread.start()
        opened.result()
        self._thread = thread

    def submit(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Have a piece of work done in a transaction; its result is there once that is on disk."""
        if self._thread is None:
            raise NotReady(f"{self.path} is not open: the server is starting or stopping", retry_after_s=1.0)
        future: Future[T] = Future()
        self._pieces.put((lambda db: work(db, *args, **kwargs), future))  # type: ignore[arg-type]  # T is object
        return future

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await a piece of work; it is done even where the wait is cancelled.

        Raises:
            StorageFull: The disk is full.
            SemaforoError: The database cannot be read or written; and whatever the work raises.
        """
        return await asyncio.shield(asyncio.wrap_future(self.submit(work, *args, **kwargs)))

    def close(self) -> None:
        """Finish what was submitted, then close."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._pieces.put(None)
            thread.join()

    def _work(self, opened: Future[None]) -> None:
        try:
            db = _open(self.path)
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        more = True
        while more:
            pieces: list[_Piece] = []
            piece = self._pieces.get()
            while piece is not None:
                if piece[1].set_running_or_notify_cancel():
                    pieces.append(piece)
                if len(pieces) >= _MOST_TOGETHER:
                    break
                try:
                    piece = self._pieces.get_nowait()
                except queue.Empty:
                    break
            more = piece is not None
            if pieces:
                self._together(db, pieces)
        db.close()

    def _together(self, db: sqlite3.Connection, pieces: list[_Piece]) -> None:
        ended: list[tuple[Future[object], object]] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            for work, future in pieces:
                db.execute("SAVEPOINT piece")
                try:
                    result = work(db)
                except Exception as error:
                    if not db.in_transaction:  # SQLite itself has rolled everything back
                        raise
                    db.execute("ROLLBACK TO piece")
                    future.set_exception(self._known(error))
                else:
                    ended.append((future, result))
                db.execute("RELEASE piece")
            db.execute("COMMIT")
        except Exception as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            for _, future in pieces:
                if not future.done():
                    future.set_exception(self._known(error))
            return
        for future, result in ended:
            future.set_result(result)

    def _known(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return StorageFull(f"the disk of {self.path} is full", retry_after_s=60.0)
        return SemaforoError(f"{self.path} cannot be read or written: {error}")


def _open(path: Path) -> sqlite3.Connection:
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder: make it, or name another in deferred.path")
    try:
        # Not for others to read: it holds what tenants sent.
        path.touch(mode=0o600)
        db = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
        prepare(db, str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise ConfigError(
                f"{path} is in use by another server: stop that one, or name another file in deferred.path"
            ) from None
        raise ConfigError(f"{path} cannot be used: {error}. Name another file in deferred.path") from None
    return db
