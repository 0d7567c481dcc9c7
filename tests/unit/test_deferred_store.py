"""The database of deferred work: what is on disk, what is bounded, who is next, and that nothing ends twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semaforo.errors import ConfigError, Conflict, InvalidRequest, NotReady
from semaforo.repository.deferred import (
    BatchRecord,
    Bounds,
    FileRecord,
    NewItem,
    Outcome,
    QueueFull,
    StorageFull,
    Store,
    batches,
    files,
    items,
)
from semaforo.repository.deferred.schema import APPLICATION_ID
from semaforo.repository.deferred.sweep import hook_told, hooks_due, sweep
from semaforo.repository.deferred.turns import Turns

DONE = Outcome(status="done", response=(200, (("content-type", "application/json"),), b"[1]"))


def new(name: str, **fields: Any) -> NewItem:
    given = {
        "tenant": "",
        "path": "/v2/models/m/infer",
        "headers": (),
        "body": b"{}",
        "target": "m",
        "expires": 1e6,
    }
    return NewItem(id=name, **(given | fields))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "deferred.db")
    store.open()
    yield store
    store.close()


def do(store: Store, work: Any, *args: Any, **more: Any) -> Any:
    return store.submit(work, *args, **more).result(10)


def admit(store: Store, name: str, bounds: Bounds | None = None, now: float = 1.0, **fields: Any) -> Any:
    return do(store, items.admit, new(name, **fields), bounds or Bounds(), now)


def take(
    store: Store, most: int = 100, now: float = 2.0, without: Any = (), turns: Turns | None = None
) -> list[str]:
    taken, _ = do(store, (turns or Turns()).take, now, most, without)
    return [work.id for work in taken]


def test_what_was_admitted_outlives_a_process_that_ends_without_warning(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from semaforo.repository.deferred import *\n"
        "from semaforo.repository.deferred import items\n"
        "store = Store(pathlib.Path(sys.argv[1])); store.open()\n"
        "new = NewItem(id='a', tenant='t', path='/p', headers=(('x', 'y'),), body=b'\\0\\xff', target='m',\n"
        "    expires=9e9)\n"
        "store.submit(items.admit, new, Bounds(), 1.0).result()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "deferred.db"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=30).returncode == -9
    store = Store(path)
    store.open()
    (work,), _ = do(store, Turns().take, 2.0, 5, ())
    assert (work.id, work.tenant, work.headers, work.body) == ("a", "t", (("x", "y"),), b"\0\xff")
    store.close()


def test_a_request_ends_once_and_is_taken_once(store: Store) -> None:
    admit(store, "a")
    assert take(store) == ["a"]
    assert take(store) == []
    do(store, items.settle, "a", DONE, 3.0)
    do(store, items.settle, "a", Outcome(status="failed", error=("x", "y")), 4.0)
    do(store, items.give_back, ["a"], 0.0)
    item, running = do(store, items.cancel, "a", None, 5.0)
    assert (item.status, item.ended, item.error, running) == ("done", 3.0, None, False)
    _, response = do(store, items.result, "a", None)
    assert response == DONE.response
    assert take(store) == []


def test_a_cancelled_request_keeps_no_result(store: Store) -> None:
    admit(store, "a")
    take(store)
    item, running = do(store, items.cancel, "a", None, 3.0)
    assert (item.status, running) == ("cancelled", True)
    do(store, items.settle, "a", DONE, 4.0)
    item, response = do(store, items.result, "a", None)
    assert (item.status, response) == ("cancelled", None)


def test_after_a_crash_what_ran_is_queued_again_and_counted(store: Store) -> None:
    admit(store, "a")
    admit(store, "b")
    assert take(store, 1) == ["a"]
    assert do(store, items.recover) == 1
    (first, second), _ = do(store, Turns().take, 2.0, 5, ())
    assert (first.id, first.crashes, first.attempts) == ("a", 1, 2)
    assert (second.id, second.crashes, second.attempts) == ("b", 0, 1)


def test_tenants_and_their_batches_take_turns(store: Store) -> None:
    for n in range(4):
        admit(store, f"a{n}", tenant="acme", batch="b1")
    for n in range(4):
        admit(store, f"c{n}", tenant="acme", batch="b2")
    admit(store, "single", tenant="acme")
    for n in range(2):
        admit(store, f"z{n}", tenant="zeta")
    turns = Turns()
    order = [name for _ in range(11) for name in take(store, 1, turns=turns)]
    assert order == ["single", "z0", "a0", "z1", "c0", "a1", "c1", "a2", "c2", "a3", "c3"]


def test_what_is_held_back_is_left_alone_until_it_is_due(store: Store) -> None:
    admit(store, "a")
    admit(store, "b", target="n")
    admit(store, "late", expires=1.5)
    assert take(store, 1) == ["a"]
    do(store, items.give_back, ["a"], 7.0)
    taken, due = do(store, Turns().take, 2.0, 5, {"n"})
    assert (taken, due) == ([], 7.0)
    assert take(store, now=8.0) == ["a", "b"]


def test_the_bounds_of_the_queue_and_of_bytes_are_kept(store: Store) -> None:
    admit(store, "a", Bounds(items=2))
    admit(store, "b", Bounds(items=2))
    with pytest.raises(QueueFull, match=r"deferred\.max") as full:
        admit(store, "c", Bounds(items=2))
    assert (full.value.status, full.value.retry_after_s) == (429, 5.0)
    take(store, 1)
    do(store, items.settle, "a", DONE, 3.0)
    admit(store, "c", Bounds(items=2))
    with pytest.raises(StorageFull, match=r"deferred\.bytes"):
        admit(store, "d", Bounds(bytes=10_000), body=b"x" * 9_000)
    tally = do(store, items.counts)
    assert {name: n for name, n in tally.items() if n and name != "bytes"} == {"queued": 2, "done": 1}
    do(store, sweep, 1e9, 1.0)
    do(store, sweep, 2e9, 1.0)
    assert set(do(store, items.counts).values()) == {0}


def test_a_full_disk_is_an_error_of_its_own_and_passes(store: Store) -> None:
    admit(store, "a")
    pages = do(store, lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    do(store, lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(StorageFull, match="disk") as full:
        admit(store, "b", body=b"x" * 100_000)
    assert full.value.status == 507
    do(store, lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    admit(store, "b", body=b"x" * 100_000)
    assert take(store) == ["a", "b"]


def test_work_that_fails_leaves_what_shares_its_transaction(store: Store) -> None:
    def wrong(db: sqlite3.Connection) -> None:
        items.insert(db, new("never"), 1.0)
        raise InvalidRequest("no")

    futures = [store.submit(items.admit, new("a"), Bounds(), 1.0), store.submit(wrong)]
    futures.append(store.submit(items.admit, new("b"), Bounds(), 1.0))
    assert futures[0].result(10)[0].id == "a"
    with pytest.raises(InvalidRequest):
        futures[1].result(10)
    assert futures[2].result(10)[0].id == "b"
    assert take(store) == ["a", "b"]


def test_a_key_stands_for_one_request_of_its_tenant(store: Store) -> None:
    first, replayed = admit(store, "a", key="k", digest=b"1", tenant="t")
    assert not replayed
    again, replayed = admit(store, "b", key="k", digest=b"1", tenant="t")
    assert (again.id, replayed) == (first.id, True)
    with pytest.raises(Conflict):
        admit(store, "c", key="k", digest=b"2", tenant="t")
    other, _ = admit(store, "d", key="k", digest=b"2", tenant="u")
    assert other.id == "d"
    assert do(store, items.find, "a", "u") is None


def test_time_ends_what_waits_and_drops_what_was_kept(store: Store) -> None:
    admit(store, "a", expires=10.0)
    admit(store, "b", expires=20.0, webhook="https://h")
    admit(store, "soon", expires=5.0)
    assert do(store, sweep, 9.0, 100.0).expired == ["soon"]
    swept = do(store, sweep, 10.0, 100.0)
    assert (swept.expired, swept.next_expiry) == (["a"], 20.0)
    assert do(store, sweep, 30.0, 100.0).expired == ["b"]
    (hook,), _ = do(store, hooks_due, 30.0, 5)
    assert (hook.id, hook.status, hook.error) == (
        "b",
        "expired",
        ("expired", "it expired before it could be run"),
    )
    do(store, hook_told, "b", 40.0)
    assert do(store, hooks_due, 30.0, 5) == ([], 40.0)
    do(store, hook_told, "b", None)
    assert do(store, hooks_due, 90.0, 5) == ([], None)
    do(store, sweep, 110.0, 100.0)
    assert do(store, items.find, "a", None) is None
    assert do(store, items.find, "b", None) is not None


def test_a_list_goes_on_where_its_last_page_ended(store: Store) -> None:
    for n in range(5):
        admit(store, f"a{n}", tenant="t" if n % 2 else "")
    admit(store, "of-batch", batch="b")
    assert [i.id for i in do(store, items.listed, None, (), "", 2)] == ["a4", "a3"]
    assert [i.id for i in do(store, items.listed, None, (), "a3", 9)] == ["a2", "a1", "a0"]
    assert [i.id for i in do(store, items.listed, "t", ("queued",), "", 9)] == ["a3", "a1"]
    assert do(store, items.listed, None, ("done", "failed"), "", 9) == []


def batch(name: str = "b", **fields: Any) -> BatchRecord:
    given: dict[str, Any] = {
        "tenant": "", "endpoint": "/v1/embeddings", "input_file": "f", "window": "24h", "metadata": None,
        "headers": (), "status": "validating", "created": 1.0, "expires": 100.0,
    }  # fmt: skip
    return BatchRecord(id=name, **(given | fields))


def test_a_batch_ends_with_its_files_in_one_step(store: Store) -> None:
    do(store, batches.create, batch())
    lines = [new(f"b_{n}", batch="b", line=n, custom_id=f"c{n}") for n in (1, 2, 3)]
    with pytest.raises(QueueFull):
        do(store, batches.expect, "b", 3, 9, Bounds(items=2))
    do(store, batches.expect, "b", 3, 9, Bounds())
    assert do(store, batches.add, "b", lines[:2], 2.0)
    assert do(store, batches.finish, "b", lambda: "early", 10.0, 2.0) is None
    assert do(store, batches.to_validate) == ["b"]
    assert do(store, batches.add, "b", lines, 2.0)
    do(store, batches.begin, "b", 2.0)
    assert take(store) == ["b_1", "b_2", "b_3"]
    assert do(store, items.settle, "b_2", DONE, 3.0) == ""
    wrong = Outcome(status="failed", error=("bad", "no"), response=(400, (), b'{"error": {}}'))
    assert do(store, items.settle, "b_1", wrong, 3.0) == ""
    assert do(store, batches.finish, "b", lambda: "file-x", 10.0, 4.0) is None
    shown = do(store, batches.find, "b", None)
    assert (shown.total, shown.completed, shown.failed) == (3, 1, 1)
    assert do(store, items.settle, "b_3", DONE, 3.0) == "b"
    assert do(store, batches.to_finish) == ["b"]
    names = iter(("file-out", "file-err"))
    ended = do(store, batches.finish, "b", lambda: next(names), 10.0, 4.0)
    assert (ended.status, ended.completed, ended.failed) == ("completed", 2, 1)
    good, bad = do(store, files.part, "file-out", 0), do(store, files.part, "file-err", 0)
    assert [line.count(b'"custom_id":"c') for line in good.splitlines()] == [1, 1]
    assert b'"c2"' in good.splitlines()[0]
    assert b'"status_code":400' in bad
    assert do(store, batches.finish, "b", lambda: "again", 10.0, 5.0) is None
    assert take(store) == []
    tally = do(store, items.counts)
    assert tally.pop("bytes") == len(good) + len(bad)
    assert set(tally.values()) == {0}


def test_a_cancelled_batch_keeps_what_was_done(store: Store) -> None:
    do(store, batches.create, batch())
    lines = [new(f"b_{n}", batch="b", line=n, custom_id=f"c{n}") for n in (1, 2, 3)]
    do(store, batches.expect, "b", 3, 9, Bounds())
    do(store, batches.add, "b", lines, 2.0)
    take(store, 2)
    do(store, items.settle, "b_1", DONE, 3.0)
    cancelled, running = do(store, batches.cancel, "b", None, 4.0)
    assert not do(store, batches.add, "b", lines, 4.0)
    do(store, batches.begin, "b", 4.0)
    assert (cancelled.status, running) == ("cancelling", ["b_2"])
    ended = do(store, batches.finish, "b", iter(("o", "e")).__next__, 10.0, 5.0)
    assert (ended.status, ended.completed, ended.failed) == ("cancelled", 1, 2)
    assert do(store, files.part, "e", 0).count(b'"batch_cancelled"') == 2
    do(store, batches.create, batch("x", key="k", digest=b"1"))
    with pytest.raises(Conflict):
        do(store, batches.create, batch("y", key="k", digest=b"2"))


def test_a_large_file_is_kept_in_parts_and_counted(store: Store) -> None:
    content = bytes(range(256)) * 10_000
    record = FileRecord(id="f", tenant="", filename="x", purpose="batch", bytes=0, created=1.0, expires=9.0)
    do(store, files.put, record, content, Bounds())
    parts = [do(store, files.part, "f", n) for n in range(4)]
    assert parts[3] is None
    assert b"".join(parts[:3]) == content
    with pytest.raises(StorageFull):
        do(store, files.put, record, content, Bounds(bytes=3_000_000))
    do(store, sweep, 9.0, 1.0)
    assert do(store, files.find, "f", None) is None
    assert do(store, files.part, "f", 0) is None
    assert do(store, items.counts)["bytes"] == 0


def test_a_database_has_one_server(store: Store) -> None:
    with pytest.raises(ConfigError, match="in use by another server"):
        Store(store.path).open()
    admit(store, "a")
    store.close()
    with pytest.raises(NotReady):
        store.submit(items.counts)
    store.open()
    assert take(store) == ["a"]


def test_what_is_no_database_of_ours_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("this is no database, and much longer than a header of one would have to be " * 20)
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(text).open()
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(ConfigError, match="another program's"):
        Store(foreign).open()
    later = tmp_path / "later.db"
    with sqlite3.connect(later) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="later version"):
        Store(later).open()
    with pytest.raises(ConfigError, match="no folder"):
        Store(tmp_path / "missing" / "x.db").open()
    with pytest.raises(ConfigError):
        Store(tmp_path).open()
