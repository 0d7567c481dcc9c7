"""Rows that are lists of different lengths: an array where they are alike, else one cell for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def stacked(rows: Sequence[Array]) -> Array:
    """Return the rows as one array ``(rows, …)``, of objects where their shapes differ."""
    if all(row.shape == rows[0].shape for row in rows):
        return np.stack(rows)
    cells = np.empty(len(rows), object)
    for number, row in enumerate(rows):
        cells[number] = row
    return cells
