"""How much may be spent."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """A limit.

    Attributes:
        spend: US dollars.
        per_s: Length of the window in seconds.
    """

    spend: float
    per_s: float
