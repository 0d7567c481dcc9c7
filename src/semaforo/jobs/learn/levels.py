"""The levels of a predictor's stack, each fitted to some rows and asked about others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.routing.predictor import Topics, softmax
from semaforo.routing.trees import LEAVES, Trees
from semaforo.routing.words import Words

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

PENALTIES = (3.0, 10.0, 30.0, 100.0)
SHARPNESS = (5.0, 10.0, 20.0, 40.0, 80.0)
TREES: dict[str, Any] = {
    "max_iter": 60, "learning_rate": 0.05, "max_depth": 4, "max_leaf_nodes": LEAVES, "min_samples_leaf": 40,
    "l2_regularization": 5.0, "max_features": 0.3, "early_stopping": False,
}  # fmt: skip


class Texts(msgspec.Struct, frozen=True):
    """The words of all rows, as one sparse matrix.

    Attributes:
        words: How it was made.
        matrix: (n, v) scipy CSR, rows of length 1.
        unknown: (n,) share of buckets without a column.
    """

    words: Words
    matrix: Any
    unknown: Floats


def texts_of(words: Words, texts: Sequence[Sequence[str]]) -> Texts:
    """Turn texts, given as their words, into vectors."""
    from scipy import sparse

    found = [words.vector(text) for text in texts]
    starts = np.cumsum([0, *(len(at) for at, _, _ in found)])
    matrix = sparse.csr_matrix(
        (np.concatenate([v for _, v, _ in found]), np.concatenate([at for at, _, _ in found]), starts),
        shape=(len(texts), len(words.idf)),
    )
    unknown = np.array([share for _, _, share in found])
    return Texts(words, matrix, unknown)


def fit_linear(texts: Texts, targets: Floats, rows: Indices, penalty: float) -> NDArray[np.float32]:
    """Return the weights ``(v, h)`` of a ridge regression on targets ``(n, h)``, in which NaN rows are left out."""
    from sklearn.linear_model import Ridge

    weights = np.zeros((texts.matrix.shape[1], targets.shape[1]), np.float32)
    for k in range(targets.shape[1]):
        kept = rows[~np.isnan(targets[rows, k])]
        if len(kept):
            model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-3, fit_intercept=False)
            weights[:, k] = model.fit(texts.matrix[kept], targets[kept, k]).coef_
    return weights


def fit_topics(
    texts: Texts, groups: NDArray[np.int64], targets: Floats, rows: Indices, sharpness: float
) -> Topics:
    """Return the groups ``(n,)`` of rows as directions, with the means of their targets."""
    from scipy import sparse

    of, seen = groups[rows], np.unique(groups[rows])
    member = sparse.csr_matrix(
        (np.ones(len(rows), np.float32), (np.searchsorted(seen, of), np.arange(len(rows)))),
        shape=(len(seen), len(rows)),
    )
    sums = np.asarray((member @ texts.matrix[rows]).todense())
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    means = np.stack([shrunk_means(targets[rows, k], of, seen) for k in range(targets.shape[1])], axis=1)
    return Topics(sums.T.astype(np.float16), sharpness, means)


def ask_topics(topics: Topics, matrix: Any) -> tuple[Floats, Floats]:
    """Return what `Predictor.levels` would for rows ``(n, v)``: the level ``(n, h)`` and the likeness ``(n,)``."""
    alike = np.asarray(matrix @ topics.centroids.astype(np.float32))
    return softmax(topics.sharpness * alike) @ topics.means, alike.max(axis=1).astype(np.float64)


def fit_trees(rows: Floats, target: Floats, seed: int) -> Trees:
    """Fit boosted trees to a target ``(n,)``; rows without one (NaN) are left out."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    kept = ~np.isnan(target)
    # A feature that nobody has seen tells nothing; scikit-learn fails on it.
    rows = np.where(np.isnan(rows[kept]).all(axis=0), 0.0, rows)
    model = HistGradientBoostingRegressor(**TREES, random_state=seed).fit(rows[kept], target[kept])
    return exported(model)


def exported(model: Any) -> Trees:
    """Return a fitted `HistGradientBoostingRegressor` as plain arrays."""
    parts = [stage[0].nodes for stage in model._predictors]
    starts = np.cumsum([0, *(len(nodes) for nodes in parts)])[:-1].astype(np.int32)
    nodes = np.concatenate(parts)
    offset = np.repeat(starts, [len(part) for part in parts])
    leaf = nodes["is_leaf"].astype(bool)
    own = np.arange(len(nodes), dtype=np.int32)
    return Trees(
        roots=starts,
        ends=np.array([len(parts)], np.int32),
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, np.inf, nodes["num_threshold"]),
        left=np.where(leaf, own, nodes["left"].astype(np.int32) + offset).astype(np.int32),
        right=np.where(leaf, own, nodes["right"].astype(np.int32) + offset).astype(np.int32),
        missing_left=np.where(leaf, True, nodes["missing_go_to_left"].astype(bool)),
        value=np.where(leaf, nodes["value"], 0.0),
        base=np.asarray(model._baseline_prediction, np.float64).ravel()[:1],
        depth=int(nodes["depth"].max()),
    )


def shrunk_means(values: Floats, of: NDArray[np.int64], groups: NDArray[np.int64]) -> Floats:
    """Return the mean of each group, drawn towards 0 as its noise demands (empirical Bayes, method of moments).

    Args:
        values: (n,) with NaN for unknown.
        of: (n,) group of each.
        groups: (g,) groups to return.
    """
    known = ~np.isnan(values)
    values, of = values[known], of[known]
    counts = np.array([(of == g).sum() for g in groups])
    sums = np.array([values[of == g].sum() for g in groups])
    seen = counts > 0
    means = np.where(seen, sums / np.maximum(counts, 1), 0.0)
    lookup = dict(zip(groups.tolist(), means.tolist(), strict=True))
    within = (
        float(np.mean((values - np.array([lookup.get(int(g), 0.0) for g in of])) ** 2))
        if len(values)
        else 1.0
    )
    noise = float((within / np.maximum(counts[seen], 1)).mean()) if seen.any() else 0.0
    between = max(float((means[seen] ** 2).mean()) - noise, 1e-9) if seen.any() else 1e-9
    shrink = within / between if between else np.inf
    # Where all values are told by their groups there is no noise, and a group without any would be 0 / 0.
    found: Floats = np.where(seen, sums / np.maximum(counts + shrink, 1.0), 0.0)
    return found
