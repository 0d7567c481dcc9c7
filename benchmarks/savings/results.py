"""From rounds to figures, tables and a picture."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from benchmarks.fusion.data import Array
from benchmarks.processes import Server
from benchmarks.report import Report, table
from benchmarks.savings.data import Data
from benchmarks.savings.fleets import CONFIDENCE, GIVE_UP, KEEP, PRICE, Fleets
from benchmarks.savings.stream import Came
from benchmarks.savings.training import Models

ALONE, WHOLE = "largest alone", "whole fleet"
_RESAMPLES = 2000
_SHARE = 0.99


class Counted(msgspec.Struct, frozen=True):
    """What a server has counted of one model: requests answered, rows run, and US dollars."""

    task: str
    answered: int
    rows: int
    cost: float


class Said(msgspec.Struct, frozen=True):
    """One side of one round.

    Attributes:
        came: What the client saw.
        cpu_s: CPU seconds of the server's process tree.
        mb: Resident memory of the tree, in MB.
        counted: What the server counted, by model.
    """

    came: Came
    cpu_s: float
    mb: float
    counted: dict[str, Counted]


class Round(msgspec.Struct, frozen=True):
    """One round: of each request the index of its task and its class; and both sides."""

    task: list[int]
    truth: list[int]
    said: dict[str, Said]


def counted(server: Server) -> dict[str, Counted]:
    """Return what a server has counted since it began, by model."""
    found = server.get_json("/semaforo/v1/figures")["variants"]
    return {v["model"]: Counted(v["task"], v["answered"], v["rows"], v["cost"]) for v in found}


def difference(after: dict[str, Counted], before: dict[str, Counted]) -> dict[str, Counted]:
    """Return what was counted between two moments."""
    return {
        name: Counted(
            now.task,
            now.answered - before[name].answered,
            now.rows - before[name].rows,
            now.cost - before[name].cost,
        )
        for name, now in after.items()
    }


def show(
    report: Report, tasks: list[Data], models: dict[str, Models], fleets: Fleets, rounds: list[Round]
) -> None:
    """Add figures, tables and notes; draw the picture where it is kept."""
    books = {side: [Book(r, side) for r in rounds] for side in (ALONE, WHOLE)}
    alone, whole = books[ALONE], books[WHOLE]

    def saved(of: Callable[[Book], float]) -> tuple[float, float, float]:
        return resampled(
            len(rounds), lambda at: 1 - sum(of(whole[i]) for i in at) / sum(of(alone[i]) for i in at)
        )

    def ratio(share: float) -> tuple[float, float, float]:
        def of(at: Array) -> float:
            both = [
                np.nanquantile(np.concatenate([side[i].seconds for i in at]), share)
                for side in (whole, alone)
            ]
            return float(both[0] / both[1])

        return resampled(len(rounds), of)

    report.add("cpu_saved", saved(lambda book: book.cpu_s), aim=0.5, better="more")
    report.add("dollars_saved", saved(lambda book: book.dollars), aim=0.5, better="more")
    gaps = np.concatenate([100.0 * (a.right - b.right) for a, b in zip(alone, whole, strict=True)])
    report.add(
        "quality_gap_points", resampled(len(gaps), lambda at: float(gaps[at].mean())), "points", aim=1.0
    )
    report.add("p99_ratio", ratio(_SHARE), "×", aim=1.0)
    report.add("p50_ratio", ratio(0.5), "×")
    report.add(
        "memory_ratio",
        resampled(len(rounds), lambda at: sum(whole[i].mb for i in at) / sum(alone[i].mb for i in at)),
        "×",
    )
    report.count(
        "failed", sum(int((~book.answered).sum()) for side in books.values() for book in side), aim=0
    )
    _sides(report, books)
    _by_task(report, tasks, books)
    _shares(report, tasks, models, fleets, whole)
    for data in tasks:
        report.note(
            f"{data.name}: {data.told}; models: {models[data.name].told}; cascade: {fleets.conditions[data.name]}"
        )
    report.note(
        f"cascades may lose {GIVE_UP:.2%} with {CONFIDENCE:.0%} confidence where they are fitted; what is "
        f"preferred keeps {KEEP:.2%} of the best quality; routers for {', '.join(fleets.routed)}; a core costs "
        f"${PRICE} an hour on both sides, and what no model does (HTTP, routing, graphs) is in CPU seconds, not "
        "in dollars"
    )
    if report.keeping:
        _plot(report, tasks, books)


class Book:
    """One side of one round, summed up.

    Attributes:
        task: Index of each request's task.
        answered, right: Of each request, whether it was.
        seconds: Of each request, from due to answer; NaN where none came.
        dollars: What the models cost, those that cascades asked included.
        by_task: Dollars by task.
    """

    def __init__(self, given: Round, side: str) -> None:
        said = given.said[side]
        self.task = np.array(given.task)
        self.seconds = np.array(said.came.seconds)
        self.answered = ~np.isnan(self.seconds)
        self.right = (np.array(said.came.label) == np.array(given.truth)).astype(float)
        self.who = np.array(said.came.who)
        self.cpu_s, self.mb, self.counted = said.cpu_s, said.mb, said.counted
        self.by_task: dict[str, float] = {}
        for name, found in said.counted.items():
            # What a graph is said to cost is the sum of what its steps cost, which are here by themselves.
            if name != f"{found.task}-sure":
                self.by_task[found.task] = self.by_task.get(found.task, 0.0) + found.cost
        self.dollars = sum(self.by_task.values())


def _sides(report: Report, books: dict[str, list[Book]]) -> None:
    shown = table(
        "Both sides", "side", "CPU s per 1,000", "$ per 1,000", "$ over CPU × price", "RSS MB", "accuracy",
        "p50 ms", "p99 ms",
    )  # fmt: skip
    for side, found in books.items():
        count = sum(int(book.answered.sum()) for book in found)
        cpu, dollars = sum(book.cpu_s for book in found), sum(book.dollars for book in found)
        seconds = np.concatenate([book.seconds for book in found])
        shown.add_row(
            side, f"{1e3 * cpu / count:.3f}", f"{1e3 * dollars / count:.3g}",
            f"{dollars / (cpu * PRICE / 3600):.0%}",
            f"{np.mean([book.mb for book in found]):.0f}", f"{np.concatenate([b.right for b in found]).mean():.4f}",
            f"{1e3 * np.nanquantile(seconds, 0.5):.2f}", f"{1e3 * np.nanquantile(seconds, _SHARE):.2f}",
        )  # fmt: skip
    report.tables.append(shown)


def _by_task(report: Report, tasks: list[Data], books: dict[str, list[Book]]) -> None:
    shown = table(
        "By task: the largest alone → the whole fleet", "task", "accuracy", "gap, points", "95 %",
        "$ per 1,000", "saved", "p50 ms", "p99 ms",
    )  # fmt: skip
    for number, data in enumerate(tasks):
        right = {side: _of(books[side], number, "right") for side in books}
        seconds = {side: _of(books[side], number, "seconds") for side in books}
        gaps = 100.0 * (right[ALONE] - right[WHOLE])
        gap, low, high = resampled(len(gaps), lambda at, gaps=gaps: float(gaps[at].mean()))
        cost = {s: 1e3 * sum(b.by_task[data.name] for b in books[s]) / len(gaps) for s in books}
        shown.add_row(
            data.name,
            " → ".join(f"{right[s].mean():.4f}" for s in books),
            f"{gap:+.2f}", f"{low:+.2f} … {high:+.2f}",
            " → ".join(f"{cost[s]:.3g}" for s in books),
            f"{1 - cost[WHOLE] / cost[ALONE]:.0%}",
            *(" → ".join(f"{1e3 * np.nanquantile(seconds[s], q):.2f}" for s in books) for q in (0.5, _SHARE)),
        )  # fmt: skip
    report.tables.append(shown)


def _of(books: list[Book], task: int, field: str) -> Array:
    return np.concatenate([getattr(book, field)[book.task == task] for book in books])


def _shares(
    report: Report, tasks: list[Data], models: dict[str, Models], fleets: Fleets, whole: list[Book]
) -> None:
    shown = table(
        "The whole fleet: who answered, and who was asked, cascades' steps included", "model", "judged",
        "answered", "asked", "$ per 1,000 asked",
    )  # fmt: skip
    for number, data in enumerate(tasks):
        who = _of(whole, number, "who")
        for name in [*models[data.name].entries, f"{data.name}-sure"]:
            rows = sum(book.counted[name].rows for book in whole)
            cost = sum(book.counted[name].cost for book in whole)
            shown.add_row(
                name, f"{fleets.qualities[name]:.4f}", f"{(who == name).mean():.1%}", f"{rows / len(who):.1%}",
                f"{1e3 * cost / rows:.3g}" if rows else "",
            )  # fmt: skip
    report.tables.append(shown)


def _plot(report: Report, tasks: list[Data], books: dict[str, list[Book]]) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("US dollars per 1,000 requests", "accuracy")
    for number, data in enumerate(tasks):
        points = []
        for side in (ALONE, WHOLE):
            right = _of(books[side], number, "right")
            points.append((1e3 * sum(b.by_task[data.name] for b in books[side]) / len(right), right.mean()))
        axes.annotate("", points[1], points[0], arrowprops={"arrowstyle": "->", "color": f"C{number}"})
        axes.scatter(*points[0], color=f"C{number}", marker="s")
        axes.scatter(*points[1], color=f"C{number}", marker="o", label=data.name)
    axes.set_xscale("log")
    axes.legend(title="■ largest alone → ● whole fleet")
    save(plot, report.plot_path("frontier"))


def resampled(count: int, statistic: Callable[[Array], float]) -> tuple[float, float, float]:
    """Return a statistic of all places, and its 95 % interval over drawn ones (Efron, 1979)."""
    rng = np.random.default_rng(0)
    found = [statistic(rng.integers(0, count, count)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(found, [0.025, 0.975])
    return statistic(np.arange(count)), float(low), float(high)
