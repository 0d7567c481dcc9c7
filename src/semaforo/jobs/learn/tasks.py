"""Trains what tells tasks apart, on examples of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest
from semaforo.features.signals import Signals
from semaforo.features.text import words_of
from semaforo.routing.predictor import softmax
from semaforo.routing.tasks import TaskModel
from semaforo.routing.threshold import p_value
from semaforo.routing.words import Words, learned

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

RIGHT = 0.95
FOLDS = 4
LEAST_EXAMPLES = 20
_SHARPNESS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
_LEVELS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
_STRANGE = 0.05
"""Share of requests that are like training and may be turned away, so that what is unlike it is."""


def train_tasks(examples: Mapping[str, Sequence[Signals]], *, seed: int = 0) -> TaskModel:
    """Train a model of tasks.

    Args:
        examples: Task → what its requests look like.
        seed: Of the folds.

    Raises:
        InvalidRequest: There are too few tasks or examples.
    """
    tasks = tuple(sorted(examples))
    if len(tasks) < 2:
        raise InvalidRequest("there is one task only: nothing to tell apart")
    for task in tasks:
        if len(examples[task]) < LEAST_EXAMPLES:
            raise InvalidRequest(
                f"'{task}' has {len(examples[task])} examples: give {LEAST_EXAMPLES} at least"
            )
    signals = [s for task in tasks for s in examples[task]]
    labels = np.repeat(np.arange(len(tasks)), [len(examples[task]) for task in tasks])
    order = np.random.default_rng(seed).permutation(len(signals))
    logits = np.zeros((len(signals), len(tasks)))
    strange = np.zeros(len(signals))
    for part in np.array_split(order, FOLDS):
        rest = np.setdiff1d(order, part)
        model = _fit(tasks, [signals[i] for i in rest], labels[rest])
        for i in part.tolist():
            logits[i] = model.logits(signals[i])
            strange[i] = model.strange(signals[i], int(labels[i]))
    sharpness = min(_SHARPNESS, key=lambda s: _loss(s * logits, labels))
    chances = softmax(sharpness * logits)
    wrong = (chances.argmax(axis=1) != labels).astype(float)
    sure = chances.max(axis=1)
    least = max(_level(sure, wrong, seed), float(np.quantile(sure[wrong == 0.0], _STRANGE)))
    whole = _fit(tasks, signals, labels)
    # What a fold has not seen is farther away than what was trained on: the limits make up for that.
    alike, far = whole.alike.copy(), whole.far.copy()
    for k in range(len(tasks)):
        usual = float(np.quantile(strange[labels == k], 1.0 - _STRANGE))
        alike[k] /= max(usual, 1e-6)
        far[k] *= max(usual, 1e-6)
    kept = sure >= least
    figures = {
        "accuracy": 1.0 - float(wrong.mean()), "accepted": float(kept.mean()),
        "accuracy_accepted": 1.0 - float(wrong[kept].mean()) if kept.any() else 0.0,
    }  # fmt: skip
    return msgspec.structs.replace(
        whole, sharpness=float(sharpness), least=least, alike=alike, far=far, figures=figures
    )


def _level(sure: Floats, wrong: Floats, seed: int) -> float:
    """Return the least probability from which answers are right often enough, with 90 % confidence."""
    order = np.random.default_rng(seed).permutation(len(sure))
    best = 1.0
    for level in _LEVELS[::-1]:
        losses = np.where(sure >= level, wrong - (1.0 - RIGHT), 0.0)[order]
        if p_value(losses, 0.0, low=RIGHT - 1.0, high=RIGHT) > 0.1 and level < _LEVELS[-1]:
            break
        best = level
    return best


def _loss(logits: Floats, labels: Indices) -> float:
    chances = softmax(logits)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chances, 1e-12)).mean())


def _fit(tasks: tuple[str, ...], signals: Sequence[Signals], labels: Indices) -> TaskModel:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    k = len(tasks)
    words = [words_of(s.text) if s.text else [] for s in signals]
    vocabulary: Words | None = learned(words) if any(words) else None
    names = tuple(sorted({name for s in signals for name in s.numbers}))
    given = np.array([[s.numbers.get(name, np.nan) for name in names] for s in signals]).reshape(
        len(signals), -1
    )
    middle = np.array([_mean(column) for column in given.T])
    scale = np.array([_spread(column) for column in given.T])
    rows = np.clip(np.nan_to_num((given - middle) / scale), -5.0, 5.0) if names else given
    v = len(vocabulary.idf) if vocabulary is not None else 0
    found = [vocabulary.vector(w) for w in words] if vocabulary is not None else []
    starts = np.cumsum([0, *(len(at) for at, _, _ in found)])
    text = (
        sparse.csr_matrix(
            (np.concatenate([x for _, x, _ in found]), np.concatenate([at for at, _, _ in found]), starts),
            shape=(len(signals), v),
        )
        if found
        else sparse.csr_matrix((len(signals), 0))
    )
    model = LogisticRegression(C=10.0, max_iter=300).fit(sparse.hstack([text, rows]).tocsr(), labels)
    weights, bias = model.coef_.T, model.intercept_
    if k == 2:
        weights, bias = np.hstack([np.zeros_like(weights), weights]), np.array([0.0, bias[0]])
    centroids = np.zeros((v, k), np.float32)
    alike = np.zeros(k)
    for task in range(k):
        own = text[labels == task]
        if v and own.nnz:
            mean = np.asarray(own.mean(axis=0)).ravel()
            centroids[:, task] = mean / max(float(np.linalg.norm(mean)), 1e-9)
            alike[task] = max(
                float(np.quantile(np.asarray(own @ centroids[:, task]).ravel(), _STRANGE)), 1e-3
            )
    means = np.array([[_mean(c) for c in given[labels == t].T] for t in range(k)]).reshape(k, -1)
    spreads = np.array([[_spread(c) for c in given[labels == t].T] for t in range(k)]).reshape(k, -1)
    half = TaskModel(
        tasks, vocabulary, weights[:v].astype(np.float32), centroids, names, means, spreads, middle, scale,
        weights[v:], bias, 1.0, 0.0, alike, np.ones(k),
    )  # fmt: skip
    far = np.ones(k)
    for task in range(k):
        own = [s for s, label in zip(signals, labels, strict=True) if label == task and not s.text]
        away = [half.distance(s, task) for s in own]
        far[task] = max(float(np.quantile(away, 1.0 - _STRANGE)), 1e-3) if away and names else 1.0
    return msgspec.structs.replace(half, far=far)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _spread(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return max(float(known.std()), 1e-3 * max(1.0, float(np.abs(known).max()))) if len(known) else 1.0
