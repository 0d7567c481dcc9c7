"""A table of one's own, by the same code as the public ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.report import Report, table
from benchmarks.routing.predict import apgr_interval, by_length, out_of_fold_means, picked
from semaforo.jobs.learn.crossval import out_of_fold
from semaforo.repository.examples import read_table
from semaforo.routing import metrics


def measure(report: Report, path: Path, quick: bool) -> None:
    """Measure what a router learns from a table: the score it reaches, and for two models what it recovers."""
    found = read_table(path)
    whole = np.flatnonzero(~np.isnan(found.scores).any(axis=1))
    if len(whole) < len(found):
        report.note(f"{len(found) - len(whole)} requests that were not put to all models are left out")
        found = found.rows(whole)
    if quick:
        found = found.rows(np.sort(np.random.default_rng(0).permutation(len(found))[:1000]))
    folds = 2 if quick else 5
    predicted, trust = out_of_fold(found, folds=folds)
    report.add("trust", (float(trust.mean()), float(trust.min()), float(trust.max())))
    chosen = {
        "random": found.scores.mean(axis=1),
        "best single": found.scores[:, int(found.scores.mean(axis=0).argmax())],
        "prompt length": found.scores[np.arange(len(found)), by_length(found, quick)],
        "mean of the task": picked(found, out_of_fold_means(found, folds)),
        "learned": picked(found, predicted),
        "oracle": found.scores.max(axis=1),
    }
    shown = table(
        f"{path.name}: {len(found):,} requests, {len(found.models)} models", "router", "mean score", "95 %"
    )
    for name, scores in chosen.items():
        one = metrics.bootstrap(lambda at, scores=scores: float(scores[at].mean()), len(found))  # type: ignore[misc]
        shown.add_row(name, f"{one.value:.4f}", f"{one.low:.3f} … {one.high:.3f}")
        if name in ("learned", "mean of the task"):
            report.add(f"score_{name.replace(' ', '_')}", (one.value, one.low, one.high), better="more")
    report.tables.append(shown)
    if len(found.models) == 2:
        _gap(report, found.scores, predicted, [len(p) for p in found.prompts])


def _gap(report: Report, scores: np.ndarray, predicted: np.ndarray, lengths: list[int]) -> None:
    dear = int(scores.mean(axis=0).argmax())
    gain = scores[:, dear] - scores[:, 1 - dear]
    if not gain.sum():
        report.note("both models are equally good on average: there is no gap to recover")
        return
    for key, order in (
        ("apgr", predicted[:, dear] - predicted[:, 1 - dear]), ("apgr_length", np.array(lengths, float)),
        ("apgr_oracle", gain),
    ):  # fmt: skip
        one = apgr_interval(gain, order)
        report.add(key, (one.value, one.low, one.high), better="more")
