"""A report on a router: one HTML page with its pictures inside, and the same pictures as PNG files beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest
from semaforo.jobs.learn.evaluate import Point
from semaforo.routing import metrics
from semaforo.routing.table import Table

Floats = NDArray[np.float64]

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)


def write(
    folder: Path, title: str, table: Table, predicted: Floats, points: Sequence[Point], notes: Sequence[str]
) -> Path:
    """Write the report; return the page.

    Args:
        folder: Where; made where it is not there.
        title: Of the page.
        table: What was predicted.
        predicted: (n, m) out of fold, or of a router that has not seen the table.
        points: The frontier.
        notes: Sentences that a reader needs.

    Raises:
        InvalidRequest: The folder cannot be written, or matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InvalidRequest("pictures need matplotlib: pip install 'semaforo[bench]'") from None
    matplotlib.use("Agg")
    pictures = {"calibration": _calibration(table, predicted)}
    if not all(np.isnan(p.cost) for p in points):
        pictures = {"frontier": frontier_picture(points), **pictures}
    if len(table.models) == 2:
        pictures["gap"] = _gap(table, predicted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in pictures.items():
            (folder / f"{name}.png").write_bytes(png)
        page = folder / "index.html"
        page.write_text(_page(title, points, notes, pictures), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"the report cannot be written to {folder}: {error.strerror}") from None
    return page


def frontier_picture(points: Sequence[Point]) -> bytes:
    """Return the frontier as PNG: mean score over mean cost."""
    figure, axes = _figure("US dollars per 1,000 requests", "mean score")
    routed = [p for p in points if not np.isnan(p.keep)]
    axes.plot([1e3 * p.cost for p in routed], [p.score.value for p in routed], "o-", ms=4, label="router")
    for p in points:
        if np.isnan(p.keep):
            axes.errorbar(
                1e3 * p.cost, p.score.value, yerr=[[p.score.value - p.score.low], [p.score.high - p.score.value]],
                fmt="s", ms=5,
            )  # fmt: skip
            axes.annotate(
                p.name, (1e3 * p.cost, p.score.value), xytext=(6, -3), textcoords="offset points", fontsize=8
            )
    axes.legend()
    return _png(figure)


def _calibration(table: Table, predicted: Floats) -> bytes:
    figure, axes = _figure("predicted score", "mean score")
    for j, model in enumerate(table.models):
        known = ~np.isnan(table.scores[:, j])
        parts = np.array_split(np.flatnonzero(known)[np.argsort(predicted[known, j], kind="stable")], 10)
        parts = [p for p in parts if len(p)]
        axes.plot(
            [predicted[p, j].mean() for p in parts],
            [table.scores[p, j].mean() for p in parts],
            "o-",
            ms=3,
            label=model,
        )
    axes.plot([0, 1], [0, 1], color="#999", lw=1)
    axes.legend(fontsize=8)
    return _png(figure)


def _gap(table: Table, predicted: Floats) -> bytes:
    figure, axes = _figure("share of requests that ask the dear model", "share of the gap recovered")
    dear = int(table.scores.mean(axis=0).argmax())
    gain = table.scores[:, dear] - table.scores[:, 1 - dear]
    if gain.sum():
        for name, order in (("router", predicted[:, dear] - predicted[:, 1 - dear]), ("oracle", gain)):
            curve = metrics.pgr_curve(gain, order)
            axes.plot(
                np.linspace(0, 1, len(curve)), curve, label=f"{name}, APGR {metrics.apgr(gain, order):.3f}"
            )
        axes.plot([0, 1], [0, 1], color="#999", lw=1, label="random")
        axes.legend()
    return _png(figure)


def _figure(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    pyplot.close(figure)
    return buffer.getvalue()


def _page(title: str, points: Sequence[Point], notes: Sequence[str], pictures: dict[str, bytes]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(p.name)}</td><td>{p.score.value:.4f}</td>"
        f"<td>{p.score.low:.4f} … {p.score.high:.4f}</td>"
        f"<td>{'' if np.isnan(p.cost) else f'{1e3 * p.cost:.4g}'}</td></tr>"
        for p in points
    )
    images = "".join(
        f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    )
    said = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><ul>{said}</ul>"
        "<table><tr><th>choice</th><th>mean score</th><th>95 %</th><th>$ per 1,000</th></tr>"
        f"{rows}</table>{images}</html>\n"
    )
