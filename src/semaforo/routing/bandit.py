"""Contextual bandits: learning which model is best from the scores of those alone that were asked.

All three keep, for every model, a ridge regression of scores on features as two sums, so that learners merge by
adding and forget by shrinking. They differ in how they pick:

* ``epsilon``: the best predicted one, but any one with a share ε of the requests.
* ``linucb``: the one that could be best: prediction plus α standard errors (Li et al., WWW 2010).
* ``thompson``: the best one under weights that are drawn from the posterior (Agrawal and Goyal, ICML 2013).

Every pick keeps a floor of chance for each model, and its probability is returned: exactly for ``epsilon`` and
``linucb``, for ``thompson`` as the share of `DRAWS` samples, of which the pick itself is one.

`contrasts` learns from a whole log at once, by what each model is worth *beyond the mean of all* on a request: what
makes requests hard for every model is taken out first, and with it most of the noise.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["epsilon", "linucb", "thompson"]

DRAWS = 64
PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
_FOLDS = 5


class Bandit(msgspec.Struct):
    """A learner.

    Attributes:
        kind: How it picks.
        covariance: (m, d, d) inverse of the sum of x xᵀ over the requests of each model, plus the ridge.
        sums: (m, d) sum of x times score.
        floor: Share of requests that any model may answer.
        wide: Standard errors (``linucb``), or scale of the posterior (``thompson``).
        fade: What older requests count for at each new one of the same model; 1 = nothing is forgotten.
    """

    kind: Kind
    covariance: Floats
    sums: Floats
    floor: float = 0.05
    wide: float = 0.3
    fade: float = 1.0

    def weights(self) -> Floats:
        """Return the weights of each model ``(m, d)``."""
        found: Floats = np.einsum("mij,mj->mi", self.covariance, self.sums)
        return found

    def pick(self, x: Floats, rng: np.random.Generator) -> tuple[int, Floats]:
        """Pick a model for a request.

        Args:
            x: (d,) features, the first of them 1.
            rng: Chance.

        Returns:
            The model, and the probability of each ``(m,)``.
        """
        spread = np.einsum("i,mij->mj", x, self.covariance)
        means = np.einsum("mi,mi->m", spread, self.sums)
        errors = np.sqrt(np.maximum(spread @ x, 0.0))
        m = len(means)
        if self.kind == "thompson":
            # Along x alone a draw of the weights is a draw of the score.
            draws = means + self.wide * errors * rng.standard_normal((DRAWS, m))
            wish = np.bincount(draws.argmax(axis=1), minlength=m) / DRAWS
        else:
            bonus = self.wide * errors if self.kind == "linucb" else 0.0
            wish = np.zeros(m)
            wish[int((means + bonus).argmax())] = 1.0
        chances = (1.0 - self.floor) * wish + self.floor / m
        return int(rng.choice(m, p=chances)), chances

    def learn(self, model: int, x: Floats, score: float) -> None:
        """Take in the score of the model that was asked (Sherman and Morrison, 1950)."""
        inverse = self.covariance[model]
        if self.fade < 1.0:
            inverse /= self.fade
            self.sums[model] *= self.fade
        along = inverse @ x
        inverse -= np.outer(along, along) / (1.0 + x @ along)
        self.sums[model] += score * x


def begun(kind: Kind, models: int, features: int, *, ridge: float = 10.0, floor: float = 0.05) -> Bandit:
    """Return a learner that knows nothing."""
    covariance = np.tile(np.eye(features) / ridge, (models, 1, 1))
    return Bandit(kind, covariance, np.zeros((models, features)), floor)


def merged(one: Bandit, other: Bandit, ridge: float = 10.0) -> Bandit:
    """Return what two learners that began alike know together."""
    start = ridge * np.eye(one.covariance.shape[1])
    precision = np.linalg.inv(one.covariance) + np.linalg.inv(other.covariance) - start
    return msgspec.structs.replace(one, covariance=np.linalg.inv(precision), sums=one.sums + other.sums)


def contrasts(x: Floats, picks: NDArray[np.int64], scores: Floats, chances: Floats) -> Floats:
    """Learn from a log what each model is worth beyond the mean of all.

    Args:
        x: (n, d) features.
        picks: (n,) model that was asked.
        scores: (n,) its score.
        chances: (n, m) probability with which each would have been.

    Returns:
        Weights (m, d): the best model for a request is the one with the largest ``x @ weights.T``.
    """
    n, m = chances.shape
    rows = np.arange(n)
    weight = 1.0 / (m * chances[rows, picks])
    usual = np.empty(n)
    for k in range(_FOLDS):
        out = rows % _FOLDS == k
        usual[out] = x[out] @ ridge(x[~out], scores[~out, None], weight[~out])[:, 0]
    # Over the chance of the pick this is, on average, each model's score less the mean of all.
    targets = np.zeros((n, m))
    targets[rows, picks] = 1.0 / chances[rows, picks]
    targets -= weight[:, None]
    return ridge(x, targets * (scores - usual)[:, None]).T


def ridge(x: Floats, targets: Floats, weights: Floats | None = None) -> Floats:
    """Return the weights ``(d, h)`` of a ridge regression whose penalty is chosen by cross-validation.

    Args:
        x: (n, d) features.
        targets: (n, h).
        weights: (n,) of the rows; None = all alike.
    """
    n, d = x.shape
    w = np.ones(n) if weights is None else weights
    fold = np.arange(n) % _FOLDS
    parts = [(x[fold == k], targets[fold == k], w[fold == k]) for k in range(_FOLDS)]
    squares = [a.T @ (a * v[:, None]) for a, _, v in parts]
    sides = [a.T @ (t * v[:, None]) for a, t, v in parts]
    whole, side = sum(squares), sum(sides)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for k, (a, t, v) in enumerate(parts):
            found = np.linalg.solve(whole - squares[k] + penalty * np.eye(d), side - sides[k])
            error += float((v[:, None] * (t - a @ found) ** 2).sum())
        errors.append(error)
    best: Floats = np.linalg.solve(whole + PENALTIES[int(np.argmin(errors))] * np.eye(d), side)
    return best
