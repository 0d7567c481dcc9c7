"""What five steps cost beside their models, in one process: one request at a time, rounds interleaved."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.graphs.chain import STEPS, Chain
from benchmarks.models import session
from benchmarks.report import Report, bootstrap
from semaforo import AsyncFleet

_WARM = 300
_AT_ONCE = 32


def measure(report: Report, chain: Chain, quick: bool) -> list[float]:
    """Add what a chain costs; return the model's own µs by round."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(report, chain, quick))


async def _measure(report: Report, chain: Chain, quick: bool) -> list[float]:
    rounds, asks = (3, 100) if quick else (15, 600)
    rows = chain.case.rows
    own = session(chain.step)
    models: list[float] = []
    took: dict[str, list[float]] = {"m0": [], "chain": [], "diamond": []}
    rates: list[float] = []
    async with AsyncFleet.open(chain.fleet) as fleet:
        answer = await fleet.infer("chain", x=rows)
        chain.case.check(np.asarray(answer["y"]))
        for name in took:
            for _ in range(_WARM if not quick else 20):
                await fleet.infer(name, x=rows)
        for _ in range(rounds):
            models.append(_model_us(own, rows, asks))
            for name, found in took.items():
                found.append(await _median_us(fleet, name, rows, asks))
            rates.append(await _rate(fleet, rows, asks))
    over = [took["chain"][n] - STEPS * models[n] for n in range(rounds)]
    report.add("overhead_us", bootstrap(over), "µs", aim=150.0)
    report.add(
        "overhead_diamond_us",
        bootstrap([d - STEPS * m for d, m in zip(took["diamond"], models, strict=True)]),
        "µs",
    )
    report.add("one_model_us", bootstrap(took["m0"]), "µs")
    report.add("model_alone_us", bootstrap(models), "µs")
    report.add("chains_per_s_32", bootstrap(rates), "/s")
    return models


def _model_us(own: object, rows: np.ndarray, asks: int) -> float:
    seconds = []
    for _ in range(asks):
        began = time.perf_counter()
        own.run(None, {"x": rows})  # type: ignore[attr-defined]  # onnxruntime says no types
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6


async def _median_us(fleet: AsyncFleet, name: str, rows: np.ndarray, asks: int) -> float:
    seconds = []
    for _ in range(asks):
        began = time.perf_counter()
        await fleet.infer(name, x=rows)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6


async def _rate(fleet: AsyncFleet, rows: np.ndarray, asks: int) -> float:
    async def go() -> None:
        for _ in range(asks // _AT_ONCE + 1):
            await fleet.infer("chain", x=rows)

    began = time.perf_counter()
    await asyncio.gather(*(go() for _ in range(_AT_ONCE)))
    return (asks // _AT_ONCE + 1) * _AT_ONCE / (time.perf_counter() - began)


def folder_of(chain: Chain) -> Path:
    """Return where the files are."""
    return chain.fleet.parent
