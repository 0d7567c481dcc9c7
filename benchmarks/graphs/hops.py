"""One hop: what a model gives becomes what the next one takes, in one process and between worker processes.

A hop is what a chain of three steps takes longer than one of two; the models give back what they get. Copies are
told in process by whether the next model sees the very memory that the one before gave. Between processes a worker
writes its answer into shared memory once, and the next one reads it there: one copy (`tests/unit/test_arena.py` and
`tests/unit/test_frames.py` hold that nothing else is copied or sent). Beside it stands the least that two processes
need: the bytes written once into shared memory and one byte each way over a socket.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Sequence
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.report import Report, bootstrap
from semaforo import AsyncFleet, Fleet, Graph, model
from semaforo.wire.frames import Buffer, size_of
from semaforo.worker.link import LoopLink

SIZES = {"256b": 64, "12kb": 3072, "600kb": 153_600, "10mb": 2_621_440}
"""Name → numbers (fp32) in a row."""

_COUNTED = 20
_SETTLE_S = 0.1

MODEL = """\
def same(x):
    return {"y": x}
"""


def _fleet(folder: Path, isolation: str) -> Path:
    (folder / "same.py").write_text(MODEL)
    lines = [
        "tasks:", '  same: {inputs: {x: "fp32[?]"}, outputs: {y: "fp32[?]"}}', "models:",
        *(f'  m{n}: {{task: same, python: "same.py:same", isolation: {isolation}}}' for n in range(3)),
    ]  # fmt: skip
    for count in (2, 3):
        steps = (
            f"s{n}: {{ask: m{n}, inputs: {{x: {f's{n - 1}.y' if n else 'input.x'}}}}}" for n in range(count)
        )
        lines.append(f"  chain{count}: {{task: same, graph: {{steps: {{{', '.join(steps)}}}}}}}")
    path = folder / f"{isolation}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(report: Report, folder: Path, quick: bool) -> None:
    """Add the time of a hop by size and place."""
    for isolation, where in (("inline", "inprocess"), ("process", "process")):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_measure(_fleet(folder, isolation), quick))
        for size, hops in found.items():
            name = f"hop_{size}_us" if where == "process" else f"hop_inprocess_{size}_us"
            report.add(name, bootstrap(hops), "µs", aim=150.0 if name == "hop_600kb_us" else None)
    report.count("copies_inprocess", _copies(folder), aim=0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sent = runner.run(_sent(_fleet(folder, "process")))
    for size, count in sent.items():
        report.count(f"hop_{size}_socket_bytes", count)
    for size, numbers in SIZES.items():
        if not quick or numbers < 1e6:
            report.add(f"shared_memory_{size}_us", bootstrap(_least(4 * numbers, 5 if quick else 60)), "µs")


async def _sent(path: Path) -> dict[str, int]:
    """Return the bytes that cross the gateway's sockets for one hop, both ways, by size."""
    crossed = [0]
    send, received = LoopLink.send_buffers, LoopLink.buffer_updated

    def counted(link: LoopLink, buffers: Sequence[Buffer]) -> None:
        crossed[0] += size_of(buffers)
        send(link, buffers)

    def counting(link: LoopLink, count: int) -> None:
        crossed[0] += count
        received(link, count)

    found: dict[str, int] = {}
    # Every byte between processes passes these two, which are put back in the end.
    LoopLink.send_buffers, LoopLink.buffer_updated = counted, counting  # type: ignore[method-assign]
    try:
        async with AsyncFleet.open(path) as fleet:
            for size, numbers in SIZES.items():
                rows = np.zeros((1, numbers), np.float32)
                totals = []
                for name in ("chain2", "chain3"):
                    # The first answers of a size still travel: room for answers is as large as they have been.
                    await asyncio.gather(*(fleet.infer(name, x=rows) for _ in range(3)))
                    await asyncio.sleep(_SETTLE_S)
                    before = crossed[0]
                    for _ in range(_COUNTED):
                        await fleet.infer(name, x=rows)
                    await asyncio.sleep(_SETTLE_S)
                    totals.append(crossed[0] - before)
                found[size] = round((totals[1] - totals[0]) / _COUNTED)
    finally:
        LoopLink.send_buffers, LoopLink.buffer_updated = send, received  # type: ignore[method-assign]
    return found


def _copies(folder: Path) -> int:
    """Return how often an array was copied on its way through three models in one process."""
    seen: list[int] = []

    def same(x: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(int(x.__array_interface__["data"][0]))
        return {"y": x}

    declared = {"inputs": {"x": "fp32[?]"}, "outputs": {"y": "fp32[?]"}}
    model("seen", name="seen-model", isolation="inline", **declared)(same)
    graph = Graph("seen-chain", task="seen")
    last = graph.ask("seen-model", name="s0")
    for number in (1, 2):
        last = graph.ask("seen-model", name=f"s{number}", inputs={"x": last["y"]})
    with Fleet.of(same, graphs=[graph]) as fleet:
        seen.clear()
        fleet.infer("seen-chain", x=np.zeros((1, SIZES["600kb"]), np.float32))
    return len(set(seen)) - 1


async def _measure(path: Path, quick: bool) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {size: [] for size in SIZES}
    rounds = 2 if quick else 9
    async with AsyncFleet.open(path) as fleet:
        for number in range(rounds + 1):
            for size, numbers in SIZES.items():
                rows = np.zeros((1, numbers), np.float32)
                asks = 3 if quick else 12 if numbers > 1e6 else 60
                took = {name: await _median(fleet, name, rows, asks) for name in ("chain2", "chain3")}
                # The first round warms up.
                if number:
                    found[size].append(took["chain3"] - took["chain2"])
    return found


async def _median(fleet: AsyncFleet, name: str, rows: np.ndarray, asks: int) -> float:
    seconds = []
    for _ in range(asks):
        began = time.perf_counter()
        answer = await fleet.infer(name, x=rows)
        seconds.append(time.perf_counter() - began)
        del answer
    return statistics.median(seconds) * 1e6


def _least(size: int, asks: int) -> list[float]:
    """Return the µs in which another process of nothing else sees bytes that are written once, and says so."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = socket.socketpair()
    block = shared_memory.SharedMemory(create=True, size=size)
    process = context.Process(target=_look, args=(theirs, block.name, size), daemon=True)
    process.start()
    theirs.close()
    try:
        given = np.random.default_rng(0).random(size // 4).astype(np.float32)
        there = np.frombuffer(block.buf, np.float32, len(given))
        ours.recv(1)
        seconds = []
        for _ in range(asks):
            began = time.perf_counter()
            there[:] = given
            ours.send(b"x")
            ours.recv(1)
            seconds.append((time.perf_counter() - began) * 1e6)
        ours.send(b"q")
        process.join(10)
        return seconds
    finally:
        ours.close()
        del there
        block.close()
        block.unlink()


def _look(ours: socket.socket, name: str, size: int) -> None:
    block = shared_memory.SharedMemory(name)
    seen = np.frombuffer(block.buf, np.float32, size // 4)
    ours.send(b"r")
    while ours.recv(1) == b"x":
        ours.send(b"y" if seen[-1] >= 0 else b"n")
    del seen
    block.close()
