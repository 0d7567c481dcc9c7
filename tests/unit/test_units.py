"""Numbers as people read them."""

from __future__ import annotations

import pytest

from semaforo.entities.units import unlike


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
