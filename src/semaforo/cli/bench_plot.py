"""The picture of ``semaforo bench``: each request's latency over the run, and the share within each latency."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaforo.errors import InvalidRequest

if TYPE_CHECKING:
    from semaforo.cli.bench_report import Report
    from semaforo.traffic.outcome import Outcome

_MOST_POINTS = 50_000
_WELL, _BADLY = "#2a6f97", "#d1495b"


def draw(report: Report, outcome: Outcome, path: Path) -> None:
    """Draw a run.

    Raises:
        InvalidRequest: The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (over_time, shares) = pyplot.subplots(2, 1, figsize=(9, 7), layout="constrained")
    figure.suptitle(report.title, fontsize=11)
    _over_time(over_time, outcome)
    _shares(shares, outcome)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InvalidRequest(f"--plot {path}: {error.strerror}") from None
    finally:
        pyplot.close(figure)


def _over_time(axes: Any, outcome: Outcome) -> None:
    step = max(1, len(outcome.status) // _MOST_POINTS)
    at, ms = outcome.scheduled[::step], outcome.latency[::step] * 1e3
    ok = outcome.ok[::step]
    bad = ~ok & ~np.isnan(ms)
    axes.scatter(at[ok], ms[ok], s=4, alpha=0.5, color=_WELL, label="answered well", linewidths=0)
    if bad.any():
        axes.scatter(
            at[bad], ms[bad], s=8, alpha=0.6, color=_BADLY, label="ended badly", linewidths=0, marker="v"
        )
    axes.set(xlabel="second of the run at which a request was due", ylabel="latency, ms", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3, which="major")
    if bad.any():
        axes.legend(loc="upper right")


def _shares(axes: Any, outcome: Outcome) -> None:
    """Draw against nines, 1 / (1 - share), so that the tail has the room that it matters."""
    for number, name in enumerate(outcome.names):
        mine = np.sort(outcome.latency[outcome.ok & (outcome.who == number)])
        if len(mine):
            _line(axes, mine, name or "not said")
    everything = np.sort(outcome.latency[outcome.ok])
    if len(outcome.names) > 2 and len(everything):
        _line(axes, everything, "all", color="black", linewidth=1.5)
    axes.set(xlabel="share of the good answers", ylabel="latency within, ms", xscale="log", yscale="log")
    nines = [share for share in (0.5, 0.9, 0.99, 0.999, 0.9999) if 1 / (1 - share) <= 2 * len(everything)]
    axes.set_xticks([1 / (1 - share) for share in nines], [f"{share:.10g}" for share in nines])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    if len(everything):
        axes.legend(loc="upper left")


def _line(axes: Any, values: Any, name: str, **style: Any) -> None:
    nines = 1 / (1 - np.arange(len(values)) / len(values))
    axes.step(nines, values * 1e3, where="post", label=name, **style)
