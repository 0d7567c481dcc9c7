"""Random graphs in simulation: small queues, few slots, nesting, faults, people who go away. Nothing may hang."""

from __future__ import annotations

import time

from benchmarks.report import Report
from semaforo.sim.random_graphs import trial, verdict

GRAPHS = 10_000


def measure(report: Report, quick: bool) -> None:
    """Run random fleets until so many graphs have been under load, and count the fleets that went wrong."""
    wanted = 300 if quick else GRAPHS
    graphs = fleets = wrong = answers = 0
    began = time.perf_counter()
    while graphs < wanted:
        given = trial(fleets)
        said = verdict(given)
        if said:
            wrong += 1
            report.note(f"trial({fleets}): {said}")
        fleets += 1
        graphs += given.graphs
        answers += len(given.world.trace.finished)
    report.count("deadlocks_of_10000", wrong, aim=0)
    report.note(
        f"{graphs:,} random graphs in {fleets:,} fleets, {answers:,} requests from outside and of steps, each "
        f"answered once; {time.perf_counter() - began:.0f} s"
    )
