"""Plots of the overload benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.plots import figure, save
from benchmarks.report import Report, percentile
from benchmarks.traffic import Outcome

if TYPE_CHECKING:
    from benchmarks.overload import Seen

NAMES = ("high", "low")


def over_time(report: Report, outcome: Outcome, deadline_s: float) -> None:
    """Draw latency and outcome by class over the time of one run."""
    plot, axes = figure("seconds", "ms from schedule to answer", rows=2)
    answered = outcome.status == 200
    for k, name in enumerate(NAMES):
        shown = answered & (outcome.kind == k)
        axes[0].plot(
            outcome.scheduled[shown], outcome.latency[shown] * 1e3, ".", ms=2, rasterized=True,
            label=f"{name} class",
        )  # fmt: skip
    axes[0].axhline(deadline_s * 1e3, linestyle="--", color="grey", label="deadline")
    axes[0].legend(markerscale=4)
    edges = np.arange(0.0, outcome.seconds + 1e-9, 0.5)
    for k, name in enumerate(NAMES):
        mine = outcome.kind == k
        for text, chosen, style in (
            ("offered", mine, ":"),
            ("in time", mine & answered & (outcome.latency <= deadline_s), "-"),
        ):
            counts, _ = np.histogram(outcome.scheduled[chosen], edges)
            axes[1].plot(edges[:-1] + 0.25, counts / 0.5, style, color=f"C{k}", label=f"{name}, {text}")
    axes[1].set_ylabel("requests/s")
    axes[1].legend()
    save(plot, report.plot_path("time"))


def sweep_plot(
    report: Report,
    points: Sequence[tuple[float, Outcome]],
    capacity: float,
    look: Callable[[Outcome, float], Seen],
    deadline_s: float,
) -> None:
    """Draw goodput, and latency by class, against the offered load."""
    plot, axes = figure("offered load, times capacity", "goodput, share of capacity", rows=2)
    at = [p for p, _ in points]
    seen = [look(outcome, deadline_s) for _, outcome in points]
    axes[0].plot(at, [s.goodput / capacity for s in seen], "o-", label="in time, both classes")
    axes[0].plot(at, [min(a, 1.0) for a in at], ":", color="grey", label="ideal")
    for k, name in enumerate(NAMES):
        shares = [s.in_time[k] / max(1, s.offered[k]) for s in seen]
        axes[0].plot(at, shares, ".--", color=f"C{k + 1}", label=f"{name}: in time of offered")
    axes[0].set_ylim(0, 1.1)
    axes[0].legend()
    for k, name in enumerate(NAMES):
        for share, style in ((0.5, "-"), (0.99, "--")):
            found = [
                percentile((o.latency[(o.status == 200) & (o.kind == k)] * 1e3).tolist(), share)
                for _, o in points
            ]
            axes[1].plot(at, found, style, marker=".", color=f"C{k + 1}", label=f"{name} p{share * 100:g}")
    axes[1].axhline(deadline_s * 1e3, linestyle=":", color="grey", label="deadline")
    axes[1].set_ylabel("ms to answer")
    axes[1].set_ylim(bottom=0)
    axes[1].legend()
    save(plot, report.plot_path("sweep"))
