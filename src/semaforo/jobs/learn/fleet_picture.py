"""A picture of where a fleet stands: quality over cost, a panel for each task."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from semaforo.errors import InvalidRequest
from semaforo.observe.explain import short
from semaforo.policy.frontier import Frontier

_PANEL = (6.4, 4.2)


def fleet_picture(found: Sequence[Frontier]) -> bytes:
    """Return the frontiers as PNG.

    Raises:
        InvalidRequest: matplotlib is not installed, or there is nothing to draw.
    """
    if not found:
        raise InvalidRequest("there is nothing to draw: no task was found")
    try:
        import matplotlib
    except ImportError:
        raise InvalidRequest("pictures need matplotlib: pip install 'semaforo[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(found), figsize=(_PANEL[0] * len(found), _PANEL[1]), layout="constrained", squeeze=False
    )
    for axes, one in zip(panels[0], found, strict=True):
        _panel(axes, one)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    pyplot.close(figure)
    return buffer.getvalue()


def _panel(axes: Any, one: Frontier) -> None:
    axes.set_title(one.task)
    axes.set_xlabel("US dollars per 1,000 requests")
    axes.set_ylabel("quality")
    axes.grid(alpha=0.3)
    axes.margins(x=0.28)
    if one.mixing:
        axes.plot([1e3 * c.cost for c in one.mixing], [c.quality for c in one.mixing], "-", label="mixing")
    if not any(place.quality is not None and place.cost is not None for place in one.variants):
        axes.text(0.5, 0.5, "no quality is known", transform=axes.transAxes, ha="center", color="#777")
        axes.set_xticks([])
        axes.set_yticks([])
    for place in one.variants:
        if place.quality is None or place.cost is None or place.low is None or place.high is None:
            continue
        at = (1e3 * place.cost, place.quality)
        ends = [[place.quality - place.low], [place.high - place.quality]]
        colour = "black" if place.on_frontier else "#999"
        axes.errorbar(*at, yerr=ends, fmt="s", ms=5, color=colour)
        axes.annotate(short(place.variant), at, xytext=(6, -3), textcoords="offset points", fontsize=8)
    now, aim = one.now, one.aim
    if now is not None and now.quality is not None:
        axes.plot([1e3 * now.cost], [now.quality], "*", ms=14, label="now")
    if aim is not None:
        if aim.quality is not None and aim.cost is not None:
            axes.plot([1e3 * aim.cost], [aim.quality], "o", ms=11, mfc="none", label=f"goal: {aim.goal}")
        if aim.least_quality is not None:
            axes.axhline(aim.least_quality, ls=":", color="#777")
        if aim.most_cost is not None:
            axes.axvline(1e3 * aim.most_cost, ls=":", color="#777")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, loc="best")
