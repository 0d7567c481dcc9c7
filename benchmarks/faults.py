"""Workers are killed and frozen at random moments under load: what becomes of the requests.

A fleet of four worker processes is embedded in this process, so that every answer is counted where it is given.
Each request has an input of its own and one right answer. ``lost``, ``wrong`` and ``duplicated`` are counted from
the answers, and once more from the journal's stream of effects; recovery is the time from a fault until the
replica of that id has served work again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import psutil
import uvloop

from benchmarks import models
from benchmarks.idle import stream
from benchmarks.processes import environment
from benchmarks.report import Report, bootstrap, options, percentile, table
from semaforo.build import blueprint, engine_for
from semaforo.core.effects import Finish
from semaforo.core.events import Arrived
from semaforo.entities import Contract, Priority, Ref, Request
from semaforo.live.answer import Answer
from semaforo.live.crew import ReplicaStatus
from semaforo.live.engine import Engine
from semaforo.wire.payload import Tensors

REPLICAS = 4
MODEL_S = 0.004
RATE = 120.0
RECOVER_S = 60.0
DRAIN_S = 70.0
DEADLINE_S = 5.0

FLEET = f"""
tasks:
  work:
    inputs: {{x: fp32[64]}}
    outputs: {{y: fp32[1]}}
journal: journal
models:
  heavy: {{task: work, source: heavy.onnx, isolation: process, replicas: {REPLICAS}, max_batch: 4}}
"""


class Fault(msgspec.Struct):
    """One fault: which signal met which replica, and when the replica had served again."""

    kind: str
    replica: str
    at: float
    recovered_s: float | None = None


class Book:
    """Counts answers, independently of the engine."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.answers: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.latency: list[tuple[float, float]] = []

    def answered(self, request: str, at: float, answer: Answer) -> None:
        """Take in one answer."""
        self.answers[request] += 1
        self.outcomes[answer.finish.outcome] += 1
        if answer.finish.outcome == "done":
            self.latency.append((at, time.monotonic() - at))
            expected = models.answer(self.asked[request])
            given = answer.result.arrays["y"].ravel() if answer.result is not None else np.zeros(0)
            if given.shape != (1,) or float(given[0]) != expected:
                self.wrong.append(f"{request}: {given.tolist()} is not {expected}")


class Run:
    """One run over a fleet."""

    def __init__(self, engine: Engine, faults: int, seed: int) -> None:
        self.engine = engine
        self.book = Book()
        self.faults: list[Fault] = []
        self._drawn = random.Random(seed)
        kinds = ["kill", "stop"] * faults
        self._drawn.shuffle(kinds)
        self._kinds = kinds
        self._over = False
        self._numbers = 0

    async def run(self, report: Report) -> None:
        """Load the fleet, hurt it, wait until it is whole and every request has ended."""
        traffic = asyncio.create_task(self._traffic())
        await asyncio.sleep(1.0)
        watches = []
        for number, kind in enumerate(self._kinds):
            await asyncio.sleep(self._drawn.uniform(0.3, 2.0))
            fault = await self._hurt(kind)
            report.progress(f"fault {number + 1} of {len(self._kinds)}: {kind} {fault.replica}")
            watches.append(asyncio.create_task(self._watch(fault)))
        await asyncio.gather(*watches)
        await asyncio.sleep(1.0)
        self._over = True
        await traffic
        until = time.monotonic() + DRAIN_S
        while len(self.book.answers) < len(self.book.asked) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def _traffic(self) -> None:
        due = time.monotonic()
        while not self._over:
            due += self._drawn.expovariate(RATE)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._ask()

    def _ask(self) -> None:
        number = self._numbers % models.MOST_NUMBERS
        self._numbers += 1
        # A third has a deadline, and there are two classes, so that every path to an end is walked.
        contract = Contract(
            priority=Priority.HIGH if number % 4 == 0 else Priority.NORMAL,
            deadline_s=DEADLINE_S if number % 3 == 0 else None,
        )
        request = Request(self.engine.new_id(), "work", contract=contract, ref=Ref(1, 256, "x:FP32:64"))
        self.book.asked[request.id] = number
        at = time.monotonic()
        payload = Tensors({"x": models.row(number)[None]})
        self.engine.submit(request, payload, lambda answer: self.book.answered(request.id, at, answer))

    def _whole(self) -> list[ReplicaStatus]:
        hurt = {fault.replica for fault in self.faults if fault.recovered_s is None}
        return [r for r in self.engine.replicas() if r.state == "ready" and r.pid and r.id not in hurt]

    async def _hurt(self, kind: str) -> Fault:
        until = time.monotonic() + RECOVER_S
        while len(self._whole()) < 2 and time.monotonic() < until:
            await asyncio.sleep(0.02)
        replica = self._drawn.choice(self._whole())
        fault = Fault(kind, replica.id, time.monotonic())
        self.faults.append(fault)
        os.kill(replica.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        self._pid = replica.pid
        return fault

    async def _watch(self, fault: Fault) -> None:
        pid, served_before = self._pid, None
        while time.monotonic() < fault.at + RECOVER_S:
            await asyncio.sleep(0.01)
            for replica in self.engine.replicas():
                if replica.id != fault.replica or replica.state != "ready" or replica.pid in (0, pid):
                    continue
                if served_before is None:
                    served_before = replica.served_rows
                elif replica.served_rows > served_before:
                    fault.recovered_s = time.monotonic() - fault.at
                    return


def by_journal(journal: Path) -> tuple[int, int, int]:
    """Return how many requests arrived, ended never, and ended more than once, as the stream of effects has it."""
    arrived: set[str] = set()
    ends: Counter[str] = Counter()
    for _, event, effects in stream(journal):
        if isinstance(event, Arrived):
            arrived.add(event.request.id)
        for effect in effects:
            if isinstance(effect, Finish):
                ends[effect.request] += 1
    return len(arrived), len(arrived - ends.keys()), sum(1 for n in ends.values() if n > 1)


def leftovers(pids: set[int]) -> int:
    """Count worker processes that were not cleaned away."""
    return sum(
        1 for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    )


async def live(report: Report, folder: Path, faults: int) -> Run:
    """Start the fleet, run, stop it."""
    os.environ.update(environment())
    logging.getLogger("semaforo").setLevel(logging.ERROR)  # Each loss would be told as a warning.
    models.work(folder / "heavy.onnx", MODEL_S)
    fleet = folder / "fleet.yaml"
    fleet.write_text(FLEET)
    plan = blueprint(fleet)
    engine = engine_for(plan.journal, plan.ring)
    await engine.start(plan.catalog)
    try:
        run = Run(engine, faults, seed=1)
        await run.run(report)
    finally:
        pids = {child.pid for child in psutil.Process().children(recursive=True)}
        await engine.stop(5.0)
    report.count("processes_left", leftovers(pids), aim=0)
    assert plan.journal is not None
    arrived, endless, twice = by_journal(plan.journal)
    book = run.book
    unanswered = [rid for rid in book.asked if not book.answers[rid]]
    report.count("admitted", len(book.asked) - book.outcomes["refused"])
    report.count("lost", max(len(unanswered), endless, len(book.asked) - arrived), aim=0)
    report.count("wrong", len(book.wrong), aim=0)
    report.count("duplicated", max(twice, sum(1 for n in book.answers.values() if n > 1)), aim=0)
    for text in book.wrong[:5]:
        report.note(f"wrong: {text}")
    return run


def main() -> None:
    """Hurt a fleet and count."""
    asked = options("faults", __doc__)
    each = 1 if asked.quick else 10
    report = Report("faults", f"Faults: {each} × SIGKILL and {each} × SIGSTOP under load", asked)
    with tempfile.TemporaryDirectory(prefix="semaforo-bench-") as name:
        run = uvloop.run(live(report, Path(name), each))
    recovered = [f.recovered_s for f in run.faults if f.recovered_s is not None]
    report.count("faults", len(run.faults), aim=None)
    report.count("not_recovered", len(run.faults) - len(recovered), aim=0)
    if recovered:
        report.add("recovery_p95_s", bootstrap(recovered, lambda v: percentile(v, 0.95)), "s")
    shown = table("Recovery", "fault", "times", "median s", "worst s")
    for kind in ("kill", "stop"):
        took = [f.recovered_s for f in run.faults if f.kind == kind and f.recovered_s is not None]
        times = sum(f.kind == kind for f in run.faults)
        shown.add_row(
            {"kill": "SIGKILL", "stop": "SIGSTOP"}[kind], str(times),
            f"{percentile(took, 0.5):.2f}", f"{max(took, default=float('nan')):.2f}",
        )  # fmt: skip
    outcomes = table("Terminal answers", "outcome", "requests")
    for outcome, count in run.book.outcomes.most_common():
        outcomes.add_row(outcome, f"{count:,}")
    report.tables += [shown, outcomes]
    answered = [seconds for _, seconds in run.book.latency]
    report.note(
        f"{REPLICAS} worker processes, {RATE:.0f} requests/s, a third with a deadline of {DEADLINE_S:.0f} s; "
        f"answers took {percentile(answered, 0.5) * 1e3:.1f} ms in the median, "
        f"{percentile(answered, 0.99) * 1e3:.0f} ms at p99, {max(answered, default=0.0) * 1e3:.0f} ms at worst"
    )
    if report.keeping:
        _plot(report, run)
    report.finish()


def _plot(report: Report, run: Run) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("seconds", "ms to answer")
    start = run.book.latency[0][0]
    moments, took = [at - start for at, _ in run.book.latency], [s * 1e3 for _, s in run.book.latency]
    axes.plot(moments, took, ".", ms=2, rasterized=True)
    for kind, colour in (("kill", "C3"), ("stop", "C1")):
        for number, fault in enumerate(f for f in run.faults if f.kind == kind):
            label = {"kill": "SIGKILL", "stop": "SIGSTOP"}[kind] if number == 0 else None
            axes.axvline(fault.at - start, color=colour, lw=0.8, label=label)
    axes.set_yscale("log")
    axes.legend()
    save(plot, report.plot_path("time"))


if __name__ == "__main__":
    main()
