"""What a decoder raises at bytes that are no JSON, or none that it can take: three kinds, seldom all thought of."""

from __future__ import annotations

import msgspec

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def told(error: Exception) -> str:
    """Return what is wrong, in words for whoever sent it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        # The place it tells is one within a string, which would send people to the wrong byte.
        return "a text in it is not UTF-8"
    return str(error)
