"""How good a router is: the share of the dear model's gain that it keeps at each price, and the frontier.

Definitions, for two models with scores ``weak`` and ``strong`` of the same ``n`` requests:

* A router orders the requests by how much it thinks the strong model gains. Calling the strong one for the first
  ``k`` gives the quality ``q(k)``. **PGR** (performance gap recovered) is ``(q(k) - q(0)) / (q(n) - q(0))``.
* **APGR** is the area under PGR over the share of strong calls ``k / n``, by trapezoids: ½ for a random order,
  above 1 possible where the weak model is sometimes the better one. (RouteLLM, Ong et al., arXiv 2406.18665.)
* **CPT(x)** is the least share of strong calls with a PGR of ``x``; of all points at or above it, the first.
* **AIQ** is the area under the non-decreasing convex hull of (cost, quality) points, over the range of costs,
  divided by that range. (RouterBench, Hu et al., arXiv 2403.12031.)
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Interval(msgspec.Struct, frozen=True):
    """A figure with its 95 % bootstrap interval (percentiles)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pgr_curve(gain: Floats, order: Floats) -> Floats:
    """Return PGR ``(n + 1,)`` for 0 to n strong calls.

    Args:
        gain: (n,) strong score minus weak score.
        order: (n,) the router's wish for the strong model; larger goes first, ties in the order of the rows.
    """
    total = gain.sum()
    if total == 0.0:
        raise ValueError("both models are equally good on average: there is no gap to recover")
    ranked = gain[np.argsort(-order, kind="stable")]
    curve: Floats = np.concatenate([[0.0], np.cumsum(ranked)]) / total
    return curve


def apgr(gain: Floats, order: Floats) -> float:
    """Return the area under PGR; see the module."""
    curve = pgr_curve(gain, order)
    return float((curve[1:] + curve[:-1]).sum() / (2 * len(gain)))


def cpt(gain: Floats, order: Floats, share: float) -> float:
    """Return the least share of strong calls that recovers `share` of the gap."""
    curve = pgr_curve(gain, order)
    return float(np.argmax(curve >= share - 1e-12)) / len(gain)


def hull(costs: Floats, qualities: Floats) -> tuple[Floats, Floats]:
    """Return the non-decreasing convex hull of (cost, quality) points, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, quality in sorted(
        zip(costs.tolist(), qualities.tolist(), strict=True), key=lambda p: (p[0], -p[1])
    ):
        if best and quality <= best[-1][1]:
            continue
        while len(best) > 1 and _below(best[-2], best[-1], (cost, quality)):
            best.pop()
        if best and best[-1][0] == cost:
            best.pop()
        best.append((cost, quality))
    found = np.array(best)
    return found[:, 0], found[:, 1]


def aiq(costs: Floats, qualities: Floats) -> float:
    """Return the average improvement in quality; the quality itself where there is but one cost."""
    x, y = hull(costs, qualities)
    most = float(np.max(costs))
    if x[-1] < most:
        x, y = np.append(x, most), np.append(y, y[-1])
    return (
        float(((y[1:] + y[:-1]) * np.diff(x)).sum() / (2 * (x[-1] - x[0]))) if x[-1] > x[0] else float(y[-1])
    )


def bootstrap(
    figure: Callable[[NDArray[np.int64]], float], n: int, *, draws: int = 300, seed: int = 7
) -> Interval:
    """Return a figure of all rows with an interval from resampling them.

    Args:
        figure: The figure of the rows with these indices.
        n: Number of rows.
        draws: Resamples.
        seed: Of the generator.
    """
    rng = np.random.default_rng(seed)
    found = [figure(rng.integers(0, n, n)) for _ in range(draws)]
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(figure(np.arange(n)), float(low), float(high))


def calibration_error(predicted: Floats, scores: Floats, bins: int = 15) -> float:
    """Return the expected calibration error (0…1): mean gap between prediction and score in bins of equal count."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(bins, max(1, len(predicted))))
    gaps = [len(p) * abs(float(predicted[p].mean() - scores[p].mean())) for p in parts if len(p)]
    return sum(gaps) / max(1, len(predicted))


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
