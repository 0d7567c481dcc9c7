"""Predictions out of fold: of each request by a router that was trained without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semaforo.features.signals import Signals
from semaforo.jobs.learn.train import train
from semaforo.routing.likeness import unit
from semaforo.routing.scorer import Scorer
from semaforo.routing.table import Table

Floats = NDArray[np.float64]


def out_of_fold(
    table: Table, *, folds: int = 5, apart: bool = False, most: int = 0, seed: int = 0
) -> tuple[Floats, Floats]:
    """Predict the scores of all requests out of fold.

    Args:
        table: Scores.
        folds: How many.
        apart: Leave whole groups out, so that every request comes from a group that was not in training.
        most: Requests of training to use in each fold; 0 = all.
        seed: Of the folds and of training.

    Returns:
        Predicted scores (n, m), and the trust in each (n,).
    """
    n = len(table)
    rng = np.random.default_rng(seed)
    if apart:
        names, of = np.unique(np.array(table.groups or table.tasks), return_inverse=True)
        parts = [np.flatnonzero(np.isin(of, p)) for p in np.array_split(rng.permutation(len(names)), folds)]
    else:
        parts = [np.sort(p) for p in np.array_split(rng.permutation(n), folds)]
    scores, trust = np.zeros((n, len(table.models))), np.zeros(n)
    for part in parts:
        rest = np.setdiff1d(np.arange(n), part)
        if most and len(rest) > most:
            rest = np.sort(rng.choice(rest, most, replace=False))
        scorer = Scorer(train(table.rows(rest), seed=seed))
        tasks = np.array(table.tasks, dtype=object)[part]
        for task in sorted(set(tasks.tolist())):
            asked = part[tasks == task]
            scores[asked], trust[asked] = scorer.predict(task, signals_of(table, asked))
    return scores, trust


def signals_of(table: Table, rows: NDArray[np.int64]) -> list[Signals]:
    """Return what is known of some requests."""
    found = []
    for i in rows.tolist():
        numbers = dict(zip(table.features, table.numbers[i].tolist(), strict=True)) if table.features else {}
        vector = unit(table.embeddings[i]) if table.embeddings is not None else None
        found.append(Signals(table.prompts[i], {k: v for k, v in numbers.items() if v == v}, vector))
    return found
