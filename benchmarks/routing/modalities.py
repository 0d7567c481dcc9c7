"""Routers that see what pictures, sounds and rows of a table are like, beside one that knows the task alone.

The posterior of a task knows how good each model is on average, and so cannot tell one request from another: to
spend as much as the router, it asks the dear model for as many requests, drawn by chance. What is measured is by
how much more answers are right when the requests are chosen by the router, at half of the dear calls. The router is
the real one, trained on the features that a fleet would see, and judged out of fold.
"""

from __future__ import annotations

import numpy as np
from rich.table import Table

from benchmarks.report import Report, table
from benchmarks.routing import conditions
from benchmarks.routing.conditions import Modality
from semaforo.jobs.learn.crossval import out_of_fold
from semaforo.routing import metrics

MADE = (conditions.pictures, conditions.sounds, conditions.rows)


def measure(report: Report, quick: bool) -> None:
    """Measure all modalities."""
    shown = table(
        "requests in good and bad condition, half of the dear calls", "modality", "condition", "requests", "cheap",
        "dear", "posterior", "router", "dear calls",
    )  # fmt: skip
    for make in MADE:
        modality = make(quick)
        report.progress(f"{modality.name}: {len(modality.rows):,} requests, a router that sees them")
        found = modality.table()
        predicted, _ = out_of_fold(found, folds=2 if quick else 5)
        _add(report, shown, modality, predicted[:, 1] - predicted[:, 0], len(found.features))
    report.tables.append(shown)


def _add(report: Report, shown: Table, modality: Modality, order: np.ndarray, features: int) -> None:
    cheap, dear = modality.right.T
    n = len(order)
    asks = np.zeros(n)
    asks[np.argsort(-order, kind="stable")[: n // 2]] = 1.0
    routed = np.where(asks > 0, dear, cheap)
    # As many dear calls as the router makes, drawn by chance: what they are expected to bring, without the draw.
    share = float(asks.mean())
    by_chance = (1.0 - share) * cheap + share * dear
    gain = metrics.bootstrap(lambda at: float((routed - by_chance)[at].mean()), n)
    best = float(np.maximum(cheap, dear).mean())
    report.add(f"{modality.name}_gain_over_posterior", (gain.value, gain.low, gain.high), better="more")
    for number, name in enumerate((*modality.conditions, "all")):
        at = modality.condition == number if number < len(modality.conditions) else np.ones(n, bool)
        means = (one[at].mean() for one in (cheap, dear, by_chance, routed))
        shown.add_row(
            modality.name, name, f"{at.sum():,}", *(f"{mean:.3f}" for mean in means), f"{asks[at].mean():.0%}"
        )
    if gain.low > 0:
        verdict = "the router beats the posterior, outside the interval"
    elif gain.high < 0:
        verdict = "the router is worse than the posterior"
    else:
        verdict = "the router does not beat the posterior: the interval holds 0"
    report.note(
        f"{modality.name}: {verdict} at the same cost; {features} features; one of the two models is right on "
        f"{best:.1%} of {n:,} requests"
    )
