"""Functions that graphs call: rows in, rows out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def cut(image: Array) -> dict[str, Array]:
    """Return the parts of images of 8 × 8 that the specialists see."""
    square = np.asarray(image).reshape(-1, 8, 8)
    parts = {
        "top": square[:, :5],
        "bottom": square[:, 3:],
        "left": square[:, :, :4],
        "right": square[:, :, 4:],
    }
    return {name: part.reshape(len(square), -1) for name, part in parts.items()}


def digits(strip: list[Array]) -> list[Array]:
    """Return the images of 8 × 8 that stand side by side in strips of 8 × 8n."""
    return [np.asarray(one).reshape(8, -1, 8).swapaxes(0, 1).reshape(-1, 64) for one in strip]
