"""What features of a payload look like: the words of it, and named numbers."""

from __future__ import annotations

import msgspec


class Signals(msgspec.Struct, frozen=True):
    """What a predictor may know of one request.

    Attributes:
        text: Words to look at, "" where there are none.
        numbers: Features by name (`text.length`, `x.mean` …); one that could not be worked out is left out.
    """

    text: str = ""
    numbers: dict[str, float] = {}
