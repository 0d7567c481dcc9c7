"""What a fleet saves: one mixed stream, the largest model of each task alone against the whole fleet, routed.

Texts, images, sounds and tables come in equal parts. Two servers of ``semaforo serve`` run side by side; each round
sends the same requests at the same moments to one and then to the other, at a rate that the first carries easily.
CPU is user and system time of a server's whole process tree, and dollars are what the server counts. Latency is
counted from when a request was due. Models, thresholds, routers and figures come from rows of their own each.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.processes import Server
from benchmarks.report import Report, options
from benchmarks.savings import results, stream
from benchmarks.savings.data import Data, all_tasks
from benchmarks.savings.fleets import Fleets, given
from benchmarks.savings.results import ALONE, WHOLE, Round, Said
from benchmarks.savings.training import trained

_LOAD = 0.5
"""Offered rate, of what the largest models alone carry."""
_SETTLE_S = 0.2


class Size(msgspec.Struct, frozen=True):
    """How much is measured: rounds, requests in each, and those by which the rate is found."""

    rounds: int
    requests: int
    probe: int


class Asker:
    """Makes requests out of the rows to test, in turn, and sends them to a server."""

    def __init__(self, tasks: list[Data]) -> None:
        self._tasks = tasks
        self._wire: dict[tuple[int, int], bytes] = {}
        self._next = [0] * len(tasks)

    def rows(self, count: int, seed: int) -> list[tuple[int, int]]:
        """Return tasks and rows of the next requests: each row of a task once before any comes again."""
        drawn = np.random.default_rng(seed).permutation(np.arange(count) % len(self._tasks))
        found = []
        for task in drawn.tolist():
            found.append((task, self._next[task] % len(self._tasks[task].test)))
            self._next[task] += 1
        return found

    def send(self, port: int, rows: list[tuple[int, int]], moments: tuple[float, ...] = ()) -> stream.Came:
        """Send requests and return what came of them."""
        return stream.send(stream.Sent(port, tuple(self._request(*row) for row in rows), moments))

    def _request(self, task: int, row: int) -> bytes:
        found = self._wire.get((task, row))
        if found is None:
            data = self._tasks[task]
            array = given(data, data.test, row, row + 1)
            found = self._wire[task, row] = stream.request(data.name, data.field, array)
        return found


def main() -> None:
    """Run the benchmark and report."""
    asked = options("savings", __doc__)
    size = Size(1, 180, 60) if asked.quick else Size(8, 800, 400)
    report = Report("savings", "What a fleet saves beside the largest model of each task", asked)
    tasks = all_tasks(asked.quick)
    with tempfile.TemporaryDirectory(prefix="semaforo-bench-") as name, ExitStack() as running:
        folder = Path(name)
        models = {}
        for data in tasks:
            report.progress(f"{data.name}: training")
            models[data.name] = trained(data, folder / data.name, asked.quick)
        report.progress("fitting cascades, judging models, training routers")
        fleets = Fleets(folder, tasks, models, asked.quick)
        fleets.make()
        servers = {
            ALONE: running.enter_context(Server.semaforo(fleets.alone)),
            WHOLE: running.enter_context(Server.semaforo(fleets.whole)),
        }
        asker = Asker(tasks)
        warm = asker.rows(size.probe, 0)
        for server in servers.values():
            asker.send(server.port, warm)
        carried = size.probe / asker.send(servers[ALONE].port, warm).took
        rate = _LOAD * carried
        rounds = []
        for number in range(size.rounds):
            report.progress(f"round {number + 1} of {size.rounds}, {rate:.0f} requests a second")
            rows = asker.rows(size.requests, number + 1)
            rng = np.random.default_rng(number)
            moments = tuple(np.cumsum(rng.exponential(1.0 / rate, size.requests)).tolist())
            names = list(servers) if number % 2 == 0 else list(reversed(servers))
            found = {side: measured(asker, servers[side], rows, moments) for side in names}
            truth = [int(tasks[task].test.truth[row]) for task, row in rows]
            rounds.append(Round([task for task, _ in rows], truth, found))
    results.show(report, tasks, models, fleets, rounds)
    report.note(
        f"interleaved rounds: {size.rounds}, of {size.requests} requests a side, Poisson arrivals at {rate:.0f}/s, "
        f"{_LOAD:.0%} of the {carried:.0f}/s that the largest models alone carry in a closed loop of 4"
    )
    report.finish()


def measured(asker: Asker, server: Server, rows: list[tuple[int, int]], moments: tuple[float, ...]) -> Said:
    """Send one round to one server."""
    time.sleep(_SETTLE_S)
    before, cpu = results.counted(server), server.cpu_s()
    came = asker.send(server.port, rows, moments)
    # A cascade's answer may be there before the books are closed.
    time.sleep(_SETTLE_S)
    spent = server.cpu_s() - cpu
    return Said(came, spent, server.tree_mb(), results.difference(results.counted(server), before))


if __name__ == "__main__":
    main()
