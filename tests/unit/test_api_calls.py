"""What a client asks, with replies written by hand: nothing is sent."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from semaforo.api.answer import Story
from semaforo.api.calls import Calls
from semaforo.api.exchange import Ask, Call, Reply
from semaforo.entities import Contract
from semaforo.errors import InvalidRequest, NotFound


def metadata(width: int) -> Reply:
    tensor = {"datatype": "FP32", "shape": [-1, width]}
    value = {"name": "t", "inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]}
    return Reply(200, {}, json.dumps(value).encode())


def refusal(status: int, message: str) -> Reply:
    return Reply(status, {}, json.dumps({"error": message}).encode())


GOOD = Reply(
    200,
    {"semaforo-model": "m", "semaforo-request-id": "r1"},
    json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}).encode(),
)


def calls() -> Calls:
    return Calls("http://there", lambda request: Story(f"why {request}", 0.5))


def infer(of: Calls, values: Any, target: str = "t") -> Call[Any]:
    return of.infer(
        target, Contract(), {"x": values}, version="", variant="", parameters=None, idempotency_key=""
    )


def drive(call: Call[Any], *replies: Reply) -> tuple[list[Ask], Any]:
    asks = [next(call)]
    for reply in replies[:-1]:
        asks.append(call.send(reply))
    with pytest.raises(StopIteration) as end:
        call.send(replies[-1])
    return asks, end.value.value


def test_what_a_target_takes_is_asked_once() -> None:
    of = calls()
    asks, answer = drive(infer(of, [1.0]), metadata(1), GOOD)
    assert [ask.path for ask in asks] == ["/v2/models/t", "/v2/models/t/infer"]
    assert [ask.repeatable for ask in asks] == [True, False]
    assert (answer["y"].tolist(), answer.why, answer.cost) == ([1.0], "why r1", 0.5)
    asks, _ = drive(infer(of, [1.0]), GOOD)
    assert [ask.path for ask in asks] == ["/v2/models/t/infer"]


def test_it_is_asked_again_where_it_does_not_fit_here() -> None:
    of = calls()
    drive(infer(of, [1.0]), metadata(1), GOOD)
    asks, _ = drive(infer(of, [1.0, 2.0]), metadata(2), GOOD)
    assert [ask.method for ask in asks] == ["GET", "POST"]
    call = infer(of, [1.0])
    assert next(call).method == "GET"
    with pytest.raises(InvalidRequest, match="has shape"):
        call.send(metadata(2))


def test_it_is_asked_again_where_it_does_not_fit_there() -> None:
    of = calls()
    drive(infer(of, np.ones((2, 1))), metadata(1), GOOD)
    asks, _ = drive(infer(of, np.ones((2, 1))), refusal(400, "wrong shape"), metadata(-1), GOOD)
    assert [ask.method for ask in asks] == ["POST", "GET", "POST"]
    call = infer(of, np.ones((2, 1)))
    next(call)
    call.send(refusal(404, "gone"))
    with pytest.raises(NotFound, match="gone"):
        call.send(metadata(-1))


def test_names_are_written_so_that_they_stay_one_segment() -> None:
    call = infer(calls(), 1.0, "a/b c?")
    assert next(call).path == "/v2/models/a%2Fb%20c%3F"
    with pytest.raises(InvalidRequest, match="name a task"):
        next(infer(calls(), 1.0, ""))


def test_a_contract_and_a_key_travel_in_headers() -> None:
    of = calls()
    contract = Contract(deadline_s=0.02, tenant="demo")
    call = of.infer(
        "t", contract, {"x": [1.0]}, version="3", variant="int8", parameters={"k": 1}, idempotency_key="once"
    )
    assert next(call).path == "/v2/models/t/versions/3"
    ask = call.send(metadata(1))
    assert ask.path == "/v2/models/t/versions/3/infer"
    assert (ask.deadline_s, ask.repeatable) == (0.02, True)
    assert ask.headers["semaforo-deadline-ms"] == "20"
    assert (ask.headers["semaforo-variant"], ask.headers["semaforo-idempotency-key"]) == ("int8", "once")
    head = json.loads(ask.content[: int(ask.headers["inference-header-content-length"])])
    assert head["parameters"] == {"k": 1, "binary_data_output": True}
