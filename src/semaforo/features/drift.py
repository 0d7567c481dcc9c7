"""How far the requests of late are from those of a profile.

The figure is the population stability index of each feature: the sum over bins of (now − then) · ln(now / then),
less what chance alone is expected to bring. That is (bins − 1) · (1/n + 1/N) for n requests against N rows, as the
index is about chi-squared (Yurdakul, Western Michigan University, 2018); 0.1 is a slight change by custom, and 0.25
a great one. Recent requests fade, so that about `WINDOW` of them count.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.features.profile import DataProfile, outside

Floats = NDArray[np.float64]

WINDOW = 500
LEAST = 100
"""Requests before anything is said."""
GREAT = 0.25
_FADES = (WINDOW - 1) / (WINDOW + 1)
# So many standard deviations do not come by chance, though there be a hundred features.
_SURE = 4.0
_SHOWN = 5


class Drift(msgspec.Struct, frozen=True):
    """How far requests have drifted.

    Attributes:
        requests: How many were looked at in all.
        index: The greatest index of all features, 0 or more.
        features: The features that have changed most, with their indices, greatest first.
        drifted: Whether one of them has changed greatly, and not by chance.
        outside: Mean share of features out of the range of the profile.
    """

    requests: int
    index: float
    features: dict[str, float]
    drifted: bool
    outside: float


class Recent:
    """The requests of late, against one profile.

    Args:
        profile: What they are held against.
    """

    def __init__(self, profile: DataProfile) -> None:
        self.profile = profile
        self.requests = 0
        self._names = tuple(profile.columns)
        columns = profile.columns.values()
        widest = max((len(column.edges) for column in columns), default=0)
        self._edges = np.full((len(self._names), widest), np.inf)
        # The last bin of all is that of what is missing.
        self._then = np.zeros((len(self._names), widest + 2))
        self._used = np.zeros(self._then.shape, bool)
        for row, column in enumerate(columns):
            bins = len(column.edges) + 1
            self._edges[row, : bins - 1] = column.edges
            self._then[row, :bins], self._then[row, -1] = column.shares[:-1], column.shares[-1]
            self._used[row, :bins] = self._used[row, -1] = True
        self._rows = np.arange(len(self._names))
        self._counts = np.zeros(self._then.shape)
        self._weight = self._square = self._outside = 0.0

    def add(self, numbers: Mapping[str, float]) -> None:
        """Take in the features of a request."""
        values = np.array([numbers.get(name, np.nan) for name in self._names])
        bins = (self._edges < values[:, None]).sum(axis=1)
        bins[~np.isfinite(values)] = self._then.shape[1] - 1
        self._counts *= _FADES
        self._counts[self._rows, bins] += 1.0
        self._weight = self._weight * _FADES + 1.0
        self._square = self._square * _FADES * _FADES + 1.0
        self._outside = self._outside * _FADES + outside(self.profile, numbers)
        self.requests += 1

    def drift(self) -> Drift | None:
        """Return how far they have drifted; None while they are too few."""
        if self.requests < LEAST or not self._names:
            return None
        found = self._indices()
        bins = self._used.sum(axis=1)
        chance = 1.0 / (self._weight**2 / self._square) + 1.0 / self.profile.rows
        above = np.maximum(0.0, found - (bins - 1) * chance)
        by_chance = chance * _quantile(bins - 1)
        order = np.argsort(-above, kind="stable")[:_SHOWN]
        return Drift(
            self.requests,
            float(above.max()),
            {self._names[i]: float(above[i]) for i in order if above[i] > 0.0},
            bool(((above >= GREAT) & (found > by_chance)).any()),
            self._outside / self._weight,
        )

    def _indices(self) -> Floats:
        """Return the index of each feature, with half a row more in each bin, so that an empty one is finite."""
        bins = self._used.sum(axis=1, keepdims=True)
        rows = self.profile.rows
        then = np.where(self._used, (self._then * rows + 0.5) / (rows + 0.5 * bins), 1.0)
        now = np.where(self._used, (self._counts + 0.5) / (self._weight + 0.5 * bins), 1.0)
        found: Floats = ((now - then) * np.log(now / then)).sum(axis=1)
        return found


def _quantile(degrees: NDArray[np.int64]) -> Floats:
    """Return what chi-squared stays below but for `_SURE` deviations (Wilson and Hilferty, 1931)."""
    wide = 2.0 / (9.0 * np.maximum(degrees, 1))
    found: Floats = np.maximum(degrees, 1) * (1.0 - wide + _SURE * np.sqrt(wide)) ** 3
    return found
