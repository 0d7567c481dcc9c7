"""The size of a picture in a file, from its head alone: nothing is decoded."""

from __future__ import annotations

from math import log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_FILES = 8
_MOST_SEGMENTS = 64
_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF8"
_NO_FRAMES = (0xC4, 0xC8, 0xCC)


def file_numbers(array: NDArray[Any]) -> dict[str, float]:
    """Return the mean ``pixels`` (log), ``aspect`` (log), ``bytes`` (log) and ``density`` (bytes for each pixel).

    The denser a compressed file, the more detail or noise the picture has.

    Args:
        array: Files ``(rows,)``; others than PNG, JPEG and GIF have ``bytes`` alone.
    """
    found: dict[str, list[float]] = {}
    for data in array.ravel()[:_MOST_FILES].tolist():
        if not isinstance(data, bytes):
            continue
        numbers = {"bytes": log1p(len(data))}
        width, height = size_of(data)
        if width and height:
            numbers |= {
                "pixels": log1p(width * height), "aspect": log(width / height),
                "density": len(data) / (width * height),
            }  # fmt: skip
        for name, value in numbers.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels; zeros where they cannot be told."""
    if data.startswith(_PNG) and len(data) >= 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data.startswith(_GIF) and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    return _jpeg(data) if data.startswith(_JPEG) else (0, 0)


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return 0, 0
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        # Fill bytes stand alone; every other segment says how long it is.
        at += 1 if kind == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0, 0
