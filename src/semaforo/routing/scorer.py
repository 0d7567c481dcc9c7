"""Predicts scores with a trained predictor, one request in some tens of microseconds.

The matrices of all levels stand side by side, so that the words of a request are looked up once; the trees of all
targets are walked together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import numpy as np
from numpy.typing import NDArray

from semaforo.features.signals import Signals
from semaforo.features.text import text_vector, words_of
from semaforo.routing.predictor import PARTS, Predictor
from semaforo.routing.trees import Forest

Floats = NDArray[np.float64]

_UNSURE = 50.0


class Scorer:
    """A predictor, ready to be asked.

    Args:
        predictor: What was learned.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._h = len(predictor.basis)
        self._forest = Forest(predictor.trees) if predictor.trees else None
        self._embedded = predictor.embedded
        self._usual: dict[str, Floats] = {}
        # What a known task adds is no matter of the domain: out of it, it is all there is.
        outside = np.vstack([np.ones((1, self._h)), predictor.outside[1:]])
        self._known = (outside, predictor.inside - outside)
        topics = predictor.topics
        self._means = _with_ones(topics.means) if topics is not None else None
        self._domain: list[float] = predictor.domain.tolist()
        blocks: list[NDArray[np.float32]] = []
        self._at: list[slice] = []
        columns = 0
        for block in (
            predictor.linear,
            topics.centroids if topics is not None else None,
        ):
            width = 0 if block is None else block.shape[1]
            self._at.append(slice(columns, columns + width))
            columns += width
            if block is not None:
                blocks.append(block.astype(np.float32))
        self._matrix = np.ascontiguousarray(np.hstack(blocks)) if blocks else None

    def usual(self, task: str) -> Floats:
        """Return `Predictor.usual`, worked out once for each task that is known."""
        if self.predictor.own(task) is None:
            return self.predictor.base
        if task not in self._usual:
            self._usual[task] = self.predictor.usual(task)
        return self._usual[task]

    def predict(self, task: str, signals: Sequence[Signals]) -> tuple[Floats, Floats]:
        """Return predicted scores ``(n, m)`` in 0…1, and how far each request is in the domain, ``(n,)`` in 0…1."""
        predictor = self.predictor
        scores = np.empty((len(signals), len(predictor.base)))
        trust = np.zeros(len(signals))
        known = predictor.own(task) is not None
        for i, signal in enumerate(signals):
            levels, sure = self._look(task, signal)
            if known:
                trust[i] = sure
                outside, more = self._known
                weights = outside + sure * more
            else:
                weights = predictor.outside
            targets = np.add.reduce(levels * weights)
            if signal.embedding is not None and self._embedded is not None:
                targets = self._embedded.told(targets, signal.embedding, trust[i])
            scores[i] = predictor.base + targets @ predictor.basis
        np.maximum(scores, 0.0, out=scores)
        return np.minimum(scores, 1.0, out=scores), trust

    def _look(self, task: str, signal: Signals) -> tuple[Floats, float]:
        """Return what each level says of a request ``(parts, h)``, and the trust in it."""
        predictor, h, looks = self.predictor, self._h, self.predictor.looks
        levels = np.zeros((len(PARTS), h))
        given = looks + len(predictor.features)
        row = np.empty(given + (len(PARTS) - 1) * h)
        own = predictor.own(task)
        if own is not None:
            levels[0] = own
        unknown, group = 0.0, 1.0
        if predictor.words is not None and signal.text:
            words = words_of(signal.text)
            row[:looks] = text_vector(signal.text, words)[:looks]
            at, values, unknown = predictor.words.vector(words)
            if self._matrix is not None:
                found = values @ self._matrix.take(at, axis=0)
                linear, topics = self._at
                if predictor.linear is not None:
                    levels[1] = found[linear]
                if self._means is not None and predictor.topics is not None:
                    levels[2], group = _blend(found[topics], predictor.topics.sharpness, self._means)
        else:
            row[:looks] = np.nan
        if predictor.features:
            row[looks:given] = [signal.numbers.get(name, np.nan) for name in predictor.features]
        row[given:] = levels[:-1].ravel()
        if self._forest is not None:
            levels[-1] = self._forest.predict(row)
        weights = self._domain
        strange = weights[0] * unknown + weights[1] * group + weights[2]
        return levels, 1.0 / (1.0 + exp(min(_UNSURE, strange)))


def _blend(
    alike: NDArray[np.float32], sharpness: float, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Return the mean of values ``(p, h)`` under the softmax of likeness ``(p,)``, and the greatest likeness.

    The last column of `values` is 1, so that one product gives the sum of the weights as well.
    """
    most = alike.max()
    weights = alike - most
    weights *= np.float32(sharpness)
    found: NDArray[np.float32] = np.exp(weights, out=weights) @ values
    return found[:-1] / found[-1], float(most)


def _with_ones(values: Floats) -> NDArray[np.float32]:
    return np.hstack([values, np.ones((len(values), 1))]).astype(np.float32)
