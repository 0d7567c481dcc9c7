"""Profiles of what requests were like, and how far others are from them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaforo.features.drift import GREAT, LEAST, Drift, Recent
from semaforo.features.profile import LEAST_ROWS, DataProfile, outside, profile_of
from semaforo.jobs.learn.looks import profiles_of
from semaforo.routing.table import Table

Rows = list[dict[str, float]]


def rows(n: int, seed: int, **changed: float) -> Rows:
    """Return rows of twelve numbers, a constant, a flag and one that is often missing; `changed` is added."""
    rng = np.random.default_rng(seed)
    found = []
    for values in rng.normal(0.0, 1.0, (n, 12)).tolist():
        row = {f"x.f{i}": value for i, value in enumerate(values)}
        row |= {"x.constant": 3.0, "x.flag": float(rng.random() < 0.95)}
        if rng.random() < 0.3:
            del row["x.f3"]
        found.append({name: value + changed.get(name[2:], 0.0) for name, value in row.items()})
    return found


def profile(n: int = 400, seed: int = 0) -> DataProfile:
    found = profile_of(rows(n, seed))
    assert found is not None
    return found


def drift(seen: Rows, against: DataProfile | None = None) -> Drift:
    recent = Recent(against or profile())
    for row in seen:
        recent.add(row)
    found = recent.drift()
    assert found is not None
    return found


def test_a_profile_says_how_values_are_spread() -> None:
    found = profile(1000)
    assert found.rows == 1000
    column = found.columns["x.f0"]
    assert len(column.edges) == 9 or len(column.edges) == 10
    assert sum(column.shares) == pytest.approx(1.0)
    assert column.low == pytest.approx(-2.33, abs=0.3)
    assert column.high == pytest.approx(2.33, abs=0.3)
    assert found.columns["x.f3"].shares[-1] == pytest.approx(0.3, abs=0.05)
    assert max(found.columns["x.constant"].shares) == 1.0
    again = msgspec.json.decode(msgspec.json.encode(found), type=DataProfile)
    assert again == found


def test_too_few_rows_make_no_profile() -> None:
    assert profile_of(rows(LEAST_ROWS - 1, 0)) is None
    assert profile_of([]) is None
    assert profile_of(rows(LEAST_ROWS, 0)) is not None


def test_a_request_is_out_of_range_by_the_share_of_its_features() -> None:
    known = profile()
    usual = np.mean([outside(known, row) for row in rows(300, 1)])
    assert usual == pytest.approx(0.02, abs=0.01)
    row = rows(1, 2)[0] | {"x.f3": 0.0}
    near = outside(known, row)
    assert outside(known, row | {"x.f0": 50.0}) == pytest.approx(near + 1 / 14, abs=1e-9)
    assert outside(known, row | {"x.constant": 3.1}) == pytest.approx(near + 1 / 14, abs=1e-9)
    # What is often missing is not missed, and what never is, is.
    without = {name: value for name, value in row.items() if name != "x.f3"}
    assert outside(known, without) == near
    del without["x.f1"]
    assert outside(known, without) > near
    # Of what nobody looked at nothing is said.
    assert outside(known, {"y.f0": 1.0}) == 0.0
    assert outside(known, {}) == 0.0


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_same_kind_of_requests_has_not_drifted(seed: int) -> None:
    found = drift(rows(800, seed), profile(seed=seed + 100))
    assert not found.drifted
    assert found.index < 0.15
    assert found.outside == pytest.approx(0.02, abs=0.01)


@pytest.mark.parametrize(
    ("changed", "feature"),
    [
        ({"f0": 1.0}, "x.f0"),
        ({"f5": -1.0}, "x.f5"),
        ({"constant": -1e-9}, "x.constant"),
        ({"flag": -1.0}, "x.flag"),
    ],
)
def test_a_feature_that_moves_is_named(changed: dict[str, float], feature: str) -> None:
    found = drift(rows(400, 1, **changed))
    assert found.drifted
    assert found.index >= GREAT
    assert next(iter(found.features)) == feature


def test_what_goes_missing_has_drifted() -> None:
    seen = [{name: value for name, value in row.items() if name != "x.f5"} for row in rows(300, 1)]
    found = drift(seen)
    assert found.drifted
    assert next(iter(found.features)) == "x.f5"


def test_more_of_a_change_is_a_greater_index() -> None:
    found = [drift(rows(600, 1, f0=by)).features.get("x.f0", 0.0) for by in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found)
    assert found[0] < 0.1 < found[2] < found[3]


def test_nothing_is_said_of_a_few_requests_and_old_ones_fade() -> None:
    recent = Recent(profile())
    for row in rows(LEAST - 1, 1, f0=3.0):
        recent.add(row)
    assert recent.drift() is None
    recent.add(rows(1, 2)[0])
    found = recent.drift()
    assert found is not None
    assert found.drifted
    for row in rows(2500, 3):
        recent.add(row)
    found = recent.drift()
    assert found is not None
    assert not found.drifted
    assert found.requests == LEAST + 2500


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.floats(-1e300, 1e300), max_size=3),
        min_size=30,
        max_size=60,
    )
)
def test_any_rows_make_a_profile_that_they_are_within(seen: Rows) -> None:
    known = profile_of(seen)
    assert known is not None
    recent = Recent(known)
    for row in seen * 4:
        recent.add(row)
    found = recent.drift()
    if known.columns:
        assert found is not None
        assert not found.drifted
    for column in known.columns.values():
        assert sum(column.shares) == pytest.approx(1.0)
        assert list(column.edges) == sorted(set(column.edges))


def test_a_table_is_profiled_task_by_task() -> None:
    n = 100
    tasks = ("words",) * 60 + ("numbers",) * 35 + ("few",) * 5
    prompts = ("how many words are these",) * 60 + ("",) * 40
    values = np.arange(n, dtype=float)[:, None]
    values[:60] = np.nan
    table = Table(("a", "b"), tasks, prompts, np.zeros((n, 2)), np.zeros((n, 2)), ("x.mean",), values)
    found = profiles_of(table)
    assert set(found) == {"words", "numbers"}
    assert "text.length" in found["words"].columns
    assert "x.mean" not in found["words"].columns
    assert set(found["numbers"].columns) == {"x.mean"}
    assert found["numbers"].columns["x.mean"].low == 60.0
