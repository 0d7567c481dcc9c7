"""What features of a payload look like: the words of it, and named numbers."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray


class Signals(msgspec.Struct, frozen=True):
    """What a predictor may know of one request.

    Attributes:
        text: Words to look at, "" where there are none.
        numbers: Features by name (`text.length`, `x.mean` …); one that could not be worked out is left out.
        embedding: (d,) of length 1, of the kind that its predictor knows; None = there is none.
        space: Of which kind it is: the model that gave it, as ``model/version``; "" = not said.
    """

    text: str = ""
    numbers: dict[str, float] = {}
    embedding: NDArray[np.float32] | None = None
    space: str = ""
