"""Conditions on rows: what they take, and what becomes of rows that a step gave nothing for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from semaforo.errors import InvalidRequest
from semaforo.graph.condition import Condition, Rows, names_in

P = np.array([[0.9, 0.1, 0.0], [0.4, 0.35, 0.25], [0.2, 0.3, 0.5]])
VALUES = {
    "a.p": Rows(P),
    "a": Rows(P),
    "a.label": Rows(np.array([0, 0, 2])),
    "a.text": Rows(np.array([b"yes", b"no", b"maybe"], object)),
    "b.p": Rows(P[1:2], np.array([1])),
    "b": Rows(P[1:2], np.array([1])),
}


def rows(text: str) -> Any:
    return np.flatnonzero(Condition(text).holds({**dict.fromkeys(Condition(text).names), **{
        name: value for name, value in VALUES.items() if name in Condition(text).names
    }}, 3)).tolist()  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max(a.p) < 0.9", [1, 2]),
        ("max(a.p) >= 0.5", [0, 2]),
        ("min(a.p) == 0", [0]),
        ("margin(a.p) < 0.1", [1]),
        ("margin(a.p) <= 0.2 and a.label == 0", [1]),
        ("entropy(a.p) > 1", [1, 2]),
        ("argmax(a.p) == 2", [2]),
        ("mean(a.p) * 3 > 0.99", [0, 1, 2]),
        ("sum(a.p) - 1 < 0.001", [0, 1, 2]),
        ("size(a.p) == 3", [0, 1, 2]),
        ("any(a.p) and not all(a.p)", [0]),
        ("a.label in (1, 2)", [2]),
        ("a.label not in [0]", [2]),
        ("a.text == 'no' or a.text in ('maybe', 'never')", [1, 2]),
        ("length(a.text) > 2", [0, 2]),
        ("abs(-a.label) == 2", [2]),
        ("0 < a.label <= 2", [2]),
        ("a.label / 2 == 1", [2]),
        ("a.p < 0.6", [1, 2]),
        ("max(b.p) < 0.9", [1]),
        ("missing(b)", [0, 2]),
        ("missing(b) or max(b.p) > 0.9", [0, 2]),
        ("max(b.p) > 0.9 or missing(b)", [0, 2]),
        ("max(b.p) < 0.9 or a.label == 2", [1, 2]),
        ("max(b.p) < 0.9 and a.label == 0", [1]),
        ("not (max(b.p) > 0.9)", [1]),
        ("missing(c)", [0, 1, 2]),
        ("max(c.p) < 1", []),
    ],
)
def test_rows_for_which_it_holds(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max(a.p", "is no condition"),
        ("import os", "is no condition"),
        ("__import__('os')", "no function is named '__import__'"),
        ("maxi(a.p) < 1", "Did you mean 'max'"),
        ("max(a.p, b.p) < 1", "max takes one value"),
        ("a.p.q > 1", "cannot stand in a condition"),
        ("a[0] > 1", "cannot stand in a condition"),
        ("lambda: 1", "cannot stand in a condition"),
        ("a.p ** 2 > 1", "cannot stand in a condition"),
        ("a.label in b.label", "`in` takes a list"),
        ("a.label is 1", "is no comparison"),
        ("a.label == None", "neither a number nor a text"),
        ("1 < " * 800 + "2", "2000 are the most"),
        ("not " * 400 + "a", "nested too deeply|holds"),
    ],
)
def test_what_is_no_condition_is_told(text: str, message: str) -> None:
    try:
        Condition(text)
    except InvalidRequest as error:
        assert re.search(message, error.message), error.message  # noqa: PT017 — an interpreter may go as deep
    else:
        assert "holds" in message


def test_answers_agree_by_what_they_come_to() -> None:
    def texts(*found: str) -> Rows:
        return Rows(np.array([text.encode() for text in found], object))

    values = {
        "a.text": texts("so 7.", "Paris", "yes"), "b.text": texts("It is 7.0", "In France:\n paris", "no"),
        "c.text": texts("8", "Paris", "no"), "a.p": Rows(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([0, 2])),
        "b.p": Rows(np.array([[0.4, 0.6], [0.1, 0.9], [0.1, 0.9]])),
    }  # fmt: skip
    assert Condition("agree(a.text, b.text) > 0").holds(values, 3).tolist() == [True, True, False]
    numbers, known = Condition("agree(a.text, b.text, c.text)").number(values, 3)
    assert numbers.tolist() == [1 / 3, 1.0, 1 / 3]
    assert known.all()
    numbers, known = Condition("agree(a.p, b.p)").number(values, 3)
    assert (numbers[known].tolist(), known.tolist()) == ([1.0, 0.0], [True, False, True])
    with pytest.raises(InvalidRequest, match="compares texts with texts"):
        Condition("agree(a.text, b.p) < 1").holds(values, 3)
    with pytest.raises(InvalidRequest, match="takes two values"):
        Condition("agree(a.text) < 1")


def test_a_limit_is_written_anew() -> None:
    found = Condition("max(a.p) < 0.9 or missing(a)")
    assert found.limited("<", 0.55) == "max(a.p) < 0.55 or missing(a)"
    assert Condition("a.gain >= 0.03").limited(">", -0.5) == "a.gain > -0.5"
    assert Condition("max(a.p) < 0.9 or b.p < 1").compared() is None
    assert Condition("missing(a)").compared() is None


def test_what_cannot_be_compared_is_told() -> None:
    with pytest.raises(InvalidRequest, match="cannot be worked out"):
        Condition("a.text < 1").holds({"a.text": VALUES["a.text"]}, 3)


def test_names_stand_in_order_once() -> None:
    assert names_in("max(b.p) < 1 and a.label == 1 and b.p > 0") == ("b.p", "a.label")
    assert names_in("") == ()
