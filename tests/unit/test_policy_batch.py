"""The fitted line of service times, how large a batch should be, and what waiting is predicted to take."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.entities import BatchProfile
from semaforo.policy.admit import predicted_wait
from semaforo.policy.batch import Fit, fit_from, worthwhile_rows
from semaforo.policy.shares import GUARANTEE


def test_a_fit_begins_with_the_profile() -> None:
    fit = fit_from(BatchProfile(0.004, 0.001, p99_s=0.011))
    assert [fit.seconds(n) for n in (1, 10)] == pytest.approx([0.005, 0.014])
    assert fit.spread == pytest.approx(0.002)


def test_a_fit_finds_the_line_and_follows_when_it_moves() -> None:
    fit, rng = fit_from(BatchProfile(0.1, 0.1)), Random(1)
    for base, row in ((0.004, 0.001), (0.02, 0.0005)):
        for _ in range(600):
            rows = rng.randint(1, 32)
            fit.learn(rows, (base + row * rows) * rng.uniform(0.95, 1.05))
        assert fit.seconds(1) == pytest.approx(base + row, rel=0.1)
        assert fit.seconds(32) == pytest.approx(base + 32 * row, rel=0.1)


def test_with_one_size_only_the_line_keeps_its_shape() -> None:
    fit = fit_from(BatchProfile(0.004, 0.001))
    for _ in range(500):
        fit.learn(4, 0.016)
    assert fit.seconds(4) == pytest.approx(0.016, rel=0.02)
    assert fit.seconds(8) == pytest.approx(0.024, rel=0.25)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 10.0)), max_size=60))
def test_a_fit_never_predicts_less_than_nothing(seen: list[tuple[int, float]]) -> None:
    fit = fit_from(BatchProfile(0.001, 0.001))
    for rows, seconds in seen:
        fit.learn(rows, seconds)
        assert fit.base >= 0.0
        assert fit.row >= 0.0
        assert fit.spread >= 0.0


@pytest.mark.parametrize(
    ("base", "row", "most", "rows"),
    [
        (7.4e-6, 0.1e-6, 64, 64),  # the digits model: a batch is worth 22 times
        (7e-6, 224e-6, 64, 5),  # the convolution: it is worth 3 %
        (0.01, 0.01, 64, 50),
        (0.0, 0.01, 64, 1),
        (0.01, 0.0, 64, 64),
        (0.0, 0.0, 8, 8),
    ],
)
def test_a_batch_grows_only_while_that_pays(base: float, row: float, most: int, rows: int) -> None:
    assert worthwhile_rows(Fit(base=base, row=row), most) == pytest.approx(rows, abs=1)


def wait(**fields: float) -> float:
    known = {
        "klass": 2,
        "first_free_s": 0.0,
        "rate": 100.0,
        "rows_above": 0.0,
        "rows_ahead": 0.0,
        "above_rate": 0.0,
    }
    return predicted_wait(**(known | fields))  # type: ignore[arg-type]


def test_the_wait_is_what_is_in_front_at_the_rate_of_the_fleet() -> None:
    assert wait() == 0.0
    assert wait(first_free_s=0.5) == 0.5
    assert wait(rows_ahead=50) == pytest.approx(0.5)
    assert wait(rows_ahead=50, rows_above=50) == pytest.approx(1.0)
    assert wait(rows_ahead=50, above_rate=50) == pytest.approx(1.0)
    assert wait(rate=0.0) == float("inf")


def test_a_class_under_pressure_moves_at_its_guaranteed_share() -> None:
    assert wait(klass=3, rows_above=1e9) == pytest.approx(1 / (GUARANTEE[3] * 100))
    assert wait(klass=3, rows_ahead=10, above_rate=1e9) == pytest.approx(10 / (GUARANTEE[3] * 100))
