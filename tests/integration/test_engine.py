"""The engine with real models: how often it wakes up."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

import numpy as np
import uvloop

from semaforo.build import blueprint, engine_for
from semaforo.core.journal import HEADER, Decision, decode
from semaforo.entities import Contract, Ref, Request
from semaforo.live.answer import Answer
from semaforo.live.engine import Engine
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


def nap(engine: Engine, seconds: float, deadline_s: float | None) -> asyncio.Task[Answer]:
    """Ask for a nap."""
    contract = Contract(deadline_s=deadline_s)
    request = Request(engine.new_id(), "nap", contract=contract, ref=Ref(1, 4, "x"))
    return asyncio.ensure_future(engine.infer(request, Tensors({"seconds": np.array([seconds], np.float32)})))


def test_deadlines_wake_the_engine_no_more_than_twice_each(tmp_path: Path) -> None:
    """uvloop rounds a timer to whole milliseconds: one that is due sooner fires too early, and must not spin."""
    (tmp_path / "naps.py").write_text(NAPS)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    plan = blueprint(tmp_path / "fleet.yaml")
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
