"""Cascades that look at the cheap answer, and whether thresholds keep what they promise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report, share_interval, table
from benchmarks.routing import data
from benchmarks.routing.predict import apgr_interval
from semaforo.jobs.learn.crossval import out_of_fold
from semaforo.routing import metrics
from semaforo.routing.cascade import cascade_table
from semaforo.routing.table import Table
from semaforo.routing.threshold import for_quality

Floats = NDArray[np.float64]

GIVE_UP, DELTA = 0.03, 0.1
CALIBRATION = 500


def measure_gsm8k(report: Report, quick: bool) -> None:
    """GSM8K: the cheap model answers, a verifier looks at its answer, out of fold."""
    found = data.gsm8k(240 if quick else 0)
    if found is None:
        report.note("GSM8K is not at hand: no cascade is measured")
        return
    report.progress("GSM8K: a verifier of the cheap answer")
    folds = 2 if quick else 5
    gain = found.scores[:, 1] - found.scores[:, 0]
    seen, _ = out_of_fold(cascade_table(found, "weak"), folds=folds)
    blind, _ = out_of_fold(_blind(found), folds=folds)
    rows: list[tuple[str, Floats]] = [
        ("random", np.random.default_rng(0).random(len(found))),
        ("prompt length", np.array([len(p) for p in found.prompts], float)),
        ("prompt only", blind[:, 1] - blind[:, 0]),
        ("cascade: prompt and cheap answer", seen[:, 1] - seen[:, 0]),
        ("oracle", gain),
    ]
    weak, strong = found.scores.mean(axis=0)
    title = f"GSM8K, {len(found):,} questions: weak {weak:.4f}, strong {strong:.4f}"
    shown = table(title, "router", "APGR", "95 %", "CPT(50 %)", "CPT(80 %)")
    for title, order in rows:
        one = apgr_interval(gain, order)
        cpts = [metrics.cpt(gain, order, share) for share in (0.5, 0.8)]
        shown.add_row(
            title, f"{one.value:.3f}", f"{one.low:.3f} … {one.high:.3f}", *(f"{c:.1%}" for c in cpts)
        )
    report.tables.append(shown)
    order = rows[3][1]
    one = apgr_interval(gain, order)
    report.add("gsm8k_cascade_apgr", (one.value, one.low, one.high), aim=0.80, better="more")
    price = metrics.bootstrap(lambda at: metrics.cpt(gain[at], order[at], 0.8), len(gain))
    report.add("gsm8k_cascade_cpt80", (price.value, price.low, price.high), aim=0.35)
    if report.keeping:
        _plot(report, gain, rows)
    _hold(report, "gsm8k", gain, order, 50 if quick else 1000)


def _blind(found: Table) -> Table:
    return Table(found.models, found.tasks, found.prompts, found.scores, found.costs)


def _hold(report: Report, name: str, gain: Floats, order: Floats, resamplings: int) -> None:
    """Draw rows to set the threshold on, and look whether it keeps its promise on the rows it was not set on.

    The table is the population: rows are drawn from it with replacement, so that the true mean loss of a threshold
    is known, and what is counted is the promise itself, not the noise of a held-out half.
    """
    report.progress(f"thresholds on {name}: {resamplings} resamplings")
    rng = np.random.default_rng(0)
    held, calls, kept = 0, [], 0
    for draw in range(resamplings):
        at = rng.integers(0, len(gain), min(CALIBRATION, len(gain)))
        promise = for_quality(order[at], gain[at], give_up=GIVE_UP, delta=DELTA, seed=draw)
        true_loss = float(np.where(order < promise.threshold, gain, 0.0).mean())
        held += true_loss <= GIVE_UP
        kept += promise.kept
        calls.append(float((order >= promise.threshold).mean()))
    share = share_interval(held, resamplings)
    report.add("threshold_holds_share", share, aim=1 - DELTA, better="more")
    report.add("threshold_calls", metrics_of(calls))
    report.note(
        f"thresholds: {min(CALIBRATION, len(gain))} rows of {name} to set each on, {GIVE_UP:.0%} of the score "
        f"may be lost with {1 - DELTA:.0%} confidence, {kept} of {resamplings} could promise it; "
        "the loss is that on the whole table, from which the rows were drawn"
    )


def metrics_of(values: list[float]) -> tuple[float, float, float]:
    """Return the mean of some values and the bounds between which 95 % of them lie."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def _plot(report: Report, gain: Floats, rows: list[tuple[str, Floats]]) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("share of calls to the strong model", "share of the gap recovered")
    for title, order in rows:
        curve = metrics.pgr_curve(gain, order)
        axes.plot(np.linspace(0, 1, len(curve)), curve, label=title, lw=1.3)
    axes.legend(fontsize=8)
    axes.set_title("GSM8K: what looking at the cheap answer is worth")
    save(plot, report.plot_path("gsm8k"))
