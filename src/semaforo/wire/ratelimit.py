"""What an upstream's response headers say of its limits: ``Retry-After`` and OpenAI's ``x-ratelimit-*``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d)")
_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class RateLimits(msgspec.Struct, frozen=True):
    """Limits as an upstream states them; -1 (counts) and None (seconds) where it does not.

    Attributes:
        requests_left, tokens_left: What may still be sent before the reset.
        reset_s: Seconds until the scarcer of the two is whole again.
        retry_after_s: Seconds the upstream asks to be left alone.
    """

    requests_left: int = -1
    tokens_left: int = -1
    reset_s: float | None = None
    retry_after_s: float | None = None


def parse_reset(text: str) -> float | None:
    """Return the seconds of ``1s``, ``6m0s``, ``250ms``, ``1h2m3.5s`` or ``7``; None for anything else."""
    text = text.strip()
    seconds, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            return None
        seconds += float(part[1]) * _SECONDS[part[2]]
        end = part.end()
    if end and end == len(text):
        return seconds
    return _number(text)


def parse_retry_after(headers: Mapping[str, str], now_epoch_s: float) -> float | None:
    """Return the seconds to wait by ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date).

    Args:
        headers: Looked up by names in lower case.
        now_epoch_s: Seconds since 1970 by the local clock, from which a date is counted.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_epoch_s)
    except (ValueError, OverflowError):
        return None


def parse_limits(headers: Mapping[str, str], now_epoch_s: float) -> RateLimits:
    """Return what the headers of a response say; arguments as for `parse_retry_after`."""
    requests = _count(headers.get("x-ratelimit-remaining-requests", ""))
    tokens = _count(headers.get("x-ratelimit-remaining-tokens", ""))
    resets = {
        "requests": parse_reset(headers.get("x-ratelimit-reset-requests", "")),
        "tokens": parse_reset(headers.get("x-ratelimit-reset-tokens", "")),
    }
    # The reset of an allowance that is not used up holds nobody back.
    spent = [resets[name] for name, left in (("requests", requests), ("tokens", tokens)) if left == 0]
    stated = [seconds for seconds in (spent or resets.values()) if seconds is not None]
    return RateLimits(requests, tokens, max(stated, default=None), parse_retry_after(headers, now_epoch_s))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _count(text: str) -> int:
    number = _number(text)
    return -1 if number is None else int(number)
