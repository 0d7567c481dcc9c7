from __future__ import annotations

from email.utils import formatdate

import pytest

from semaforo.wire.ratelimit import RateLimits, parse_limits, parse_reset, parse_retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0), ("6m0s", 360.0), ("250ms", 0.25), ("1h2m3.5s", 3723.5), ("0s", 0.0), ("1d1h", 90_000.0),
        ("12", 12.0), (" 8.64s ", 8.64), ("150µs", 0.00015),
        ("", None), ("soon", None), ("1s soon", None), ("s", None), ("-3", None), ("nan", None), ("1x2s", None),
    ],
)  # fmt: skip
def test_reset_durations(text: str, seconds: float | None) -> None:
    assert parse_reset(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after-ms": "120", "retry-after": "1"}, 0.12),
        ({"retry-after": "whenever"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_seconds_milliseconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert parse_retry_after(headers, NOW) == seconds


def test_the_reset_of_what_is_used_up_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert parse_limits(headers, NOW) == RateLimits(0, 5000, 2.0, None)
    headers["x-ratelimit-remaining-tokens"] = "0"
    assert parse_limits(headers, NOW).reset_s == 360.0
    assert parse_limits({"content-type": "application/json"}, NOW) == RateLimits()
