"""Arrivals, what is sent, and the figures of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.traffic.arrivals import Arrival, poisson, read_trace, uniform
from semaforo.traffic.chat import ChatWatch
from semaforo.traffic.generator import Generator
from semaforo.traffic.inputs import chat_bodies, parse_shapes, random_bodies
from semaforo.traffic.load import Kind, Load, on_the_wire, server_at
from semaforo.traffic.outcome import BROKEN, UNANSWERED, Outcome, joined
from semaforo.traffic.summary import plain, spread, summarise
from stalling import Stalling


def test_poisson_arrivals_have_the_rate_and_spread_of_their_process() -> None:
    moments = poisson(200.0, 500.0, seed=3)
    gaps = np.diff(moments)
    assert (gaps >= 0).all()
    assert moments[0] >= 0
    assert moments[-1] < 500.0
    # 100,000 arrivals: four standard errors of the count are 1.3 %, of the gaps' deviation about as much.
    assert len(moments) == pytest.approx(100_000, rel=0.013)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.03)
    assert (poisson(200.0, 500.0, seed=3) == moments).all()
    assert len(poisson(200.0, 500.0, seed=4)) != len(moments)


def test_uniform_arrivals_are_even() -> None:
    assert uniform(10.0, 0.5).tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert len(uniform(3.0, 10.0)) == 30


def test_a_trace_is_read_as_csv_or_json_lines(tmp_path: Path) -> None:
    table = tmp_path / "trace.csv"
    table.write_text("at, priority, deadline, tokens\n12.5,high,50ms,\n10,,,7\n11,low,,\n")
    lines = tmp_path / "trace.jsonl"
    lines.write_text(
        '{"timestamp": 12.5, "priority": "high", "deadline_ms": 50}\n\n{"t": 10, "tokens": 7}\n'
        '{"at": 11, "priority": "low"}\n'
    )
    for path in (table, lines):
        assert read_trace(path) == [
            Arrival(0.0, tokens=7), Arrival(1.0, "low"), Arrival(2.5, "high", 0.05),
        ]  # fmt: skip
    assert [arrival.at for arrival in read_trace(table, speed=2.0)] == [0.0, 0.5, 1.25]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'at'"),
        ("when,what\n1,2\n", "no column 'at'"),
        ("at\n", "has no arrivals"),
        ("at\n1\nsoon\n", ":3: 'at' takes seconds"),
        ("at,deadline\n1,50\n", ":2: 'deadline' takes a duration"),
        ('{"at": 1}\n{"at": }\n', ":2: no JSON"),
        ('{"at": 1}\n[1]\n', ":2: a line is a JSON object"),
    ],
)
def test_a_wrong_trace_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=said.replace("(", "\\(")):
        read_trace(path)


def test_random_tensors_fit_the_metadata() -> None:
    inputs = (
        TensorSpec("image", "UINT8", (-1, 3, -1, -1)),
        TensorSpec("mask", "BOOL", (-1, 2)),
        TensorSpec("extra", "BYTES", (-1,), optional=True),
    )
    bodies = random_bodies(inputs, rows=2, shapes={"image": (3, 4, 5)}, binary=False, seed=1)
    first, second = (msgspec.json.decode(body) for body, _ in bodies[:2])
    image, mask = first["inputs"]
    assert image["shape"] == [2, 3, 4, 5]
    assert len(image["data"]) == 120
    assert max(image["data"]) > 100
    assert all(isinstance(value, bool) for value in mask["data"])
    assert first != second
    body, length = random_bodies(inputs, rows=2, shapes={"image": (3, 4, 5)}, binary=True, seed=1)[0]
    assert length is not None
    assert len(body) == length + 120 + 4


@pytest.mark.parametrize(
    ("spec", "shapes", "said"),
    [
        (TensorSpec("x", "FP32", (-1, -1)), {}, "give its sizes, as --shape x=8"),
        (TensorSpec("x", "FP32", (-1, 4)), {"x": (5,)}, r"the model takes \[any, 4\]"),
        (TensorSpec("x", "FP32", (-1, 4)), {"y": (4,)}, "no such input"),
        (TensorSpec("x", "BYTES", (-1,)), {}, "give --data"),
        (TensorSpec("x", "FP16", (-1, 2)), {}, "travels only with --binary"),
        (TensorSpec("x", "FP32", (4,)), {}, "--rows 2: input 'x' always has"),
        (TensorSpec("x", "FP32", (-1, 10**9)), {}, "elements"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    spec: TensorSpec, shapes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        random_bodies((spec,), rows=2, shapes=shapes, binary=False, seed=0)


def test_shapes_are_written_with_a_name() -> None:
    assert parse_shapes(["a=3x224x224", "b=c=5"]) == {"a": (3, 224, 224), "b=c": (5,)}
    for text in ("3x224", "a=", "a=0", "a=3y4"):
        with pytest.raises(InvalidRequest, match="--shape"):
            parse_shapes([text])


def test_a_chat_may_be_a_text_messages_or_a_body() -> None:
    messages = [{"role": "user", "content": "hi"}]
    bodies = chat_bodies("m", ["hi", messages, {"messages": messages, "seed": 4}], stream=True, tokens=9)
    found = [msgspec.json.decode(body) for body, _ in bodies]
    assert all(body["messages"] == messages for body in found)
    assert all((body["model"], body["max_tokens"], body["stream"]) == ("m", 9, True) for body in found)
    assert found[2]["seed"] == 4
    with pytest.raises(InvalidRequest, match="--data takes for a chat"):
        chat_bodies("m", [{"inputs": []}], stream=False, tokens=0)


def test_the_parts_of_a_load_are_the_whole_of_it() -> None:
    kind = Kind("x", "/p", {}, ((b"body", None),))
    load = Load(server_at("http://h:1"), (kind,), 1.0, uniform(10.0, 1.0), tuple(range(10)), connections=7)
    parts = load.parts(3)
    assert sorted(n for part in parts for n in part.which) == list(range(10))
    assert sum(part.connections for part in parts) == 7
    closed = Load(server_at("http://h:1"), (kind,), 1.0, connections=2, most=5).parts(4)
    assert [(part.connections, part.most) for part in closed] == [(1, 3), (1, 2)]


def test_a_request_has_its_length_and_the_length_of_its_json() -> None:
    kind = Kind("x", "/infer", {"a": "b"}, ((b"{}1234", 2),))
    ((wire,),) = on_the_wire(kind, server_at("http://[::1]:80/base/"))
    head, _, body = wire.partition(b"\r\n\r\n")
    assert body == b"{}1234"
    assert head.split(b"\r\n") == [
        b"POST /base/infer HTTP/1.1", b"host: [::1]:80", b"content-length: 6", b"a: b",
        b"inference-header-content-length: 2",
    ]  # fmt: skip


def outcome(scheduled: list[float], done: list[float], status: list[int], **more: object) -> Outcome:
    count = len(scheduled)
    nan = np.full(count, np.nan)
    given: dict[str, object] = {
        "kind": np.zeros(count, np.int16), "who": np.zeros(count, np.int16),
        "taken": np.array(scheduled), "sent": np.array(scheduled), "first": nan, "last": nan,
        "tokens": np.zeros(count, np.int32),
    }  # fmt: skip
    return Outcome(
        began=0.0, seconds=10.0, ended=12.0, scheduled=np.array(scheduled), done=np.array(done),
        status=np.array(status, np.int16), **(given | more),
    )  # type: ignore[arg-type]  # fmt: skip


def test_figures_of_a_run() -> None:
    nan = float("nan")
    found = summarise(
        outcome(
            [0.0, 1.0, 2.0, 3.0, 4.0],
            [0.1, 1.4, 2.1, 3.01, nan],
            [200, 200, 503, 200, UNANSWERED],
            who=np.array([1, 2, 0, 1, 0], np.int16),
            names=("", "a/x", "b/y"),
            reasons={(503, "full"): 1},
        ),
        (0.2,),
        open_loop=True,
    )
    assert (found.requests, found.answered, found.in_time, found.unanswered) == (5, 3, 2, 1)
    assert found.goodput == pytest.approx(0.2)
    assert found.offered == pytest.approx(0.5)
    assert found.status == {"200": 3, "503": 1, "unanswered": 1}
    assert found.reasons == (("503", "full", 1),)
    assert [(served.name, served.count) for served in found.served] == [("a/x", 2), ("b/y", 1)]
    # What is still waiting counts with what it has waited: 8 s.
    assert found.latency.max == pytest.approx(8.0)
    assert found.latency.p50 == pytest.approx(0.1)
    assert "1 requests had no answer" in found.warnings[0]
    assert plain(found)["first_token"]["p50"] is None


def test_percentiles_are_values_that_were_measured() -> None:
    found = spread(np.arange(1, 1001) / 1000)
    assert (found.p50, found.p90, found.p99, found.p999, found.max) == (0.5, 0.9, 0.99, 0.999, 1.0)


def test_a_late_or_busy_generator_is_warned_of() -> None:
    scheduled = [0.01 * k for k in range(100)]
    late = outcome(
        scheduled, [s + 0.02 for s in scheduled], [200] * 100, taken=np.array(scheduled) + 0.01, cpu=0.97
    )
    warnings = summarise(late, (None,), open_loop=True).warnings
    assert "the generator itself was late (p99 10.0 ms)" in warnings[0]
    assert "97% of a core" in warnings[1]
    assert summarise(outcome(scheduled, scheduled, [200] * 100), (None,), open_loop=True).warnings == ()


def test_outcomes_are_joined_in_order_with_one_set_of_names() -> None:
    one = outcome([0.0, 2.0], [0.1, 2.1], [200, BROKEN], who=np.array([1, 0], np.int16), names=("", "a/x"),
                  reasons={(0, "broke after 12 bytes"): 1}, connections=2)  # fmt: skip
    two = outcome([1.0], [1.1], [200], who=np.array([2], np.int16), names=("", "b/y", "a/x"),
                  reasons={(0, "broke after 99 bytes"): 4}, connections=3)  # fmt: skip
    both = joined([one, two])
    assert both.scheduled.tolist() == [0.0, 1.0, 2.0]
    assert [both.names[k] for k in both.who] == ["a/x", "a/x", ""]
    assert both.connections == 5
    assert list(both.reasons.values()) == [5]


def test_a_streamed_chat_is_timed_and_counted() -> None:
    watch = ChatWatch(stream=True)
    watch.feed(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    assert watch.first_at == 0.0
    watch.feed(b'data: {"choices":[{"delta":{"content":"one"}}]}\n\ndata: {"choices":[{"del')
    watch.feed(b'ta":{"content":"two"},"finish_reason":"stop"}]}\n\n')
    watch.feed(b'data: {"choices":[],"usage":{"completion_tokens":5}}\n\ndata: [DONE]\n\n')
    watch.close()
    assert 0 < watch.first_at <= watch.last_at
    assert (watch.tokens, watch.fault) == (5, "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n', "ended without"),
        (b'data: {"error":{"message":"it fell over"}}\n\n', "it fell over"),
        (b"data: {oops\n\n", "no JSON"),
    ],
)
def test_a_stream_that_is_not_whole_says_so(body: bytes, said: str) -> None:
    watch = ChatWatch(stream=True)
    watch.feed(body)
    watch.close()
    assert said in watch.fault


class EarlyLoop(asyncio.SelectorEventLoop):
    """A loop whose timers come long before their time, as uvloop's do by a millisecond."""

    def call_later(
        self, delay: float, callback: Callable[..., Any], *rest: Any, **kept: Any
    ) -> asyncio.TimerHandle:
        return super().call_later(delay / 2, callback, *rest, **kept)


def test_a_timer_that_comes_early_cuts_no_request_off() -> None:
    with Stalling(after=0, seconds=0) as server:
        kind = Kind("m", "/v2/models/m/infer", {}, ((b"{}", None),))
        load = Load(server_at(server.url), (kind,), 0.101, np.array([0.0, 0.1]))

        async def run() -> Outcome:
            generator = Generator(load)
            await generator.connect()
            return await generator.run(time.monotonic())

        with asyncio.Runner(loop_factory=EarlyLoop) as runner:
            outcome = runner.run(run())
    assert outcome.status.tolist() == [200, 200]
