"""What a fleet does when it is offered twice what it can serve; and whether it idles while work waits.

Two parts, both against `semaforo serve` and its worker processes, over HTTP, from a generator of its own:

1. One real ONNX model of at least 4 ms a row in a worker process. Its capacity is measured closed-loop before
   each run; then comes an open loop at twice that, 30 % of it high class, everything with a deadline. An answer
   counts when it came within the deadline of the moment it was *scheduled* to be asked.
2. Three variants of one task at 80 % of what they can serve together. They sleep instead of computing (see
   `benchmarks.sleepers`), so that two cores do not distort what three devices would do.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import models, sleepers
from benchmarks.idle import Idle, idle_by_log, stream
from benchmarks.processes import Server, two_sides
from benchmarks.report import Report, bootstrap, options, percentile, share_interval, table
from benchmarks.traffic import Kind, Load, Outcome, generate
from semaforo.policy.shares import GUARANTEE

MODEL_S = 0.005
DEADLINE_S = 0.100
ALLOWANCE_S = 0.005
HIGH_SHARE = 0.3
OVERLOAD = 2.0
SETTLE_S = 1.0
IDLE_LOAD = 0.8
IDLE_DEADLINE_S = 0.250
HIGH, LOW = 0, 1
_LOW_CLASS = 3

FLEET = """
tasks:
  work:
    inputs: {x: fp32[64]}
    outputs: {y: fp32[1]}
models:
  heavy: {task: work, source: heavy.onnx, isolation: process, max_batch: 8}
"""

SLEEPERS = """
tasks:
  work:
    inputs: {x: fp32[64]}
    outputs: {y: fp32[1]}
journal: journal
models:
"""


def body(number: int = 12345) -> str:
    """Return V2's JSON for one row."""
    data = models.row(number).tolist()
    tensor = {"name": "x", "shape": [1, models.FEATURES], "datatype": "FP32", "data": data}
    return msgspec.json.encode({"inputs": [tensor]}).decode()


def kinds(deadline_s: float | None) -> tuple[Kind, Kind]:
    """Return the two classes; the server is told a deadline that leaves time for the way back."""
    told = {} if deadline_s is None else {"semaforo-deadline-ms": f"{(deadline_s - ALLOWANCE_S) * 1e3:g}"}
    path, given = "/v2/models/work/infer", body()
    return (
        Kind("high", HIGH_SHARE, path, given, {**told, "semaforo-priority": "high"}),
        Kind("low", 1 - HIGH_SHARE, path, given, {**told, "semaforo-priority": "low"}),
    )


class Seen(msgspec.Struct):
    """One open-loop run, after it had settled.

    Attributes:
        goodput: Answers in time, per second.
        offered, in_time, served: Requests by class: asked, answered in time, answered at all.
        worst_low: Least share of the rows served in any one second that the low class got.
        late_p99_s: 99th percentile of the generator's own lateness.
        unanswered: Requests without a status.
    """

    goodput: float
    offered: list[int]
    in_time: list[int]
    served: list[int]
    worst_low: float
    late_p99_s: float
    unanswered: int


def look(outcome: Outcome, deadline_s: float) -> Seen:
    """Count a run."""
    counted = outcome.scheduled >= SETTLE_S
    answered = outcome.status == 200
    in_time = answered & (outcome.latency <= deadline_s)
    by_class = [counted & (outcome.kind == k) for k in (HIGH, LOW)]
    shares = []
    for second in np.arange(SETTLE_S, outcome.seconds - 1.0 + 1e-9, 1.0):
        now = answered & (outcome.done >= second) & (outcome.done < second + 1.0)
        if now.sum():
            shares.append(float((now & (outcome.kind == LOW)).sum() / now.sum()))
    return Seen(
        goodput=float((in_time & counted).sum()) / (outcome.seconds - SETTLE_S),
        offered=[int(c.sum()) for c in by_class],
        in_time=[int((c & in_time).sum()) for c in by_class],
        served=[int((c & answered).sum()) for c in by_class],
        worst_low=min(shares, default=float("nan")),
        late_p99_s=percentile(outcome.lateness[~np.isnan(outcome.lateness)].tolist(), 0.99),
        unanswered=int((outcome.status <= 0).sum()),
    )


class Weight:
    """Samples a server's memory against the requests it has answered, in a thread of its own."""

    def __init__(self, server: Server) -> None:
        self.samples: list[tuple[float, float]] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Weight:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.25):
            self.samples.append((time.monotonic(), self._server.rss_mb()))

    def slope(self, outcome: Outcome, settle_s: float) -> tuple[float, float, float]:
        """Return MB per 100,000 requests, Theil's slope, with the interval over resampled samples."""
        ended = np.sort(outcome.done[~np.isnan(outcome.done)]) + outcome.began
        points = [
            (float(np.searchsorted(ended, at)), rss)
            for at, rss in self.samples
            if outcome.began + settle_s <= at <= outcome.began + outcome.seconds
        ]
        indices = [float(k) for k in range(len(points))]

        def theil(chosen: Sequence[float]) -> float:
            kept = np.array([points[int(k)] for k in chosen])
            dx = kept[:, None, 0] - kept[None, :, 0]
            dy = kept[:, None, 1] - kept[None, :, 1]
            return float(np.median(dy[dx > 0] / dx[dx > 0])) * 1e5 if (dx > 0).any() else float("nan")

        if len(points) < 4:
            return float("nan"), float("nan"), float("nan")
        return bootstrap(indices, theil, 200)


class Overload:
    """The first part."""

    def __init__(self, report: Report, folder: Path, quick: bool) -> None:
        self.report = report
        self.folder = folder
        self.quick = quick
        self.sides = two_sides()
        self.capacities: list[float] = []
        self.seed = 0

    def run(self) -> None:
        report = self.report
        row_s = models.work(self.folder / "heavy.onnx", MODEL_S)
        fleet = self.folder / "fleet.yaml"
        fleet.write_text(FLEET)
        rounds, capacity_s, open_s = (1, 1.2, 1.5) if self.quick else (4, 4.0, 12.0)
        sweep = (2.0,) if self.quick else (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0)
        with Server.semaforo(fleet) as server:
            if self.sides is not None:
                server.pin(*self.sides)
            self.server = server
            seen: list[Seen] = []
            ratios: list[float] = []
            kept: list[Outcome] = []
            for number in range(rounds):
                report.progress(f"overload: round {number + 1} of {rounds}")
                capacity = self.capacity(capacity_s)
                outcome = self.offer(OVERLOAD * capacity, open_s)
                kept.append(outcome)
                seen.append(look(outcome, DEADLINE_S))
                ratios.append(seen[-1].goodput / capacity)
            self._figures(seen, ratios, row_s)
            if not self.quick:
                report.progress("overload: sweep of the offered load")
                points = [(at, self.offer(at * self.middle, 4.0)) for at in sweep]
                self._starved(next(o for at, o in points if at == max(sweep)))
                if report.keeping:
                    from benchmarks.overload_plots import over_time, sweep_plot

                    over_time(report, kept[0], DEADLINE_S)
                    sweep_plot(report, points, self.middle, look, DEADLINE_S)
            self._memory(*((1500.0, 1.5, 0.5) if self.quick else (2000.0, 50.0, 25.0)))

    @property
    def middle(self) -> float:
        """Median capacity, rows per second."""
        return percentile(self.capacities, 0.5)

    def _load(self, load: Load) -> Outcome:
        self.seed += 1
        cores = tuple(self.sides[0]) if self.sides else ()
        return generate(msgspec.structs.replace(load, seed=self.seed, cores=cores), self.folder)

    def capacity(self, seconds: float) -> float:
        """Measure answers per second in a closed loop that always has a full batch waiting."""
        outcome = self._load(Load(self.server.port, kinds(None), seconds, connections=16))
        settled = (outcome.status == 200) & (outcome.done >= 0.5) & (outcome.done < seconds)
        found = float(settled.sum()) / (seconds - 0.5)
        self.capacities.append(found)
        return found

    def offer(self, rate: float, seconds: float) -> Outcome:
        """Offer a load in an open loop."""
        return self._load(Load(self.server.port, kinds(DEADLINE_S), seconds + SETTLE_S, rate))

    def _figures(self, seen: list[Seen], ratios: list[float], row_s: float) -> None:
        report = self.report
        high = share_interval(sum(s.in_time[HIGH] for s in seen), sum(s.offered[HIGH] for s in seen))
        guarantee = GUARANTEE[_LOW_CLASS]
        shares = [s.served[LOW] / max(1, sum(s.served)) / guarantee for s in seen]
        report.add("goodput_share", bootstrap(ratios), aim=0.95, better="more")
        report.add("high_class_on_time", high, aim=0.99, better="more")
        report.add("low_class_share_of_guarantee", bootstrap(shares), "×", aim=1.0, better="more")
        worst = min(s.worst_low for s in seen) / guarantee
        report.add("low_class_worst_second", (worst, worst, worst), "× guarantee")
        report.add("capacity_per_s", bootstrap(self.capacities), "rows/s")
        report.add("capacity_of_model", bootstrap([c * row_s for c in self.capacities]))
        late = [s.late_p99_s * 1e3 for s in seen]
        report.add("generator_lateness_p99_ms", bootstrap(late), "ms")
        report.count("unanswered", sum(s.unanswered for s in seen), aim=0)
        columns = ("class", "offered", "answered", "in time", "of offered")
        shown = table(f"At {OVERLOAD:g}× capacity, by class", *columns)
        for klass, name in ((HIGH, "high"), (LOW, "low")):
            offered, on_time = sum(s.offered[klass] for s in seen), sum(s.in_time[klass] for s in seen)
            served = sum(s.served[klass] for s in seen)
            shown.add_row(
                name, f"{offered:,}", f"{served:,}", f"{on_time:,}", f"{on_time / max(1, offered):.2%}"
            )
        report.tables.append(shown)
        report.note(
            f"model: {row_s * 1e3:.1f} ms a row alone (capacity_of_model is the share of that which gets through); "
            f"deadline {DEADLINE_S * 1e3:.0f} ms from the scheduled moment, of which the server is told all but "
            f"{ALLOWANCE_S * 1e3:.0f} ms; high class is {HIGH_SHARE:.0%} of the offers"
        )
        if self.sides is not None:
            report.note("the generator and the gateway share one core, the model has the other")

    def _starved(self, outcome: Outcome) -> None:
        found = look(outcome, DEADLINE_S)
        share = found.served[LOW] / max(1, sum(found.served)) / GUARANTEE[_LOW_CLASS]
        self.report.add("low_class_share_when_high_fills_all", (share, share, share), "× guarantee")

    def _memory(self, rate: float, seconds: float, settle_s: float) -> None:
        self.report.progress("overload: memory")
        with Weight(self.server) as weight:
            outcome = self.offer(rate, seconds)
        self.report.add("memory_slope_mb_per_100k", weight.slope(outcome, settle_s), "MB", aim=1.0)
        self.report.note(
            f"memory: resident size of the gateway over {len(outcome.status):,} requests at {rate:,.0f}/s, "
            f"the first {settle_s:.0f} s left out; "
            f"{max((r for _, r in weight.samples), default=0.0):.0f} MB at most"
        )


def idle_part(report: Report, folder: Path, quick: bool) -> None:
    """Run the second part."""
    report.progress("idle while waiting: 80 % load over three variants")
    quality = {"small": 0.90, "medium": 0.93, "large": 0.95}
    fleet = folder / "sleepers.yaml"
    source = Path(sleepers.__file__).resolve()
    entries = (
        f"  {name}: {{task: work, python: '{source}:{name.capitalize()}', isolation: process, "
        f"quality: {quality[name]}, max_batch: 4}}\n"
        for name in sleepers.FACTORS
    )
    fleet.write_text(SLEEPERS + "".join(entries))
    logs = folder / "spans"
    logs.mkdir()
    capacity_s, open_s = (1.2, 2.0) if quick else (5.0, 25.0)
    one, _ = kinds(IDLE_DEADLINE_S)
    plain = (msgspec.structs.replace(one, headers={"semaforo-deadline-ms": f"{IDLE_DEADLINE_S * 1e3:g}"}),)
    closed = (msgspec.structs.replace(one, headers={}),)
    with Server.semaforo(fleet, {sleepers.LOG: str(logs)}) as server:
        outcome = generate(Load(server.port, closed, capacity_s, connections=24), folder)
        settled = (outcome.status == 200) & (outcome.done >= 0.5) & (outcome.done < capacity_s)
        capacity = float(settled.sum()) / (capacity_s - 0.5)
        outcome = generate(Load(server.port, plain, open_s, rate=IDLE_LOAD * capacity, seed=7), folder)
    (journal,) = [path for path in (folder / "journal", *folder.glob("journal/*")) if path.is_file()]
    start, end = outcome.began + SETTLE_S, outcome.began + open_s
    blocks = np.linspace(start, end, 9)
    shares, on_device, whole = [], [], Idle(_one_row_s, start, end)
    parts = [Idle(_one_row_s, a, b) for a, b in pairwise(blocks)]
    for now, event, effects in stream(journal):
        whole.fold(now, event, effects)
        for part in parts:
            part.fold(now, event, effects)
    for part in parts:
        shares.append(part.idle_s / part.device_s)
    for a, b in pairwise(blocks):
        idle = sum(
            idle_by_log(sleepers.spans(logs, name), whole.waits, sleepers.seconds(name, 1), a, b)
            for name in sleepers.FACTORS
        )
        on_device.append(idle / (len(sleepers.FACTORS) * (b - a)))
    report.add("idle_while_waiting", bootstrap(shares, statistics.fmean), aim=0.02)
    report.add("idle_while_waiting_by_device_log", bootstrap(on_device, statistics.fmean))
    answered = outcome.status == 200
    on_time = int((answered & (outcome.latency <= IDLE_DEADLINE_S)).sum())
    report.add("idle_part_on_time", share_interval(on_time, len(answered)))
    idle_of = sorted(whole.by_variant.items())
    spent = ", ".join(f"{v.split('/')[0]} {seconds / whole.device_s:.2%}" for v, seconds in idle_of)
    service = ", ".join(f"{sleepers.seconds(name, 1) * 1e3:g}" for name in sleepers.FACTORS)
    waited = sum(e - s for s, e, _ in whole.waits)
    report.note(
        f"idle part: {IDLE_LOAD:.0%} of {capacity:.0f}/s over three variants that sleep for {service} ms a row; "
        f"{len(whole.waits):,} of {len(answered):,} requests waited, {waited:.1f} s in all; "
        f"idle by variant: {spent or 'none'}"
    )
    report.note(
        "idle_while_waiting is computed from the replayed journal; by_device_log adds the hand-over between "
        "gateway and worker, as the models themselves saw it"
    )


def _one_row_s(variant: str) -> float:
    return sleepers.seconds(variant.split("/")[0], 1)


def main() -> None:
    """Run both parts."""
    asked = options("overload", __doc__)
    report = Report("overload", "Overload: twice what can be served", asked)
    with tempfile.TemporaryDirectory(prefix="semaforo-bench-") as folder:
        Overload(report, Path(folder), asked.quick).run()
        idle_part(report, Path(folder), asked.quick)
    report.finish()


if __name__ == "__main__":
    main()
