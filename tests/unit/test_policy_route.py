"""Filters by contract and capability, the utility, and what is kept in reserve."""

from __future__ import annotations

import pytest

from fleets import ask, chat, variant
from semaforo.entities import (
    BatchProfile,
    Cost,
    Preference,
    Priority,
    Privacy,
    Request,
    StreamProfile,
    TensorSpec,
    Variant,
)
from semaforo.policy import route

IMAGE = (TensorSpec("image", "FP32", (64,)), TensorSpec("mask", "BOOL", (-1,), optional=True))


def verdict(v: Variant, request: Request, seconds: float = 0.01, tokens: float = 0.0) -> tuple[str, str]:
    return route.ruled_out(v, request, seconds, tokens)


@pytest.mark.parametrize(
    ("v", "request_", "rule", "detail"),
    [
        (variant("m"), ask("q"), "", ""),
        (variant("m"), ask("q", stream=True), "modality", "speaks tensor"),
        (chat("l"), ask("q"), "modality", "speaks chat"),
        (variant("m", sees=Privacy.PUBLIC), ask("q", privacy=Privacy.SITE), "privacy", "for public data, this is site"),  # noqa: E501
        (variant("m", sees=Privacy.INTERNAL), ask("q", privacy=Privacy.INTERNAL), "", ""),
        (variant("m", quality=0.9), ask("q", min_quality=0.9), "", ""),
        (variant("m", quality=0.93), ask("q", min_quality=0.95), "quality", "0.93 < 0.95"),
        (variant("m", quality=None), ask("q", min_quality=0.1), "quality", "not measured < 0.1"),
        (variant("m", quality=None), ask("q"), "", ""),
        (variant("m"), ask("q", needs=("tools", "vision")), "capability", "no tools, vision"),
        (variant("m", capabilities=("tools", "vision")), ask("q", needs=("tools",)), "", ""),
        (chat("l", context=100), ask("q", stream=True, prompt_tokens=80, max_tokens=21), "context", "101 tokens > 100"),  # noqa: E501
        (chat("l", context=100), ask("q", stream=True, prompt_tokens=80, max_tokens=20), "", ""),
        (variant("m", inputs=IMAGE), ask("q", shape="image:FP32:64"), "", ""),
        (variant("m", inputs=IMAGE), ask("q", shape="image:FP32:64;mask:BOOL:7"), "", ""),
        (variant("m", inputs=IMAGE), ask("q", shape="mask:BOOL:7"), "shape", "needs image"),
        (variant("m", inputs=IMAGE), ask("q", shape="image:FP32:32"), "shape", "image is fp32[32], takes image: fp32[64]"),  # noqa: E501
        (variant("m", inputs=IMAGE), ask("q", shape="image:INT8:64"), "shape", "image is int8[64], takes image: fp32[64]"),  # noqa: E501
        (variant("m", cost=Cost(second=1.0)), ask("q", max_cost=0.005), "cost", "$0.01 > $0.005"),
        (variant("m", cost=Cost(second=1.0)), ask("q", max_cost=0.01), "", ""),
        (variant("m", max_rows=4), ask("q", rows=9), "", ""),
        (chat("l", max_rows=1), ask("q", stream=True, rows=2), "shape", "2 rows in one stream"),
    ],
)  # fmt: skip
def test_filters(v: Variant, request_: Request, rule: str, detail: str) -> None:
    assert verdict(v, request_) == (rule, detail)


def test_a_streams_cost_counts_its_tokens() -> None:
    v = chat("l", cost=Cost(input_token=2.0, output_token=10.0, request=1.0))
    request = ask("q", stream=True, prompt_tokens=3, max_cost=100.0)
    assert route.predicted_cost(v, request, 1.0, 5.0) == 1 + 6 + 50
    assert verdict(v, request, tokens=5.0) == ("", "")
    assert verdict(v, request, tokens=10.0)[0] == "cost"


def test_the_length_of_an_answer_is_what_is_usual_or_allowed() -> None:
    assert route.predicted_tokens(ask("q"), 256.0) == 256.0
    assert route.predicted_tokens(ask("q", max_tokens=20), 256.0) == 20.0
    assert route.predicted_tokens(ask("q", max_tokens=2000), 256.0) == 256.0


def test_weights_sum_to_one_and_follow_the_goal() -> None:
    for prefer in (
        Preference(),
        Preference(goal="cost"),
        Preference(goal="quality"),
        Preference(quality=0, latency=0, cost=0),
    ):
        w = route.weights_of(prefer)
        assert w.quality + w.latency + w.cost == pytest.approx(
            1.0 if prefer != Preference(quality=0, latency=0, cost=0) else 0
        )
    assert route.weights_of(Preference(goal="cost")).cost > 0.9
    assert route.weights_of(Preference(goal="quality")).quality > 0.9


def test_utility_rises_with_quality_and_falls_with_time_and_cost() -> None:
    w = route.weights_of(Preference(quality=1, latency=1, cost=1))
    assert route.utility(w, 1.0, 0.0, 0.0) == pytest.approx(1.0)
    assert route.utility(w, 0.0, 1.0, 1.0) == pytest.approx(0.0)
    assert route.utility(w, 0.5, 0.2, 0.2) > route.utility(w, 0.4, 0.2, 0.2)
    assert route.utility(w, 0.5, 0.2, 0.2) > route.utility(w, 0.5, 0.3, 0.2)
    assert route.utility(w, 0.5, 0.2, 0.2) > route.utility(w, 0.5, 0.2, 0.3)
    assert route.utility(w, 0.5, 5.0, 0.0) == route.utility(w, 0.5, 1.0, 0.0)


BEST, GOOD, POOR = variant("a", quality=0.97), variant("b", quality=0.965), variant("c", quality=0.8)
COSTS = [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("prefer", "flags"),
    [
        (Preference(), [True, True, True]),
        (Preference(goal="quality"), [True, True, False]),
        (Preference(goal="cost", keep_quality=0.98), [True, True, False]),
        (Preference(goal="cost", keep_quality=0.5), [True, True, True]),
        (Preference(goal="cost", keep_quality=1.0), [True, False, False]),
    ],
)
def test_what_is_open_and_what_is_kept_in_reserve(prefer: Preference, flags: list[bool]) -> None:
    assert route.open_set([BEST, GOOD, POOR], COSTS, prefer) == flags


def test_of_paid_variants_only_the_best_is_open() -> None:
    paid = [variant(n, quality=q, cost=Cost(request=1.0)) for n, q in (("x", 0.9), ("y", 0.99))]
    local = variant("z", quality=0.7, cost=Cost(second=1.0))
    assert route.open_set([*paid, local], [1.0, 1.0, 0.0], Preference(quality=1, latency=0, cost=0)) == [
        False, True, True,
    ]  # fmt: skip


def test_at_least_one_is_always_open() -> None:
    unknown = [variant("x", quality=None), variant("y", quality=None)]
    for goal in ("weights", "cost", "quality"):
        prefer = Preference(goal=goal, keep_quality=1.0)  # type: ignore[arg-type]
        assert any(route.open_set(unknown, [0.0, 0.0], prefer))


def test_profiles_predict() -> None:
    assert BatchProfile(0.01, 0.002).seconds(5) == pytest.approx(0.02)
    assert StreamProfile(0.1, 0.001, 0.01).seconds(50, 10) == pytest.approx(0.25)
    assert Priority.CRITICAL < Priority.LOW
