"""Balancing, breaking, sharing and scaling."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.policy import breaker, scale, shares
from semaforo.policy.balance import Candidate, next_chance, pick

# --- balance -----------------------------------------------------------------------------------------------


def test_the_soonest_to_finish_is_picked_and_ties_go_to_the_first() -> None:
    assert pick([Candidate("a", 2.0), Candidate("b", 1.0), Candidate("c", 1.0)], 99) == 1


def test_knowing_the_session_is_worth_a_little_waiting() -> None:
    known = Candidate("b", 1.2, knows=True)
    assert pick([Candidate("a", 1.0), known], 0) == 1
    assert pick([Candidate("a", 0.5), known], 0) == 0


def test_stale_reports_are_answered_by_two_choices() -> None:
    candidates = [Candidate(str(n), 1.0 + n, stale=True) for n in range(5)]
    chance, found = 1, Counter[int]()
    for _ in range(5000):
        chance = next_chance(chance)
        found[pick(candidates, chance)] += 1
    assert found[4] == 0, "the worst of all loses against any other"
    assert found[0] > found[1] > found[2] > found[3] > 0


@given(st.integers(1, 2**64 - 1))
def test_chance_never_gets_stuck(state: int) -> None:
    after = next_chance(state)
    assert 0 < after < 2**64
    assert after != state


# --- breaker -----------------------------------------------------------------------------------------------


def test_ejections_grow_up_to_a_minute() -> None:
    assert [breaker.ejection_s(n) for n in (0, 1, 2, 5, 6, 50)] == [1, 2, 4, 32, 60, 60]


def test_a_replica_lags_only_among_enough_siblings_and_after_enough_samples() -> None:
    assert breaker.lags(5.0, 100, [1.0, 1.0, 5.0])
    assert not breaker.lags(3.9, 100, [1.0, 1.0, 3.9])
    assert not breaker.lags(5.0, 100, [1.0, 5.0])
    assert not breaker.lags(5.0, breaker.SLOW_SAMPLES - 1, [1.0, 1.0, 5.0])
    assert not breaker.lags(5.0, 100, [5.0, 5.0, 5.0])


# --- shares ------------------------------------------------------------------------------------------------


def test_classes_go_in_order_until_one_is_owed_a_row() -> None:
    assert shares.order([0.0] * 4, [1, 0, 1, 1]) == [0, 2, 3]
    assert shares.order([0.0, 0.0, 0.9, 1.0], [1, 0, 1, 1]) == [3, 0, 2]
    assert shares.order([0.0, 0.0, 2.0, 1.5], [1, 0, 1, 1]) == [2, 3, 0]
    assert shares.order([9.0] * 4, [0, 0, 0, 0]) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), min_size=1, max_size=300))
def test_debts_are_forgotten_when_a_class_is_empty_and_advances_are_not(
    served: list[tuple[int, int]],
) -> None:
    debts = [0.0] * 4
    for klass, rows in served:
        waiting = [0, 5, 5, 0]
        waiting[klass] += rows
        shares.charge(debts, waiting, klass, rows)
        assert all(debts[c] <= 0.0 for c in (0, 3))
        assert all(debt >= -8.0 for debt in debts)


@pytest.mark.parametrize("rows", [1, 4])
def test_while_all_wait_each_gets_its_guarantee_and_the_first_gets_the_rest(rows: int) -> None:
    debts, got = [0.0] * 4, Counter[int]()
    for _ in range(4000):
        first = shares.order(debts, [9, 9, 9, 9])[0]
        got[first] += rows
        shares.charge(debts, [9, 9, 9, 9], first, rows)
    total = got.total()
    for klass in (1, 2, 3):
        assert got[klass] / total == pytest.approx(shares.GUARANTEE[klass], abs=0.005)


def test_a_low_class_gains_nothing_by_sending_one_large_request_at_a_time() -> None:
    debts, got = [0.0] * 4, Counter[int]()
    for _ in range(40_000):
        first = shares.order(debts, [9, 0, 0, 64])[0]
        got[first] += 1 if first == 0 else 64
        shares.charge(debts, [9, 0, 0, 64], first, 1 if first == 0 else 64)
        # The low class is empty for a moment after each of its requests.
        if first == 3:
            shares.charge(debts, [9, 0, 0, 0], 0, 1)
            got[0] += 1
    assert got[3] / got.total() == pytest.approx(shares.GUARANTEE[3], abs=0.01)


def test_the_first_class_gets_what_is_left() -> None:
    debts, got = [0.0] * 4, Counter[int]()
    for _ in range(4000):
        first = shares.order(debts, [9, 9, 9, 9])[0]
        got[first] += 1
        shares.charge(debts, [9, 9, 9, 9], first, 1)
    total = got.total()
    assert got[0] / total == pytest.approx(1 - sum(shares.GUARANTEE[1:]), abs=0.01)
    assert sum(shares.GUARANTEE) < 1


# --- scale -------------------------------------------------------------------------------------------------


def test_one_more_when_busy_and_work_waits_one_less_after_a_calm() -> None:
    assert scale.desired(2, 1, 4, 0.9, 3, 7) == (3, 0)
    assert scale.desired(4, 1, 4, 1.0, 3, 0) == (4, 0)
    assert scale.desired(2, 1, 4, 0.9, 0, 7) == (2, 0)
    assert scale.desired(2, 1, 4, 0.1, 0, 0) == (2, 1)
    assert scale.desired(2, 1, 4, 0.1, 0, scale.CALM - 1) == (1, 0)
    assert scale.desired(1, 1, 4, 0.0, 0, 500) == (1, 0)


def test_the_bounds_of_the_operator_hold() -> None:
    assert scale.desired(0, 2, 4, 0.0, 0, 5) == (2, 0)
    assert scale.desired(9, 2, 4, 1.0, 9, 5) == (4, 0)
    # Three replicas at 40 % would be two at 60 %: too busy to give one up.
    assert scale.desired(3, 1, 4, 0.4, 0, 99) == (3, 0)
