"""What features of a payload look like: the words of it, named numbers, and an embedding where there is one."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray


class Signals(msgspec.Struct, frozen=True):
    """What a predictor may know of one request.

    Attributes:
        text: Words to look at, "" where there are none.
        numbers: Features by name (`text.length`, `image.blur` …); one that could not be worked out is left out.
        embedding: (d,) float32 of a model of the fleet, or None.
    """

    text: str = ""
    numbers: dict[str, float] = {}
    embedding: NDArray[np.float32] | None = None
