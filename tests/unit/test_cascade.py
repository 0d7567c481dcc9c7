"""Looking at answers, and thresholds that keep promises."""

from __future__ import annotations

import numpy as np
import pytest

from semaforo.entities.final import final_answer
from semaforo.errors import InvalidRequest
from semaforo.features.answer import (
    ANSWER_NUMBERS,
    agreement_numbers,
    answer_numbers,
    scores_numbers,
)
from semaforo.routing.cascade import FEATURES, answer_signals, cascade_table
from semaforo.routing.table import Table
from semaforo.routing.threshold import for_both, for_budget, for_quality, p_value, rows_needed


@pytest.mark.parametrize(
    ("answer", "equations", "wrong"),
    [
        ("16 - 3 - 4 = 9 eggs", 1, 0),
        ("$9 * $2 = $18 and 18 / 3 = 5", 2, 1),
        ("(2 + 3) x 4 = 20, then 1,000 ÷ 4 = 250.", 2, 0),
        ("20% * 50 = 10", 1, 0),
        ("2 + 2 = 5\n3 * 3 = 9", 2, 1),
        ("x = 5 and f(3) = 7", 0, 0),
        ("1 / 0 = 7", 0, 0),
        ("no sums", 0, 0),
    ],
)
def test_equations_are_worked_out_again(answer: str, equations: int, wrong: int) -> None:
    found = answer_numbers("What?", answer)
    assert (found["answer.equations"], found["answer.wrong"]) == (equations, wrong)


def test_numbers_of_the_question_are_looked_for_in_the_answer() -> None:
    found = answer_numbers("3 cats and 5 dogs and 9 cows", "3 + 5 = 8, so 8")
    assert found["answer.from_question"] == 2
    assert found["answer.unused"] == 1
    assert found["answer.last_is_result"] == 1


def test_nothing_in_an_answer_breaks_it() -> None:
    for answer in (
        "",
        "=" * 500,
        "((((" * 400 + "1 = 2",
        "9" * 400 + " + 1 = 2",
        "\ud800",
        "1" + "+1" * 3000 + "= 2",
    ):
        found = answer_numbers("", answer)
        assert tuple(found) == ANSWER_NUMBERS
        assert all(np.isfinite(v) for v in found.values()), answer[:20]


def test_confidence_and_agreement() -> None:
    sure, unsure = scores_numbers(np.array([0.98, 0.01, 0.01])), scores_numbers(np.array([0.4, 0.3, 0.3]))
    assert sure["answer.margin"] > unsure["answer.margin"]
    assert sure["answer.entropy"] < unsure["answer.entropy"]
    assert agreement_numbers(["so 7.", "it is 7.0", "8"]) == {"answer.agreement": 2 / 3, "answer.unlike": 2.0}
    assert final_answer("Yes,\n Paris ") == "paris"


def test_a_cascade_table_knows_the_cheap_answer_and_not_the_dear_one() -> None:
    scores = np.array([[0.0, 1.0]])
    table = Table(("cheap", "dear"), ("t",), ("2 + 2?",), scores, scores, answers=(("it is 5", "SECRET 4"),))
    seen = cascade_table(table, "cheap")
    assert seen.prompts == ("2 + 2?\nit is 5",)
    assert seen.features == FEATURES
    signals = answer_signals("2 + 2?", "it is 5")
    assert [signals.numbers[f] for f in FEATURES] == seen.numbers[0].tolist()
    with pytest.raises(InvalidRequest, match="no model 'x'"):
        cascade_table(table, "x")
    assert cascade_table(seen, "cheap") is seen, "features of answers do where the answers are not known"
    with pytest.raises(InvalidRequest, match="neither a column 'answer'"):
        cascade_table(Table(("cheap", "dear"), ("t",), ("2 + 2?",), scores, scores), "cheap")


def stream(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return wishes that tell something of gains, and gains in -1…1."""
    wish = rng.random(n)
    gain = (rng.random(n) < 0.6 * wish).astype(float) - (rng.random(n) < 0.05)
    return wish, gain


def test_a_promised_quality_is_kept_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    wish, gain = stream(rng, 200_000)
    kept = calls = 0.0
    for draw in range(300):
        at = rng.integers(0, len(wish), 400)
        promise = for_quality(wish[at], gain[at], give_up=0.05, delta=0.1, seed=draw)
        kept += float(np.where(wish < promise.threshold, gain, 0.0).mean()) <= 0.05
        calls += promise.calls
    assert kept / 300 >= 0.9 - 2 * (0.09 / 300) ** 0.5
    assert calls / 300 < 0.9


def test_a_promised_budget_is_kept_as_often_as_promised() -> None:
    rng = np.random.default_rng(1)
    wish, _ = stream(rng, 100_000)
    extra = rng.exponential(1.0, len(wish)).clip(0, 8)
    kept = 0
    for draw in range(200):
        at = rng.integers(0, len(wish), 400)
        promise = for_budget(wish[at], extra[at], most=0.3, delta=0.1, seed=draw)
        kept += float(np.where(wish >= promise.threshold, extra, 0.0).mean()) <= 0.3
    assert kept / 200 >= 0.9 - 2 * (0.09 / 200) ** 0.5


def test_few_rows_promise_nothing() -> None:
    wish, gain = stream(np.random.default_rng(2), 8)
    promise = for_quality(wish, gain, give_up=0.01)
    assert not promise.kept
    assert promise.calls == 1.0
    assert for_quality(np.zeros(0), np.zeros(0), give_up=0.1).threshold == -np.inf


def test_p_values_are_small_only_where_they_may_be() -> None:
    rng = np.random.default_rng(3)
    false = sum(
        p_value((rng.random(300) < 0.1).astype(float), 0.1, low=0.0, high=1.0) < 0.1 for _ in range(400)
    )
    assert false / 400 <= 0.1
    assert p_value(np.zeros(300), 0.05, low=0.0, high=1.0) < 0.01
    assert p_value(np.zeros(0), 0.05, low=0.0, high=1.0) == 1.0
    assert p_value(np.ones(5), 1.0, low=0.0, high=1.0) == 0.0


def test_a_budget_wins_over_a_quality_that_it_cannot_pay_for() -> None:
    wish, gain = stream(np.random.default_rng(0), 2000)
    alone = for_quality(wish, gain, give_up=0.05)
    both = for_both(wish, gain, give_up=0.05, most=0.9)
    assert (both.threshold, both.kept) == (alone.threshold, True)
    poor = for_both(wish, gain, give_up=0.05, most=0.1)
    assert poor.calls <= 0.1 < alone.calls
    assert not poor.kept
    assert poor.loss > 0.05


def test_a_promise_takes_rows() -> None:
    needed = rows_needed(0.05, 0.1)
    rng = np.random.default_rng(0)
    for rows, kept in ((needed - 10, False), (needed + 10, True)):
        assert for_quality(rng.random(rows), np.zeros(rows), give_up=0.05, delta=0.1).kept is kept
    believed = for_quality(np.array([0.1, 0.9]), np.array([0.0, 1.0]), give_up=0.0, delta=0.5)
    assert believed.threshold > 0.1, "what was seen is believed where nothing is to be promised"
