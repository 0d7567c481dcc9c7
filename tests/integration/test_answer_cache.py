"""Answers that are given again: to the same request of the same tenant, as long as they are good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from semaforo import Client, Fleet
from semaforo.build import blueprint
from semaforo.routing.cache import Cache
from semaforo.server.settings import ServerSettings
from served_fleet import serving

FLEET = """\
tasks:
  count: {inputs: {x: fp32[2]}, outputs: {n: int64}, cache: {exact: true, keep: 1h}}
  plain: {inputs: {x: fp32[2]}, outputs: {n: int64}}
  chat: {kind: chat, cache: true}
  both: {kind: chat, cache: true}
  odd: {kind: chat}
models:
  counter: {task: count, python: "calls.py:count", isolation: inline, quality: 0.8}
  same: {task: plain, python: "calls.py:count", isolation: inline}
  talker: {task: chat, python: "calls.py:talk", isolation: thread}
  broken: {task: odd, python: "calls.py:fail", isolation: thread}
  two:
    task: both
    graph: {steps: {cheap: talker, dear: broken, best: {fuse: first, of: [dear, cheap]}}}
"""
CALLS = """\
import numpy as np

calls = 0


def count(x: np.ndarray) -> np.ndarray:
    global calls
    calls += 1
    return np.full(len(x), calls)


def fail(messages):
    raise RuntimeError("no answer")
    yield ""


def talk(messages):
    global calls
    calls += 1
    yield "call "
    yield str(calls)
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "calls.py").write_text(CALLS)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


def test_the_same_request_gets_the_same_answer_and_another_does_not(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        x = np.float32([1, 2])
        first = fleet.infer("count", x=x)
        again = fleet.infer("count", x=x)
        assert again["n"] == first["n"]
        assert (again.replica, again.model, again.cost) == ("cache", "counter", 0.0)
        assert "gave to the same request was kept, and given again" in again.why
        assert fleet.infer("count", x=np.float32([1, 3]))["n"] != first["n"]
        assert fleet.infer("count", x=x, tenant="other")["n"] != first["n"]
        assert fleet.infer("counter", x=x)["n"] != first["n"]
        assert fleet.infer("plain", x=x)["n"] != fleet.infer("plain", x=x)["n"]
        fleet.feedback(again, label=int(again["n"]))


def test_a_contract_that_the_kept_answer_does_not_meet_is_not_met_by_it(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        x = np.float32([1, 2])
        answer = fleet.infer("count", x=x)
        assert fleet.infer("count", x=x, min_quality=0.7).replica == "cache"
        for _ in range(60):
            fleet.feedback(fleet.infer("counter", x=np.random.default_rng().random(2, np.float32)), score=0)
        assert fleet.infer("count", x=x).replica == "cache"
        with pytest.raises(Exception, match="no variant"):
            fleet.infer("count", x=x, min_quality=0.7)
        assert answer.model == "counter"


def test_what_a_caller_does_with_an_answer_reaches_nobody_else(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        x = np.float32([[1, 2], [3, 4]])
        said = fleet.infer("count", x=x)["n"].tolist()
        for _ in range(2):
            answer = fleet.infer("count", x=x)
            assert answer.replica == "cache"
            assert answer["n"].tolist() == said
            answer["n"][...] = -1
        assert fleet.infer("count", x=x)["n"].tolist() == said


def test_a_session_is_never_answered_from_before(fleet_file: Path) -> None:
    plan = blueprint(fleet_file)
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [5, 6]}]}
    with serving(plan.catalog) as served, httpx.Client(base_url=served.url) as http:
        said = [
            http.post("/v2/models/count/infer", json=body, headers={"semaforo-session": "talk"})
            for _ in range(2)
        ]
        assert [each.status_code for each in said] == [200, 200]
        assert said[0].json()["outputs"] != said[1].json()["outputs"]


def test_a_chat_is_given_again_as_a_stream(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        first = "".join(fleet.chat("chat", "hello", temperature=0))
        again = fleet.chat("chat", "hello", temperature=0)
        assert "".join(again) == first
        assert again.answer is not None
        assert again.answer.replica == "cache"
        assert "".join(fleet.chat("chat", "hello")) != first
        assert "".join(fleet.chat("chat", "hello you", temperature=0)) != first


def test_an_answer_that_had_to_do_without_is_not_kept(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        said = set()
        for _ in range(2):
            chat = fleet.chat("both", "hello", temperature=0)
            said.add(chat.text())
            assert chat.answer is not None
            assert chat.answer.without == ("dear: model_failed",)
            assert chat.answer.replica.startswith("two")
        assert len(said) == 1, "of the step that went well, the answer is kept"


def test_over_http_the_answer_says_so(fleet_file: Path) -> None:
    plan = blueprint(fleet_file)
    with (
        serving(plan.catalog) as served,
        Client(served.url) as client,
        httpx.Client(base_url=served.url) as http,
    ):
        x = np.float32([5, 6])
        body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [5, 6]}]}
        first = http.post("/v2/models/count/infer", json=body)
        again = http.post("/v2/models/count/infer", json=body)
        assert "semaforo-cache" not in first.headers
        assert again.headers["semaforo-cache"] == "hit"
        assert again.json()["outputs"] == first.json()["outputs"]
        assert client.infer("count", x=x)["n"] == first.json()["outputs"][0]["data"][0]
        chat = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        said = [
            http.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"] for _ in range(2)
        ]
        assert said[0] == said[1]
        metrics = http.get("/metrics").text
        assert 'semaforo_cache_hits_total{task="count"} 2.0' in metrics
        assert 'semaforo_cache_misses_total{task="count"} 1.0' in metrics


def test_whoever_asks_for_a_fresh_answer_gets_one_by_every_way_in(fleet_file: Path) -> None:
    plan = blueprint(fleet_file)
    settings = ServerSettings(port=0, grpc_port=0, grace_s=2.0)
    with (
        serving(plan.catalog, settings) as served,
        Client(served.url) as client,
        httpx.Client(base_url=served.url) as http,
        triton.InferenceServerClient(served.grpc) as remote,
    ):
        x = np.float32([[5, 6]])
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(x)
        body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [5, 6]}]}
        off = {"semaforo-cache": "off"}

        def http_count(**more: Any) -> Any:
            headers = more.pop("headers", {})
            return http.post("/v2/models/count/infer", json={**body, **more}, headers=headers).json()[
                "outputs"
            ][0]["data"][0]

        kept = http_count()
        fresh = [
            http_count(headers=off),
            http_count(parameters={"semaforo_cache": "off"}),
            int(client.infer("count", x=x, cache=False)["n"][0]),
            int(remote.infer("count", [tensor], headers=off).as_numpy("n")[0]),
            int(remote.infer("count", [tensor], parameters={"semaforo_cache": "off"}).as_numpy("n")[0]),
        ]
        assert len({kept, *fresh}) == 6, "each was counted"
        assert int(client.infer("count", x=x)["n"][0]) == kept, "and none was kept"
        assert int(remote.infer("count", [tensor]).as_numpy("n")[0]) == kept
        chat = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        said = [
            http.post("/v1/chat/completions", json=chat, headers=headers).json()["choices"][0]["message"]
            for headers in ({}, off, {})
        ]
        assert said[0] == said[2] != said[1]
        assert client.chat("chat", "hi", temperature=0, cache=False).text() != said[0]["content"]
        wrong = http.post("/v2/models/count/infer", json=body, headers={"semaforo-cache": "on"})
        assert wrong.status_code == 400
        assert "it takes off" in wrong.json()["error"]


def test_a_cache_is_bounded_in_bytes_and_age() -> None:
    cache: Cache[str] = Cache(100, 10.0)
    for n in range(6):
        cache.put(b"%d" % n, f"answer {n}", "m/1/v", 20, 0.0)
    assert cache.bytes == 100
    assert cache.get(b"0", 1.0) is None
    kept = cache.get(b"1", 1.0)
    assert kept is not None
    cache.put(b"6", "answer 6", "n/1/v", 20, 1.0)
    assert cache.get(b"1", 1.0) is not None
    assert cache.get(b"2", 1.0) is None
    assert cache.get(b"1", 10.0) is None
    cache.put(b"7", "too large", "m/1/v", 26, 1.0)
    assert cache.get(b"7", 1.0) is None
    cache.forget({"n/1/v"})
    assert cache.get(b"6", 1.0) is None
    assert cache.bytes == 20 * len(cache)
