"""What all extractors share."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the features that could be worked out."""
    return {name: value for name, value in numbers.items() if isfinite(value)}


def full_scale(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the range of whole numbers or truth values, and what is added so that they begin at 0.

    Of floats the range is not known: 0.
    """
    if dtype.kind == "b":
        return 1.0, 0.0
    if dtype.kind not in "iu":
        return 0.0, 0.0
    info = np.iinfo(dtype)
    return float(info.max) - float(info.min), -float(info.min)
