"""Microseconds that the pure core takes for a request's whole life, against the size of the fleet.

A request's life is what the live driver makes of it, without its input and output: `Arrived`, the events that end
its batch, every `Tick` that falls due, `next_deadline` after each, and the ring that keeps it explainable.
Arrivals are Poisson at 70 % of what the fleet can serve; three variants of unlike speed and quality are
candidates for each request; service times vary. The driver's own loop is counted too, so figures are upper bounds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from benchmarks.report import Report, bootstrap, options, table
from semaforo.catalog import Catalog
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Decided, Finish, Run
from semaforo.core.events import Arrived, BatchDone, DispatcherEvent, FleetChanged, ReplicaReady, Tick
from semaforo.entities import BatchProfile, Contract, Cost, ReplicaView, Request, TaskType, Variant
from semaforo.observe.explain import Ring

SIZES = (4, 32, 256, 1000)
UTILISATION = 0.7
DEADLINE_S = 0.25
SERVICE_SPREAD = 0.1


def fleet(replicas: int) -> Dispatcher:
    """Return a dispatcher with three variants of one task, their replicas ready."""
    variants = [
        Variant(
            id=f"m{k}/1/v",
            model=f"m{k}",
            version="1",
            name="v",
            task="t",
            quality=0.90 + 0.03 * k,
            cost=Cost(second=1e-5),
            profile=BatchProfile(base_s=0.002 * (k + 1), row_s=0.003 * (k + 1)),
        )
        for k in range(3)
    ]
    dispatcher = Dispatcher()
    dispatcher.handle(FleetChanged(Catalog({"t": TaskType("t")}, {v.id: v for v in variants})), 0.0)
    for k in range(replicas):
        dispatcher.handle(ReplicaReady(ReplicaView(f"r{k}", variants[k % 3].id)), 0.0)
    return dispatcher


def capacity(dispatcher: Dispatcher) -> float:
    """Return requests per second that the replicas serve one by one."""
    variants = dispatcher.state.catalog.variants
    rate = 0.0
    for replica in dispatcher.state.replicas.values():
        rate += 1.0 / profile_of(variants[replica.variant]).seconds(1)
    return rate


def profile_of(variant: Variant) -> BatchProfile:
    """Return the profile of a variant that takes batches."""
    assert isinstance(variant.profile, BatchProfile)
    return variant.profile


class Life:
    """One open-loop run: µs per request, and what became of the requests."""

    def __init__(self, replicas: int, requests: int, seed: int) -> None:
        self._dispatcher = fleet(replicas)
        self._ring = Ring(4096)
        drawn = random.Random(seed)
        rate = UTILISATION * capacity(self._dispatcher)
        self._gaps = [drawn.expovariate(rate) for _ in range(requests)]
        self._noise = [drawn.lognormvariate(0.0, SERVICE_SPREAD) for _ in range(1024)]
        contract = Contract(deadline_s=DEADLINE_S)
        self._requests = [Request(f"{k:08x}{seed:08x}", "t", contract=contract) for k in range(requests)]
        variants = self._dispatcher.state.catalog.variants
        self._profiles = {
            n: profile_of(variants[r.variant]) for n, r in self._dispatcher.state.replicas.items()
        }
        self.outcomes: dict[str, int] = {}
        self.batches = 0
        self.ticks = 0

    def run(self) -> float:
        """Live through it; return µs per request."""
        dispatcher, ring, noise = self._dispatcher, self._ring, self._noise
        handle, next_deadline = dispatcher.handle, dispatcher.next_deadline
        profiles, outcomes = self._profiles, self.outcomes
        agenda: list[tuple[float, int, float]] = []
        now = arrival = 0.0
        infinite = float("inf")
        finished = 0

        def run(effect: Run) -> None:
            self.batches += 1
            profile = profiles[effect.replica]
            seconds = (profile.base_s + profile.row_s * effect.rows) * noise[effect.batch & 1023]
            heappush(agenda, (now + seconds, effect.batch, seconds))

        def finish(effect: Finish) -> None:
            nonlocal finished
            finished += 1
            ring.finished(effect)
            outcomes[effect.outcome] = outcomes.get(effect.outcome, 0) + 1

        act: dict[type, Callable[[Any], None]] = {Run: run, Finish: finish, Decided: ring.decided}

        def tell(event: DispatcherEvent) -> None:
            for effect in handle(event, now):
                do = act.get(type(effect))
                if do is not None:
                    do(effect)

        def until(moment: float) -> None:
            nonlocal now
            while True:
                tick = next_deadline()
                end = agenda[0][0] if agenda else infinite
                if tick is not None and tick < end:
                    if tick > moment:
                        return
                    self.ticks += 1
                    now = tick
                    tell(Tick())
                elif end <= moment:
                    now, batch, seconds = heappop(agenda)
                    tell(BatchDone(batch, seconds))
                else:
                    return

        start = time.process_time()
        for gap, request in zip(self._gaps, self._requests, strict=True):
            arrival += gap
            until(arrival)
            now = arrival
            ring.arrived(request)
            tell(Arrived(request))
        until(arrival + 60.0)
        seconds = time.process_time() - start
        if finished != len(self._requests):
            raise AssertionError(f"{len(self._requests)} requests arrived and {finished} were answered")
        return seconds / finished * 1e6


def main() -> None:
    """Measure every size in turn, several rounds over."""
    asked = options("core", __doc__)
    rounds, requests = (3, 1500) if asked.quick else (9, 15_000)
    report = Report("core", "The core: a request's whole life", asked)
    micros: dict[int, list[float]] = {size: [] for size in SIZES}
    done = dict.fromkeys(SIZES, 0)
    batches = dict.fromkeys(SIZES, 0)
    ticks = dict.fromkeys(SIZES, 0)
    for number in range(rounds):
        report.progress(f"round {number + 1} of {rounds}")
        for size in SIZES[number % len(SIZES) :] + SIZES[: number % len(SIZES)]:
            life = Life(size, requests, seed=number)
            micros[size].append(life.run())
            done[size] += life.outcomes.get("done", 0)
            batches[size] += life.batches
            ticks[size] += life.ticks
    total = rounds * requests
    columns = ("replicas", "median µs", "fastest µs", "answered", "rows/batch", "ticks/request")
    shown = table("A request's whole life", *columns)
    for size in SIZES:
        report.add(f"us_per_request_{size}", bootstrap(micros[size]), "µs", aim=20.0)
        shown.add_row(
            str(size), f"{statistics.median(micros[size]):.1f}", f"{min(micros[size]):.1f}",
            f"{done[size] / total:.2%}", f"{done[size] / max(1, batches[size]):.2f}", f"{ticks[size] / total:.2f}",
        )  # fmt: skip
    ratios = [max(m[k] for m in micros.values()) / min(m[k] for m in micros.values()) for k in range(rounds)]
    report.add("flatness", bootstrap(ratios), "×", aim=1.5)
    report.tables.append(shown)
    worst = min(done.values()) / total
    report.add("answered_share", (worst, worst, worst), better="more", aim=0.99)
    report.note(
        f"{rounds} interleaved rounds of {requests:,} requests at {UTILISATION:.0%} of capacity; "
        f"three candidate variants; explanations on; deadline {DEADLINE_S * 1e3:.0f} ms; garbage collector on; "
        "CPU time"
    )
    if report.keeping:
        _plot(report, micros)
    report.finish()


def _plot(report: Report, micros: dict[int, list[float]]) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("replicas", "µs per request")
    found = [bootstrap(micros[size]) for size in SIZES]
    values = [f[0] for f in found]
    spread = [[value - low for value, low, _ in found], [high - value for value, _, high in found]]
    axes.errorbar(SIZES, values, yerr=spread, marker="o", capsize=3, label="whole life, explanations on")
    axes.axhline(20.0, linestyle="--", color="grey", label="aim")
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.set_ylim(bottom=0)
    axes.legend()
    save(plot, report.plot_path("size"))


if __name__ == "__main__":
    main()
