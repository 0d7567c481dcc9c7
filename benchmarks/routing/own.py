"""A table of one's own, by the same code as the public ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.report import Report
from benchmarks.routing.predict import apgr_interval, beside, choices
from semaforo.jobs.learn.crossval import out_of_fold
from semaforo.repository.examples import read_table


def measure(report: Report, path: Path, quick: bool) -> None:
    """Measure what a router learns from a table: the score it reaches, and for two models what it recovers."""
    found = read_table(path)
    whole = np.flatnonzero(~np.isnan(found.scores).any(axis=1))
    if len(whole) < len(found):
        report.note(f"{len(found) - len(whole)} requests that were not put to all models are left out")
        found = found.rows(whole)
    if quick:
        found = found.rows(np.sort(np.random.default_rng(0).permutation(len(found))[:1000]))
    predicted, trust = out_of_fold(found, folds=2 if quick else 5)
    report.add("trust", (float(trust.mean()), float(trust.min()), float(trust.max())))
    title = f"{path.name}: {len(found):,} requests, {len(found.models)} models"
    means = beside(report, title, choices(found, predicted, quick))
    for name in ("mean of the task", "learned"):
        one = means[name]
        report.add(f"score_{name.replace(' ', '_')}", (one.value, one.low, one.high), better="more")
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
