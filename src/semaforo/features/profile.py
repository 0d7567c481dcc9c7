"""What the requests were like that a model was measured or a router trained on, and how far others are from them.

Each feature has the shares of its values between edges: the deciles, and around each value that many rows share, so
that one which is constant has a bin of its own. The last bin counts rows in which the feature is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import msgspec
import numpy as np

LEAST_ROWS = 30
"""Rows that a profile takes at least."""
MOST_ROWS = 2000
"""Rows that are looked at for one; of more, every k-th is."""
DRIFT = "drift"
"""Name of the feature that `outside` gives, which is no part of a profile."""
_LEVELS = np.linspace(0.1, 0.9, 9)
_RARE = 0.01


class Column(msgspec.Struct, frozen=True):
    """One feature.

    Attributes:
        edges: Rising; a value is in the bin whose number is that of the edges below it.
        shares: (edges + 2,) of each bin, and of the rows in which it is missing.
        low, high: Hundredth and ninety-ninth percentile.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    low: float
    high: float


class DataProfile(msgspec.Struct, frozen=True):
    """What rows were like.

    Attributes:
        rows: How many there were.
        columns: By name of the feature.
    """

    rows: int
    columns: dict[str, Column]


def profile_of(rows: Sequence[Mapping[str, float]]) -> DataProfile | None:
    """Return the profile of rows of features; None where there are too few."""
    rows = rows[:: max(1, -(-len(rows) // MOST_ROWS))]
    if len(rows) < LEAST_ROWS:
        return None
    names = dict.fromkeys(name for row in rows for name in row if name != DRIFT)
    columns = {}
    for name in names:
        values = np.array([v for row in rows if (v := row.get(name)) is not None and isfinite(v)])
        if len(values):
            columns[name] = _column(values, len(rows))
    return DataProfile(len(rows), columns)


def outside(profile: DataProfile, numbers: Mapping[str, float]) -> float:
    """Return the share (0…1) of features that are out of the range of all but two in a hundred rows.

    Of what an extractor looked at, a feature that is missing and hardly ever was counts, too. About 0.02 is usual.

    Args:
        profile: What others were like.
        numbers: Features of one request.
    """
    looked = {name.partition(".")[0] for name in numbers}
    known = strange = 0
    for name, column in profile.columns.items():
        if name.partition(".")[0] not in looked:
            continue
        known += 1
        value = numbers.get(name)
        if value is None:
            strange += column.shares[-1] < _RARE
        else:
            strange += not column.low <= value <= column.high
    return strange / known if known else 0.0


def _column(values: np.ndarray, rows: int) -> Column:
    levels = np.quantile(values, _LEVELS, method="inverted_cdf")
    edges, often = np.unique(levels, return_counts=True)
    shared = edges[(often > 1) | (edges == values.min())]
    edges = np.unique(np.concatenate([edges, np.nextafter(shared, -np.inf)]))
    bins = np.bincount(np.searchsorted(edges, values, "left"), minlength=len(edges) + 1)
    low, high = np.quantile(values, (0.01, 0.99), method="inverted_cdf")
    missing = rows - len(values)
    return Column(tuple(edges.tolist()), (*(bins / rows).tolist(), missing / rows), float(low), float(high))
