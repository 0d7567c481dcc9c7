"""What rows of a table hold: each column by itself, where they are few, so that a router sees the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities.task import Look
from semaforo.features.numbers import finite

MOST_COLUMNS = 64


def table_numbers(array: NDArray[Any], look: Look) -> dict[str, float]:
    """Return the columns of rows ``(rows, …)``: their means over the rows that have a finite number there.

    Args:
        array: Numbers; a row of more than `MOST_COLUMNS` is no table.
        look: Is not needed.

    Returns:
        ``c0``, ``c1``, …, a column without any number left out; ``missing_columns`` (share of columns in which a
        number is missing).
    """
    if array.dtype.kind not in "fiub" or not array.size:
        return {}
    columns = array.reshape(len(array), -1).astype(np.float64)
    if columns.shape[1] > MOST_COLUMNS:
        return {}
    good = np.isfinite(columns)
    counts = good.sum(axis=0)
    with np.errstate(over="ignore"):
        sums = np.where(good, columns, 0.0).sum(axis=0)
    numbers = {
        f"c{i}": total / count
        for i, (total, count) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True))
        if count
    }
    return finite({**numbers, "missing_columns": float((counts < len(columns)).mean())})
