"""Trains the level that looks at embeddings, on top of what the other levels said out of fold."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.routing.embedded import PARTS, Embedded

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Folds = Sequence[tuple[Indices, Indices]]

POINTS = 1024
_PENALTIES = (0.1, 1.0, 10.0, 100.0)
_SHARPNESS = (5.0, 10.0, 20.0, 40.0)
LEAST_ROWS = 30


class Told(msgspec.Struct, frozen=True):
    """What the other levels said out of fold.

    Attributes:
        folds: By which rows it was said of which.
        targets: (n, h).
    """

    folds: Folds
    targets: Floats


def train_embedded(
    embeddings: NDArray[np.float32],
    targets: Floats,
    inside: Told,
    outside: Told | None,
    space: str,
    seed: int,
) -> Embedded | None:
    """Train the level; None where too few requests have an embedding.

    Args:
        embeddings: (n, d) of each request; NaN where it has none.
        targets: (n, h) less the base, NaN where nobody knows.
        inside: What the other levels said of rows that were left out.
        outside: The same of whole groups that were left out; None where there are none.
        space: ``model/version`` that made them, "" = not said.
        seed: Of everything that is drawn.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    known = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0.0)
    if known.sum() < LEAST_ROWS:
        return None
    units = np.where(known[:, None], embeddings / np.where(known[:, None], lengths, 1.0), 0.0)
    middle = units[known].mean(axis=0).astype(np.float32)
    places = np.where(known[:, None], units - middle, 0.0).astype(np.float32)
    rows = np.flatnonzero(known)
    penalty, sharpness = _tuned(places, targets, rows, inside.folds[0], seed)
    weights = _weights(places, targets, known, inside, penalty, sharpness, seed)
    apart = np.zeros_like(weights)
    apart[0] = 1.0
    if outside is not None:
        apart = _weights(places, targets, known, outside, penalty, sharpness, seed)
    points, scored = _points(places, targets, rows, seed)
    linear = _linear(places, targets, rows, penalty)
    return Embedded(space, middle, linear, points, scored, sharpness, weights, apart)


def _tuned(
    places: NDArray[np.float32], targets: Floats, rows: Indices, fold: tuple[Indices, Indices], seed: int
) -> tuple[float, float]:
    fitted, asked = (np.intersect1d(part, rows) for part in fold)

    def error(said: Floats) -> float:
        return float(np.nanmean((targets[asked] - said) ** 2))

    if not len(fitted) or not np.isfinite(targets[asked]).any():
        return _PENALTIES[1], _SHARPNESS[1]
    wide = places[asked].astype(np.float64)
    penalty = min(_PENALTIES, key=lambda p: error(wide @ _linear(places, targets, fitted, p)))
    points, scored = _points(places, targets, fitted, seed)
    sharpness = min(_SHARPNESS, key=lambda s: error(_near(places[asked], points, scored, s)))
    return penalty, sharpness


def _weights(
    places: NDArray[np.float32],
    targets: Floats,
    known: NDArray[np.bool_],
    told: Told,
    penalty: float,
    sharpness: float,
    seed: int,
) -> Floats:
    """Return the weights ``(3, h)`` of the stack, from what is said out of fold."""
    n, h = targets.shape
    said = np.zeros((n, len(PARTS), h))
    said[:, 0] = told.targets
    part = np.full(n, -1)
    for number, (fitted, asked) in enumerate(told.folds):
        fitted, asked = fitted[known[fitted]], asked[known[asked]]
        if not len(fitted) or not len(asked):
            continue
        part[asked] = number
        said[asked, 1] = places[asked] @ _linear(places, targets, fitted, penalty)
        points, scored = _points(places, targets, fitted, seed)
        said[asked, 2] = _near(places[asked], points, scored, sharpness)
    weights = np.zeros((len(PARTS), h))
    for k in range(h):
        rows = (part >= 0) & ~np.isnan(targets[:, k])
        weights[:, k] = _earned(said[rows, :, k], targets[rows, k], part[rows])
    return weights


def _earned(said: Floats, target: Floats, part: Indices) -> Floats:
    """Return the weights ``(3,)`` of a target, non-negative; the stack alone where they are worth no more.

    Weights have to earn their place: with those of the other parts, the squared error on each part has to fall by
    more than its standard error over the parts (the rule of one standard error: Breiman et al., Classification and
    Regression Trees, 1984). Where whole groups are left out, parts are few and unlike, and weights that fit them
    all may be far off on the next.

    Args:
        said: (n, 3) what each of `PARTS` says out of fold.
        target: (n,)
        part: (n,) number of the fold that was left out.
    """
    from scipy.optimize import nnls

    alone = np.zeros(len(PARTS))
    alone[0] = 1.0
    parts = np.unique(part)
    if len(target) < LEAST_ROWS or len(parts) < 2:
        return alone
    gains = []
    for one in parts:
        held = part == one
        weights = nnls(said[~held], target[~held])[0]
        before, after = target[held] - said[held, 0], target[held] - said[held] @ weights
        gains.append(float(np.mean(before**2 - after**2)))
    if np.mean(gains) <= np.std(gains, ddof=1) / np.sqrt(len(gains)):
        return alone
    found: Floats = nnls(said, target)[0]
    return found


def _linear(
    places: NDArray[np.float32], targets: Floats, rows: Indices, penalty: float
) -> NDArray[np.float32]:
    from sklearn.linear_model import Ridge

    weights = np.zeros((places.shape[1], targets.shape[1]), np.float32)
    for k in range(targets.shape[1]):
        kept = rows[~np.isnan(targets[rows, k])]
        if len(kept):
            model = Ridge(alpha=penalty, fit_intercept=False)
            weights[:, k] = model.fit(places[kept].astype(np.float64), targets[kept, k]).coef_
    return weights


def _points(
    places: NDArray[np.float32], targets: Floats, rows: Indices, seed: int
) -> tuple[NDArray[np.float32], Floats]:
    kept = rows[~np.isnan(targets[rows]).any(axis=1)]
    if len(kept) > POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, POINTS, replace=False))
    if not len(kept):
        return np.zeros((1, places.shape[1]), np.float32), np.zeros((1, targets.shape[1]))
    lengths = np.maximum(np.linalg.norm(places[kept], axis=1, keepdims=True), 1e-9)
    return places[kept] / lengths.astype(np.float32), targets[kept]


def _near(
    places: NDArray[np.float32], points: NDArray[np.float32], scored: Floats, sharpness: float
) -> Floats:
    units = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-9)
    found = np.empty((len(places), scored.shape[1]))
    for part in np.array_split(np.arange(len(places)), max(1, len(places) // 1024)):
        alike = sharpness * (units[part] @ points.T)
        weights = np.exp(alike - alike.max(axis=1, keepdims=True))
        found[part] = (weights @ scored) / weights.sum(axis=1, keepdims=True)
    return found
