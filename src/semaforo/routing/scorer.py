"""Predicts scores with a trained predictor, one request in some tens of microseconds.

The matrices of all levels stand side by side, so that the words of a request are looked up once; the trees of all
targets are walked together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semaforo.features.signals import Signals
from semaforo.features.text import TEXT_NUMBERS, text_vector, words_of
from semaforo.routing.predictor import PARTS, Predictor, softmax
from semaforo.routing.trees import joined

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
        self._trees = joined(predictor.trees) if predictor.trees else None
        # What a known task adds is no matter of the domain: out of it, it is all there is.
        self._outside_known = np.vstack([np.ones((1, self._h)), predictor.outside[1:]])
        near = predictor.neighbours
        self._targets = near.targets.astype(np.float32) if near is not None else None
        blocks: list[NDArray[np.float32]] = []
        self._at: list[slice] = []
        self._columns = 0
        for block in (
            predictor.linear,
            predictor.topics.centroids if predictor.topics is not None else None,
            predictor.neighbours.space if predictor.neighbours is not None else None,
        ):
            width = 0 if block is None else block.shape[1]
            self._at.append(slice(self._columns, self._columns + width))
            self._columns += width
            if block is not None:
                blocks.append(block.astype(np.float32))
        self._matrix = np.ascontiguousarray(np.hstack(blocks)) if blocks else None

    def predict(self, task: str, signals: Sequence[Signals]) -> tuple[Floats, Floats]:
        """Return predicted scores ``(n, m)`` in 0…1, and how far each request is in the domain, ``(n,)`` in 0…1."""
        predictor = self.predictor
        n = len(signals)
        known = task in predictor.tasks
        levels = np.zeros((n, len(PARTS), self._h))
        rows = np.empty((n, len(TEXT_NUMBERS) + len(predictor.features) + (len(PARTS) - 1) * self._h))
        trust = np.zeros(n)
        for i, signal in enumerate(signals):
            trust[i] = self._look(task, signal, levels[i], rows[i])
        if not known:
            trust[:] = 0.0
        if self._trees is not None:
            levels[:, -1, :] = self._trees.predict(rows).reshape(n, self._h)
        outside = self._outside_known if known else predictor.outside
        share = trust[:, None, None]
        targets = (levels * (share * predictor.inside + (1.0 - share) * outside)).sum(axis=1)
        return np.clip(predictor.base + targets @ predictor.basis, 0.0, 1.0), trust

    def _look(self, task: str, signal: Signals, levels: Floats, row: Floats) -> float:
        """Fill in the levels below the trees ``(parts, h)`` and the features of the trees; return the trust."""
        predictor = self.predictor
        own = predictor.tasks.get(task)
        if own is not None:
            levels[0] = own
        looks = len(TEXT_NUMBERS)
        unknown, group, nearest = 0.0, 1.0, 1.0
        if predictor.words is not None and signal.text:
            words = words_of(signal.text)
            row[:looks] = text_vector(signal.text, words)
            at, values, unknown = predictor.words.vector(words)
            if self._matrix is not None:
                found = values @ self._matrix[at]
                linear, topics, space = self._at
                if predictor.linear is not None:
                    levels[1] = found[linear]
                if predictor.topics is not None:
                    alike = found[topics]
                    group = float(alike.max())
                    levels[2] = softmax(predictor.topics.sharpness * alike) @ predictor.topics.means
                if predictor.neighbours is not None:
                    levels[3], nearest = self._near(found[space])
        else:
            row[:looks] = np.nan
        given = looks + len(predictor.features)
        if predictor.features:
            row[looks:given] = [signal.numbers.get(name, np.nan) for name in predictor.features]
        row[given:] = levels[:-1].ravel()
        weights = predictor.domain
        strange = weights[0] * unknown + weights[1] * group + weights[2] * nearest + weights[3]
        return float(1.0 / (1.0 + np.exp(min(_UNSURE, strange))))

    def _near(self, place: NDArray[np.float32]) -> tuple[Floats, float]:
        """Return the mean target ``(h,)`` of the neighbours, by likeness, and the likeness of the nearest."""
        neighbours = self.predictor.neighbours
        assert neighbours is not None
        assert self._targets is not None
        length = float(np.sqrt(place @ place))
        if not length:
            return np.zeros(self._h), 0.0
        alike = neighbours.points @ (place / np.float32(length))
        most = float(alike.max())
        weights = np.exp(np.float32(neighbours.sharpness) * (alike - np.float32(most)))
        found: Floats = (weights @ self._targets) / float(weights.sum())
        return found, most
