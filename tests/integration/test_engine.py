"""The engine with real models: how often it wakes up, and what becomes of its journal."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

import numpy as np
import pytest
import uvloop

from semaforo.api import AsyncFleet
from semaforo.build import Blueprint, blueprint, engine_for
from semaforo.core.journal import HEADER, Decision, decode
from semaforo.entities import Contract, Ref, Request
from semaforo.errors import JournalError
from semaforo.live.answer import Answer
from semaforo.live.engine import Engine
from semaforo.sim.replay import replay
from semaforo.wire.payload import Tensors

FLEET = """\
tasks:
  nap: {inputs: {seconds: fp32}, outputs: {slept: fp32}}
models:
  napper: {task: nap, python: "naps.py:nap", isolation: thread, max_batch: 1}
journal: journal.bin
"""
NAPS = """\
import time

def nap(seconds):
    time.sleep(float(seconds.max()) if seconds.max() < 1 else 0)
    return seconds
"""


def written(folder: Path) -> Blueprint:
    """Write the fleet and read it."""
    (folder / "naps.py").write_text(NAPS)
    (folder / "fleet.yaml").write_text(FLEET)
    return blueprint(folder / "fleet.yaml")


def nap(engine: Engine, seconds: float, deadline_s: float | None) -> asyncio.Task[Answer]:
    """Ask for a nap."""
    contract = Contract(deadline_s=deadline_s)
    request = Request(engine.new_id(), "nap", contract=contract, ref=Ref(1, 4, "x"))
    return asyncio.ensure_future(engine.infer(request, Tensors({"seconds": np.array([seconds], np.float32)})))


def test_deadlines_wake_the_engine_no_more_than_twice_each(tmp_path: Path) -> None:
    """uvloop rounds a timer to whole milliseconds: one that is due sooner fires too early, and must not spin."""
    plan = written(tmp_path)
    requests = 200

    async def main() -> collections.Counter[str]:
        engine = engine_for(plan.journal)
        await engine.start(plan.catalog)
        first = nap(engine, 0.6, None)
        rest = [nap(engine, 0.0, 0.2 + 0.0011 * i) for i in range(requests)]
        answers = await asyncio.gather(first, *rest)
        await engine.stop(1.0)
        return collections.Counter(answer.finish.outcome for answer in answers)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(main())
    assert outcomes["expired"] > requests / 2
    assert plan.journal is not None
    records, _ = decode(plan.journal.read_bytes()[len(HEADER) :])
    ticks = sum(type(r.event).__name__ == "Tick" for r in records if isinstance(r, Decision))
    assert ticks <= 2 * requests + 10


async def run(plan: Blueprint, journal: Path, requests: int) -> list[bool]:
    """Serve a few requests and stop; return which of them were answered."""
    engine = engine_for(journal)
    await engine.start(plan.catalog)
    answers = [(await nap(engine, 0.0, None)).ok for _ in range(requests)]
    await engine.stop(1.0)
    return answers


def test_a_journal_is_written_by_one_fleet_at_a_time(tmp_path: Path) -> None:
    plan = written(tmp_path)
    assert plan.journal is not None
    journal = plan.journal

    async def main() -> None:
        first = engine_for(journal)
        await first.start(plan.catalog)
        with pytest.raises(JournalError, match="is being written already: stop the fleet that writes it"):
            await engine_for(journal).start(plan.catalog)
        assert (await nap(first, 0.0, None)).ok
        await first.stop(1.0)

    asyncio.run(main())
    found = replay(journal)
    assert (found.difference, found.outcomes["done"]) == (None, 1)


def test_a_fleet_inside_a_program_leaves_the_journal_to_its_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = written(tmp_path)
    assert plan.journal is not None
    journal = plan.journal

    async def main() -> None:
        server = engine_for(journal)
        await server.start(plan.catalog)
        async with AsyncFleet.open(tmp_path / "fleet.yaml") as fleet:
            assert (await fleet.infer("nap", seconds=0.0))["slept"] == 0.0
        await server.stop(1.0)

    asyncio.run(main())
    assert f"the journal {journal} is being written by another fleet: this one keeps none" in caplog.text
    assert replay(journal).outcomes["done"] == 0
    assert not journal.with_name("journal.bin.1").exists()


def test_the_journal_of_the_last_run_is_kept(tmp_path: Path) -> None:
    plan = written(tmp_path)
    assert plan.journal is not None
    for requests in (3, 2):
        asyncio.run(run(plan, plan.journal, requests))
    before = plan.journal.with_name("journal.bin.1")
    assert [replay(path).outcomes["done"] for path in (before, plan.journal)] == [3, 2]


def test_a_full_disk_ends_the_journal_but_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this machine has no /dev/full")
    assert asyncio.run(run(written(tmp_path), full, 2)) == [True, True]
    assert "the journal /dev/full ends here, requests go on: No space left on device" in caplog.text
