"""What a tensor looks like: its size, range and spread, what is missing, and how rough it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOO_LARGE = 1e150
# Its square can still be added up.
MOST_VALUES = 1 << 16
"""Values of one tensor that are looked at; of a larger one every k-th is."""


def array_numbers(name: str, array: NDArray[Any]) -> dict[str, float]:
    """Return the features of a tensor ``(rows, …)`` of numbers as ``name.feature``.

    ``size`` values of a row (log), ``mean``, ``std``, ``least``, ``most``, ``missing`` (share that is no finite
    number, or too large to reckon with), ``zeros`` (share), ``rough`` (mean step between neighbours over the
    spread), ``peak`` (largest distance from the mean over the spread).
    """
    values = array.reshape(-1)
    step = max(1, values.size // MOST_VALUES)
    seen = values[::step].astype(np.float64)
    good = np.abs(seen) < _TOO_LARGE
    missing = 1.0 - float(good.mean())
    if missing:
        seen = seen[good]
    found = {"size": float(np.log1p(array.size / max(1, len(array)))), "missing": missing}
    if seen.size:
        mean, spread = float(seen.mean()), float(seen.std())
        scale = spread or 1.0
        found |= {
            "mean": mean, "std": spread, "least": float(seen.min()), "most": float(seen.max()),
            "zeros": float((seen == 0.0).mean()), "peak": float(np.abs(seen - mean).max()) / scale,
            "rough": float(np.abs(np.diff(seen)).mean()) / scale if seen.size > 1 else 0.0,
        }  # fmt: skip
    return {f"{name}.{feature}": value for feature, value in found.items()}
