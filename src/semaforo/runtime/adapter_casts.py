"""Casts between V2 dtypes, and which of them lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semaforo.entities import DTYPES
from semaforo.wire.payload import Array

Step = Callable[[Array], Array]

_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})


def is_float(dtype: str) -> bool:
    """Tell whether a dtype is a floating one."""
    return dtype in _FLOATS


def lossless(source: str, target: str) -> bool:
    """Tell whether every value of `source` is one of `target`, so that no cast need be declared."""
    if source == target or (source == "BF16" and target in ("FP32", "FP64")):
        return True
    if "BF16" in (source, target) or "BYTES" in (source, target):
        return False
    if source in ("INT64", "UINT64") and is_float(target):
        return False
    return np.can_cast(np.dtype(DTYPES[source]), np.dtype(DTYPES[target]), "safe")


def cast(source: str, target: str) -> Step:
    """Return the cast between two dtypes, neither of them BYTES.

    Floats are rounded to the nearest integer, and values beyond the range of an integer dtype are clipped.
    """
    if source == target:
        return lambda array: array
    if source == "BF16":
        rest = cast("FP32", target)
        return lambda array: rest((array.astype(np.uint32) << 16).view(np.float32))
    if target == "BF16":
        first = cast(source, "FP32")
        return lambda array: _to_bf16(first(array))
    wanted = np.dtype(DTYPES[target])
    if target == "BOOL":
        return lambda array: array != 0
    if wanted.kind in "iu" and source != "BOOL":
        return _to_integer(wanted, is_float(source))
    return lambda array: array.astype(wanted)


def _to_integer(wanted: np.dtype[Any], rounds: bool) -> Step:
    info = np.iinfo(wanted)

    def convert(array: Array) -> Array:
        if rounds:
            array = np.nan_to_num(np.rint(array.astype(np.float64)), nan=0.0)
            # The largest 64-bit integers have no float of their own: clip to the nearest below.
            top = np.nextafter(float(info.max), 0.0) if info.bits == 64 else info.max
            return np.clip(array, info.min, top).astype(wanted)
        have = np.iinfo(array.dtype)
        return np.clip(array, max(info.min, have.min), min(info.max, have.max)).astype(wanted)

    return convert


def _to_bf16(array: Array) -> Array:
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded)
