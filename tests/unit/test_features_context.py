"""What a request looks like in a few numbers of a fixed scale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semaforo.features.context import MOST, context_of
from semaforo.features.extract import chat_signals, tensor_signals
from semaforo.features.text import text_numbers


def test_a_text_is_told_by_its_length_and_its_signs() -> None:
    signals = chat_signals({"messages": [{"role": "user", "content": "How much is 3 + 4 * (5 - 2)?"}]})
    sums = context_of({**signals.numbers, **text_numbers(signals.text)})
    prose = context_of(
        text_numbers("Tell me a story of a fox who lives in a wood with her three young ones.")
    )
    assert set(prose) < set(sums)
    assert sums["text.numbers"] > prose["text.numbers"] + 0.5
    assert sums["text.formula"] > prose["text.formula"] + 0.5
    assert all(abs(value) < 3.0 for value in [*sums.values(), *prose.values()])


def test_a_tensor_is_told_by_its_mean_and_spread_first() -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(1, 50)), "b": rng.normal(200.0, 3.0, size=(1, 50))}
    found = context_of(tensor_signals(arrays).numbers)
    assert len(found) == MOST
    assert list(found)[:4] == ["a.mean", "b.mean", "a.std", "b.std"]
    assert found["b.mean"] == pytest.approx(math.asinh(float(arrays["b"].mean())))


def test_what_a_router_predicts_goes_first() -> None:
    found = context_of({"x.mean": 1.0}, {"b/1/v": 0.2, "a/1/v": -0.1, "c/1/v": 0.0})
    assert found == {"gain:a/1/v": -0.1, "gain:b/1/v": 0.2, "x.mean": math.asinh(1.0)}


def test_what_is_no_number_is_left_out() -> None:
    assert context_of({"x.mean": math.nan, "x.std": math.inf, "x.rough": 0.0}) == {"x.rough": 0.0}
    assert context_of({}) == {}
