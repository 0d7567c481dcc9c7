"""What a picture looks like: its size, light, detail, blur and noise.

Whole numbers are scaled to 0…1 by the range of their type; other numbers stay in their own unit, so that only
ratios (`sharpness`, `saturation`, `entropy`) mean the same everywhere. Of a large picture the light is that of
pixels spread evenly, and the detail that of nine tiles; of many pictures in one request `MOST_ROWS` are looked at.
What is said is the mean.
"""

from __future__ import annotations

from math import isqrt, log, log1p, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities.task import Look
from semaforo.features.numbers import finite, full_scale
from semaforo.features.picture_file import file_numbers

Floats = NDArray[np.float32]

MOST_ROWS = 8
TILE = 48
"""Pixels of a tile's side; a picture of up to three in a direction is looked at as a whole in it."""
_CHANNELS = (1, 3, 4)
_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)
_BINS = 64
_EDGE = 1 / 512


def image_numbers(array: NDArray[Any], look: Look) -> dict[str, float]:
    """Return the features of pictures.

    Args:
        array: ``(rows, height, width)``, with 1, 3 or 4 channels last or first, or ``(rows, pixels)`` of squares;
            or ``(rows,)`` of files, of which the head is read (PNG, JPEG, GIF).
        look: Is not needed.

    Returns:
        ``pixels`` (log), ``aspect`` (log of width over height), ``brightness``, ``contrast`` (standard deviation),
        ``gradient`` (mean step to the next pixel), ``laplacian`` (its variance; Pech-Pacheco et al., ICPR 2000),
        ``sharpness`` (its deviation over the contrast), ``noise`` (standard deviation; Immerkær, Computer Vision
        and Image Understanding 64, 1996), ``entropy`` (bits, of 64 levels), ``clipped`` (share of pixels at the
        darkest or brightest level), ``saturation`` (of colours, 0…1). Nothing where it is no picture.
    """
    if array.dtype == object:
        return file_numbers(array)
    found = _planes(array[:: max(1, len(array) // MOST_ROWS)][:MOST_ROWS])
    if found is None:
        return {}
    height, width = found.shape[1:3]
    with np.errstate(all="ignore"):
        whole = max(height, width) <= 3 * TILE
        colours = _scaled(found if whole else _sampled(found))
        light = _light(colours)
        near = light[:, None] if whole else _light(_scaled(_tiles(found)))
        numbers = _lights(light, array.dtype) | _saturation(colours) | _detail(near)
    return finite({"pixels": log1p(height * width), "aspect": log(width / height), **numbers})


def _planes(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return ``(rows, height, width, channels)``, or None where it is no picture."""
    if not array.size:
        return None
    if array.ndim == 2:
        side = isqrt(array.shape[1])
        return array.reshape(-1, side, side, 1) if side * side == array.shape[1] else None
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4 and array.shape[-1] in _CHANNELS:
        return array
    return np.moveaxis(array, 1, -1) if array.ndim == 4 and array.shape[1] in _CHANNELS else None


def _sampled(planes: NDArray[Any]) -> NDArray[Any]:
    """Return pixels spread evenly, at most `3 * TILE` in each direction."""
    steps = [-(-size // (3 * TILE)) for size in planes.shape[1:3]]
    return planes[:, :: steps[0], :: steps[1]]


def _tiles(planes: NDArray[Any]) -> NDArray[Any]:
    """Return ``(rows, tiles, height, width, channels)``, in which neighbours are neighbours."""
    rows, columns = (_spans(size) for size in planes.shape[1:3])
    return np.stack([planes[:, y, x] for y in rows for x in columns], axis=1)


def _spans(size: int) -> list[slice]:
    if size <= 3 * TILE:
        return [slice(0, size)]
    return [slice(at, at + TILE) for at in (round((size - TILE) * part / 6) for part in (1, 3, 5))]


def _scaled(pixels: NDArray[Any]) -> Floats:
    scale, middle = full_scale(pixels.dtype)
    floats = pixels.astype(np.float32)
    if scale:
        return (floats + np.float32(middle)) * np.float32(1.0 / scale)
    known = np.isfinite(floats)
    return floats if known.all() else np.where(known, floats, floats[known].mean() if known.any() else np.nan)


def _light(colours: Floats) -> Floats:
    found: Floats = colours[..., :3] @ _LIGHT if colours.shape[-1] >= 3 else colours[..., 0]
    return found


def _lights(light: Floats, dtype: np.dtype[Any]) -> dict[str, float]:
    rows = len(light)
    flat = light.reshape(rows, -1)
    if full_scale(dtype)[0]:
        levels = flat
    else:
        low = flat.min(axis=1, keepdims=True)
        extent = flat.max(axis=1, keepdims=True) - low
        levels = (flat - low) / np.where(extent > 0.0, extent, np.float32(1.0))
    # Most of a small picture's time is calls, so the levels are counted once, and the rest is read off the counts.
    bins = np.clip(np.nan_to_num(levels) * _BINS, 0, _BINS - 1).astype(np.int64)
    if rows > 1:
        bins += _BINS * np.arange(rows)[:, None]
    counts = np.bincount(bins.ravel(), minlength=rows * _BINS)
    shares = counts[counts > 0] / flat.shape[1]
    ends = np.count_nonzero(levels < _EDGE) + np.count_nonzero(levels > 1.0 - _EDGE)
    return {
        "brightness": _mean(flat),
        "contrast": _mean(_spread(flat)),
        "clipped": min(1.0, ends / flat.size),
        "entropy": abs(float(shares @ np.log2(shares))) / rows,
    }


def _saturation(colours: Floats) -> dict[str, float]:
    if colours.shape[-1] < 3:
        return {}
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    most = np.maximum(np.maximum(red, green), blue)
    spread = most - np.minimum(np.minimum(red, green), blue)
    return {"saturation": _mean(np.divide(spread, most, out=np.zeros_like(most), where=most > 0.0))}


def _detail(light: Floats) -> dict[str, float]:
    """Return what neighbours of ``(rows, tiles, height, width)`` say."""
    height, width = light.shape[2:]
    if height < 2 or width < 2:
        return {}
    down, right = light[:, :, 1:] - light[:, :, :-1], light[..., 1:] - light[..., :-1]
    numbers = {"gradient": (_mean(np.abs(down)) + _mean(np.abs(right))) / 2}
    if height < 3 or width < 3:
        return numbers
    curve = right[..., 1:] - right[..., :-1]
    rows = len(light)
    laplacian = (down[:, :, 1:, 1:-1] - down[:, :, :-1, 1:-1] + curve[:, :, 1:-1]).reshape(rows, -1)
    detail, contrast = _spread(laplacian), _spread(light.reshape(rows, -1))
    ratio = np.divide(
        detail, contrast, out=np.zeros_like(detail), where=contrast > 1e-6 * np.abs(light).max()
    )
    # Second differences in both directions leave nothing of a smooth picture, and of noise six times its spread.
    mask = curve[:, :, 2:] - 2.0 * curve[:, :, 1:-1] + curve[:, :, :-2]
    return numbers | {
        "laplacian": _mean(detail * detail),
        "sharpness": _mean(ratio),
        "noise": _mean(np.abs(mask)) * sqrt(pi / 2) / 6.0,
    }


def _mean(values: Floats) -> float:
    return float(np.add.reduce(values, axis=None)) / values.size


def _spread(rows: Floats) -> Floats:
    """Return the standard deviation of each row."""
    centred = rows - np.add.reduce(rows, axis=1, keepdims=True) / np.float32(rows.shape[1])
    found: Floats = np.sqrt(np.einsum("ij,ij->i", centred, centred) / np.float32(rows.shape[1]))
    return found
