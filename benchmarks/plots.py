"""Plots, drawn with matplotlib without a display; imported only where one is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "semaforo"

import matplotlib.pyplot as plt  # noqa: E402 — the back end is chosen first


def figure(x: str, y: str, rows: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes (an array of them for more than one row), labelled."""
    plot, axes = plt.subplots(rows, 1, figsize=(7.5, 3.6 * rows), layout="constrained", sharex=rows > 1)
    for one in [axes] if rows == 1 else axes:
        one.set_ylabel(y)
        one.grid(alpha=0.3)
    (axes if rows == 1 else axes[-1]).set_xlabel(x)
    return plot, axes


def save(plot: Any, path: Path) -> None:
    """Write the figure as SVG, the same bytes for the same data."""
    plot.savefig(path, metadata={"Date": None})
    plt.close(plot)
