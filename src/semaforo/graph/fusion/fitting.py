"""Fitting combiners on labelled rows: what members said, and what was right.

What is returned is plain data, ready for JSON; `learned` applies it. Fit on rows that no member was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.learned import VERSION, log_probabilities

Array = NDArray[Any]
FITTED_BY = {"stack": "stack", "bayes": "bayes", "mean": "weights", "product": "exponents", "vote": "votes"}
"""Method of fusion → what is fitted for it."""

_ROUNDS = 200
_STEPS = 50
_PULL = 1e-4


def fit(kind: str, said: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    """Fit a combiner.

    Args:
        kind: ``stack``, ``bayes``, ``weights`` for a mean, ``exponents`` for a product, or ``votes`` for a vote.
        said: Member → probabilities ``(rows, classes)``; for votes labels ``(rows,)``.
        labels: The right classes ``(rows,)``.

    Raises:
        InvalidRequest: There is nothing to fit on, or no such kind.
    """
    if not said or not len(labels):
        raise InvalidRequest("there are no labelled rows to fit on")
    ways = {"stack": stack, "bayes": bayes, "weights": weights, "exponents": exponents, "votes": votes}
    if kind not in ways:
        raise InvalidRequest(f"'{kind}' is not fitted; there are {', '.join(ways)}")
    return ways[kind](said, labels)


def stack(said: Mapping[str, Array], labels: Array, *, strength: float = 1.0) -> dict[str, Any]:
    """Fit a multinomial logistic regression over all members' log probabilities, by scikit-learn.

    Args:
        said: Member → probabilities ``(rows, classes)``.
        labels: The right classes.
        strength: Inverse of the regularisation.
    """
    from sklearn.linear_model import LogisticRegression

    names = list(said)
    classes = said[names[0]].shape[1]
    parts = [log_probabilities(said[name]) for name in names]
    model = LogisticRegression(C=strength / len(names), max_iter=_ROUNDS, tol=1e-3)
    features = np.concatenate(parts, axis=1)
    scale = features.std() or 1.0
    model.fit(features / scale, labels)
    coefficients = np.zeros((classes, features.shape[1]))
    bias = np.full(classes, -30.0)
    known = model.classes_.astype(int)
    if len(known) == 2:
        coefficients[known[1]], bias[known] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        coefficients[known], bias[known] = model.coef_, model.intercept_
    coefficients /= scale
    members = {}
    for number, name in enumerate(names):
        own = coefficients[:, number * classes : (number + 1) * classes].T
        members[name] = {"weights": _rounded(own), "mean": _rounded(parts[number].mean(axis=0))}
    return {
        "kind": "stack",
        "version": VERSION,
        "classes": classes,
        "bias": _rounded(bias),
        "members": members,
    }


def bayes(said: Mapping[str, Array], labels: Array, *, smoothing: float = 1.0) -> dict[str, Any]:
    """Count each member's confusion matrix.

    Args:
        said: Member → probabilities ``(rows, classes)``.
        labels: The right classes.
        smoothing: Rows added to each row of a matrix: spread evenly, but half of them on the diagonal.
    """
    names = list(said)
    classes = said[names[0]].shape[1]
    prior = np.bincount(labels, minlength=classes) + smoothing
    members = {}
    for name in names:
        counts = np.full((classes, classes), 0.5 * smoothing / classes)
        counts[np.diag_indices(classes)] += 0.5 * smoothing
        np.add.at(counts, (labels, said[name].argmax(axis=1)), 1.0)
        members[name] = {"confusion": _rounded(counts / counts.sum(axis=1, keepdims=True), 8)}
    return {
        "kind": "bayes",
        "version": VERSION,
        "classes": classes,
        "prior": _rounded(prior / prior.sum(), 8),
        "members": members,
    }


def weights(said: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    """Find the weights of a mean with the least log loss, by the EM steps of a mixture.

    Each step multiplies a weight by how much of the right answers' probability is its member's (Dempster, Laird and
    Rubin, 1977); the loss never grows.
    """
    names = list(said)
    rows = np.arange(len(labels))
    right = np.stack([np.maximum(said[name][rows, labels], 1e-9) for name in names])
    found = np.full(len(names), 1.0 / len(names))
    for _ in range(_ROUNDS):
        shares = found[:, None] * right
        found = (shares / shares.sum(axis=0)).mean(axis=1)
    return {
        "kind": "weights",
        "version": VERSION,
        "weights": {name: round(float(w), 6) for name, w in zip(names, found, strict=True)},
    }


def exponents(said: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    """Find the exponents of a product with the least log loss, by Newton's method on a convex loss.

    One number for each member, which also sets right what is over- or underconfident: little to learn, so that few
    labelled rows will do where `stack` would need many.
    """
    names = list(said)
    rows = np.arange(len(labels))
    logs = np.stack([log_probabilities(said[name]) for name in names])
    found = np.full(len(names), 1.0 / len(names))
    for _ in range(_STEPS):
        total = np.tensordot(found, logs, 1)
        total = np.exp(total - total.max(axis=1, keepdims=True))
        total /= total.sum(axis=1, keepdims=True)
        mean = np.einsum("rc,mrc->mr", total, logs)
        slope = (mean - logs[:, rows, labels]).mean(axis=1) + _PULL * found
        second = np.einsum("rc,mrc,nrc->mn", total, logs, logs, optimize=True) / len(
            labels
        ) - mean @ mean.T / len(labels)
        step = np.linalg.solve(second + _PULL * np.eye(len(names)), slope)
        # A member that is worse than nothing is left out, not believed backwards.
        found = np.maximum(found - step / max(1.0, float(np.abs(step).max())), 0.0)
        if np.abs(step).max() < 1e-5:
            break
    return {
        "kind": "exponents",
        "version": VERSION,
        "weights": {name: round(float(w), 6) for name, w in zip(names, found, strict=True)},
    }


def votes(said: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    """Weigh voters by the log odds of being right, as is best where they err independently.

    Each error is taken to fall on any other label alike (Nitzan and Paroush, 1982); nobody is believed backwards.

    Args:
        said: Member → labels ``(rows,)``.
        labels: The right ones.
    """
    others = max(1, len(set(labels.tolist())) - 1)
    found = {}
    for name, answers in said.items():
        share = (float(np.sum(answers == labels)) + 1.0) / (len(labels) + 2.0)
        found[name] = round(max(0.0, float(np.log(others * share / (1.0 - share)))), 6)
    return {"kind": "votes", "version": VERSION, "weights": found}


def _rounded(values: Array, digits: int = 6) -> Any:
    return np.round(values, digits).tolist()
