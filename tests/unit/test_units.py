"""Numbers as people read them."""

from __future__ import annotations

import pytest

from semaforo.entities.units import show_period, unlike


@pytest.mark.parametrize(
    ("first", "second", "digits", "shown"),
    [
        (20.0, 34.0, 3, ("20", "34")),
        (5000.0, 5140.0, 3, ("5000", "5140")),
        (20.0, 20.04, 3, ("20", "20.04")),
        (2.04e-10, 2e-10, 2, ("2.04e-10", "2e-10")),
        (0.0583, 0.05, 3, ("0.0583", "0.05")),
        (1e12, 2e12, 3, ("1e+12", "2e+12")),
        (1.0, 1.0, 3, ("1", "1")),
    ],
)
def test_two_numbers_are_told_apart(first: float, second: float, digits: int, shown: tuple[str, str]) -> None:
    assert unlike(first, second, digits) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(86400.0, "1d"), (7200.0, "2h"), (60.0, "1m"), (90.0, "90s"), (0.5, "0.5s")]
)
def test_a_period_is_written_as_in_a_fleet_file(seconds: float, shown: str) -> None:
    assert show_period(seconds) == shown
