"""V2 over real sockets: routes, answers, errors, contracts, idempotency, clients that go away."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from served_fleet import Served, serving, small_fleet

INPUT = {"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
BODY: dict[str, Any] = {"id": "mine", "inputs": [INPUT]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("models")
    with serving(small_fleet(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20) as client:
        yield client


def sleep_for(seconds: float) -> dict[str, Any]:
    return {"inputs": [{"name": "seconds", "shape": [1], "datatype": "FP32", "data": [seconds]}]}


def refused(response: httpx.Response, status: int, text: str) -> httpx.Response:
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert text in body["error"]
    return response


# --- metadata and health -----------------------------------------------------------------------------------


def test_the_server_says_what_it_is(http: httpx.Client) -> None:
    told = http.get("/v2").json()
    assert told["name"] == "semaforo"
    assert {"binary_tensor_data", "classification", "statistics", "model_repository"} <= set(
        told["extensions"]
    )


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready", "/v2/"])
def test_a_healthy_server_is_live_and_ready(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 200
    assert http.head(path).content == b""


def test_metadata_is_in_the_tasks_words(http: httpx.Client) -> None:
    told = http.get("/v2/models/digits").json()
    assert told["name"] == "digits"
    assert told["versions"] == ["3", "v10", "v9"]
    assert told["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 4]}]
    assert told["outputs"][1] == {
        "name": "scores",
        "datatype": "FP32",
        "shape": [-1, 3],
        "parameters": {"labels": ["zero", "one", "two"]},
    }
    assert http.get("/v2/models/best").json()["versions"] == ["v10", "v9"]
    assert http.get("/v2/models/net/versions/v9").json()["versions"] == ["v9"]
    assert {"digits", "numbers", "linear", "best", "net"} <= set(http.get("/v2/models").json()["models"])


def test_the_configuration_is_like_tritons(http: httpx.Client) -> None:
    told = http.get("/v2/models/net/config").json()
    assert told["max_batch_size"] == 64
    assert told["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [4]}]
    assert told["instance_group"][0] == {"name": "net/v10/int8", "count": 1, "kind": "KIND_CPU"}


# --- inference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "model", "version"),
    [
        ("digits", "net", "v10"),
        ("numbers", "net", "v10"),
        ("linear", "linear", "3"),
        ("best", "net", "v10"),
        ("net/versions/v9", "net", "v9"),
        ("net/versions/v10", "net", "v10"),
        ("digits/versions/3", "linear", "3"),
    ],
)
def test_a_task_a_model_an_alias_and_a_version_can_be_asked(
    http: httpx.Client, target: str, model: str, version: str
) -> None:
    response = http.post(f"/v2/models/{target}/infer", json=BODY)
    assert response.status_code == 200, response.text
    told = response.json()
    assert (told["model_name"], told["model_version"], told["id"]) == (model, version, "mine")
    assert response.headers["semaforo-model"] == model
    assert response.headers["semaforo-version"] == version
    assert response.headers["semaforo-replica"].startswith(model)
    assert len(response.headers["semaforo-request-id"]) == 16
    label, scores = told["outputs"]
    assert label["datatype"] == "INT64"
    assert label["shape"] == [1]
    assert np.argmax(scores["data"]) == label["data"][0]
    assert sum(scores["data"]) == pytest.approx(1, abs=1e-5)


def test_no_content_type_is_needed_and_any_is_taken(http: httpx.Client) -> None:
    for kind in ("application/octet-stream", "text/plain", "application/x-www-form-urlencoded"):
        response = http.post(
            "/v2/models/digits/infer", content=json.dumps(BODY), headers={"content-type": kind}
        )
        assert response.status_code == 200, response.text


def test_rows_of_one_request_are_answered_in_order(http: httpx.Client) -> None:
    images = np.random.default_rng(1).normal(size=(40, 4)).round(3).tolist()
    one_by_one = []
    for image in images:
        tensor = INPUT | {"data": image}
        told = http.post("/v2/models/linear/infer", json={"inputs": [tensor]}).json()
        one_by_one.append(told["outputs"][0]["data"][0])
    tensor = INPUT | {"shape": [40, 4], "data": images}
    told = http.post("/v2/models/linear/infer", json={"inputs": [tensor]}).json()
    assert told["outputs"][0]["data"] == one_by_one


def test_many_at_once_get_their_own_answers(served: Served) -> None:
    import asyncio

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=served.url, timeout=20) as client:

            async def one(number: int) -> None:
                tensor = {"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [number, -number]}
                told = (await client.post("/v2/models/echo-int64/infer", json={"inputs": [tensor]})).json()
                assert told["outputs"][0]["data"] == [number, -number]

            await asyncio.gather(*(one(number) for number in range(200)))

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("encoding", "squeeze"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_taken(http: httpx.Client, encoding: str, squeeze: Any) -> None:
    body = squeeze(json.dumps(BODY).encode())
    response = http.post("/v2/models/digits/infer", content=body, headers={"content-encoding": encoding})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("values", [2_000, 100_000])
def test_large_answers_are_compressed_for_those_who_take_it(
    http: httpx.Client, encoding: str, values: int
) -> None:
    tensor = {"name": "x", "shape": [1, values], "datatype": "INT32", "data": [7] * values}
    response = http.post(
        "/v2/models/echo-int32/infer", json={"inputs": [tensor]}, headers={"accept-encoding": encoding}
    )
    assert response.headers["content-encoding"] == encoding
    assert response.json()["outputs"][0]["data"] == [7] * values
    plain = http.post(
        "/v2/models/echo-int32/infer",
        json={"inputs": [tensor]},
        headers={"accept-encoding": "gzip;q=0, identity"},
    )
    assert "content-encoding" not in plain.headers


def test_a_broken_or_unknown_encoding_is_refused(http: httpx.Client) -> None:
    for encoding, text in (("gzip", "not valid gzip"), ("br", "'br' is not known; use gzip or deflate")):
        response = http.post(
            "/v2/models/digits/infer", content=b"hello", headers={"content-encoding": encoding}
        )
        refused(response, 400, text)
    cut = gzip.compress(json.dumps(BODY).encode())[:-9]
    response = http.post("/v2/models/digits/infer", content=cut, headers={"content-encoding": "gzip"})
    refused(response, 400, "ends too early")


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/", 404, "nothing is at /"),
        ("GET", "/v3/models", 404, "nothing is at /v3/models"),
        ("GET", "/v2/health/lives", 404, "Did you mean '/v2/health/live'"),
        ("GET", "/v2/models/digitz", 404, "Did you mean 'digits'"),
        ("GET", "/v2/models/digitz/ready", 404, "digitz"),
        ("GET", "/v2/models/net/versions/v11", 404, "it has v10, v9"),
        ("POST", "/v2/models/nothing/infer", 404, "nothing"),
        ("POST", "/v2/models/net/versions/8/infer", 404, "no version '8'"),
        ("POST", "/v2/models/digits", 405, "takes GET, not POST"),
        ("GET", "/v2/models/digits/infer", 405, "takes POST, not GET"),
        ("DELETE", "/v2", 405, "takes GET, not DELETE"),
        ("POST", "/v2/repository/models/nothing/load", 404, "nothing"),
        ("POST", "/v2/repository/models/digits/unload", 400, "'digits' is a task type"),
    ],
)
def test_every_error_has_v2s_form(http: httpx.Client, method: str, path: str, status: int, text: str) -> None:
    response = refused(http.request(method, path), status, text)
    assert "semaforo-request-id" in response.headers
    if status == 405:
        assert response.headers["allow"] in text


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"semaforo-min-quality": "0.99"}, 422, "quality (0.97 < 0.99)"),
        (
            {"semaforo-min-quality": "2"},
            400,
            "header semaforo-min-quality is '2'; it takes a quality from 0 to 1",
        ),
        ({"semaforo-quality": "1"}, 400, "Did you mean 'semaforo-min-quality'"),
        ({"semaforo-priority": "top"}, 400, "critical, high, normal, low"),
        ({"inference-header-content-length": "x"}, 400, "is a number of bytes"),
        ({"inference-header-content-length": "99999"}, 400, "the body has"),
    ],
)
def test_what_cannot_be_met_or_read_is_named(
    http: httpx.Client, headers: dict[str, str], status: int, text: str
) -> None:
    refused(http.post("/v2/models/digits/infer", json=BODY, headers=headers), status, text)


def test_a_model_that_fails_is_a_500_with_its_message(http: httpx.Client) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    refused(http.post("/v2/models/fail/infer", json={"inputs": [tensor]}), 500, "this model always fails")


def test_a_deadline_that_cannot_be_met_is_refused_or_expires(served: Served, http: httpx.Client) -> None:
    answers: list[httpx.Response] = []
    long = threading.Thread(
        target=lambda: answers.append(http.post("/v2/models/wait/infer", json=sleep_for(0.5)))
    )
    long.start()
    served.await_in_flight(1)
    late = http.post("/v2/models/wait/infer", json=sleep_for(0.01), headers={"semaforo-deadline-ms": "60"})
    long.join()
    assert late.status_code in (503, 504)
    assert list(late.json()) == ["error"]
    assert answers[0].status_code == 200


def test_the_contract_reaches_the_decision(http: httpx.Client) -> None:
    body = BODY | {"parameters": {"priority": 1, "timeout": 2_000_000, "semaforo_min_quality": 0.95}}
    response = http.post(
        "/v2/models/digits/infer",
        json=body,
        headers={"semaforo-privacy": "internal", "semaforo-tenant": "acme", "semaforo-session": "s1"},
    )
    told = http.get(f"/semaforo/v1/decisions/{response.headers['semaforo-request-id']}").json()
    assert told["request"]["contract"] == {
        "priority": "critical",
        "deadline_s": 2.0,
        "min_quality": 0.95,
        "max_cost": None,
        "privacy": "internal",
        "tenant": "acme",
        "fresh": False,
    }
    assert told["request"]["affinity"] == "s1"
    ruled_out = {c["variant"]: c["ruled_out"] for c in told["decided"][0]["considered"]}
    assert ruled_out["linear/3/fp32"] == "quality"
    assert told["finish"]["outcome"] == "done"
    assert "net/int8" in told["text"]


# --- idempotency -------------------------------------------------------------------------------------------


def test_the_same_key_and_body_get_the_same_answer_once(http: httpx.Client) -> None:
    headers = {"semaforo-idempotency-key": "once"}
    first = http.post("/v2/models/digits/infer", json=BODY, headers=headers)
    again = http.post("/v2/models/digits/infer", json=BODY, headers=headers)
    assert again.json() == first.json()
    assert again.headers["semaforo-request-id"] == first.headers["semaforo-request-id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    other = http.post("/v2/models/digits/infer", json=BODY | {"id": "other"}, headers=headers)
    refused(other, 409, "'once' was used for another request")
    tenant = headers | {"semaforo-tenant": "other"}
    assert (
        http.post("/v2/models/digits/infer", json=BODY | {"id": "other"}, headers=tenant).status_code == 200
    )


def test_the_same_key_joins_what_runs(http: httpx.Client, served: Served) -> None:
    before = served.call(lambda: served.engine.metrics.arrived)
    headers = {"semaforo-idempotency-key": "joined"}
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(http.post("/v2/models/wait/infer", json=sleep_for(0.3), headers=headers))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.headers["semaforo-request-id"] for answer in answers}) == 1
    assert served.call(lambda: served.engine.metrics.arrived) == before + 1


def test_an_error_is_not_kept_under_a_key(http: httpx.Client) -> None:
    headers = {"semaforo-idempotency-key": "failing", "semaforo-min-quality": "0.99"}
    first = refused(http.post("/v2/models/digits/infer", json=BODY, headers=headers), 422, "quality")
    again = refused(http.post("/v2/models/digits/infer", json=BODY, headers=headers), 422, "quality")
    assert first.headers["semaforo-request-id"] != again.headers["semaforo-request-id"]
    good = {"semaforo-idempotency-key": "failing"}
    assert http.post("/v2/models/digits/infer", json=BODY, headers=good).status_code == 200


# --- clients that go away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"semaforo-idempotency-key": "gone"}])
def test_a_client_that_goes_away_cancels_its_work(served: Served, headers: dict[str, str]) -> None:
    def outcomes() -> int:
        return int(served.call(lambda: served.engine.metrics.outcomes["cancelled"]))

    before = outcomes()
    with httpx.Client(base_url=served.url, timeout=20) as running:
        holder = threading.Thread(target=lambda: running.post("/v2/models/wait/infer", json=sleep_for(1.0)))
        holder.start()
        served.await_in_flight(1)
        started = time.monotonic()
        with httpx.Client(base_url=served.url, timeout=0.1) as client, pytest.raises(httpx.ReadTimeout):
            client.post("/v2/models/wait/infer", json=sleep_for(0.2), headers=headers)
        while outcomes() == before and time.monotonic() < started + 5:
            time.sleep(0.005)
        assert outcomes() == before + 1
        assert holder.is_alive(), "it was cancelled while it waited"
        holder.join()


# --- generate ----------------------------------------------------------------------------------------------


def test_generate_takes_and_gives_named_values(http: httpx.Client) -> None:
    response = http.post("/v2/models/digits/generate", json={"id": "g", "image": [1, 2, 3, 4]})
    told = response.json()
    assert told["id"] == "g"
    assert told["model_name"] == "net"
    assert told["label"] == int(np.argmax(told["scores"]))
    refused(http.post("/v2/models/digits/generate", json={"imge": []}), 400, "Did you mean 'image'")
    refused(http.post("/v2/models/digits/generate", json={}), 400, "also takes the field image")
    refused(http.post("/v2/models/digits/generate", json={"image": [1, 2]}), 400, "needs 4 elements")
    refused(http.post("/v2/models/digits/generate", content=b"[1]"), 400, "an object of named inputs")


def test_generate_stream_of_a_tensor_task_is_one_event(http: httpx.Client) -> None:
    response = http.post("/v2/models/echo-fp32/generate_stream", json={"x": [1, 2.5]})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.startswith("data: {")
    assert json.loads(response.text[6:].strip())["y"] == [1.0, 2.5]


# --- repository, statistics, admin -------------------------------------------------------------------------


def test_a_model_is_unloaded_and_loaded_again(http: httpx.Client) -> None:
    def state() -> dict[str, Any]:
        models = http.post("/v2/repository/index").json()
        return next(m for m in models if m["name"] == "same-echo-uint16")

    assert state() == {"name": "same-echo-uint16", "version": "1", "state": "READY", "reason": ""}
    assert http.post("/v2/repository/models/same-echo-uint16/unload").status_code == 200
    assert state() == {
        "name": "same-echo-uint16",
        "version": "1",
        "state": "UNAVAILABLE",
        "reason": "unloaded",
    }
    ready = http.post("/v2/repository/index", json={"ready": True}).json()
    assert "same-echo-uint16" not in {m["name"] for m in ready}
    refused(http.get("/v2/models/same-echo-uint16/ready"), 400, "no replica in service")
    tensor = {"name": "x", "shape": [1, 1], "datatype": "UINT16", "data": [1]}
    refused(http.post("/v2/models/echo-uint16/infer", json={"inputs": [tensor]}), 503, "")
    assert http.post("/v2/repository/models/same-echo-uint16/load").status_code == 200
    assert state()["state"] == "READY"
    assert http.post("/v2/models/echo-uint16/infer", json={"inputs": [tensor]}).status_code == 200


def test_statistics_count_rows_and_batches(http: httpx.Client) -> None:
    def stats() -> Any:
        return http.get("/v2/models/same-echo-fp64/stats").json()["model_stats"][0]

    before = stats()
    tensor = {"name": "x", "shape": [3, 1], "datatype": "FP64", "data": [1, 2, 3]}
    assert http.post("/v2/models/echo-fp64/infer", json={"inputs": [tensor]}).status_code == 200
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    success = after["inference_stats"]["success"]
    assert success["count"] - before["inference_stats"]["success"]["count"] == 1
    assert any(b["batch_size"] == 3 for b in after["batch_stats"])
    assert abs(after["last_inference"] / 1e3 - time.time()) < 5
    assert len(http.get("/v2/models/stats").json()["model_stats"]) > 10
    assert {s["version"] for s in http.get("/v2/models/digits/stats").json()["model_stats"]} == {"3", "v10"}


def test_the_fleet_can_be_seen(http: httpx.Client) -> None:
    told = http.get("/semaforo/v1/fleet").json()
    digits = next(t for t in told["tasks"] if t["name"] == "digits")
    assert digits["inputs"][0]["dtype"] == "FP32"
    assert told["aliases"] == {"best": "net", "numbers": "digits"}
    net = next(m for m in told["models"] if m["name"] == "net")
    assert net["in_service"] == "v10"
    assert [v["version"] for v in net["versions"]] == ["v10", "v9"]
    variant = net["versions"][0]["variants"][0]
    assert variant["id"] == "net/v10/int8"
    assert variant["quality"] == 0.97
    assert variant["profile"]["type"] == "batch"
    assert variant["replicas"][0]["state"] == "ready"


def test_decisions_can_be_listed_and_may_be_gone(http: httpx.Client) -> None:
    ids = [http.post("/v2/models/digits/infer", json=BODY).headers["semaforo-request-id"] for _ in range(3)]
    told = http.get("/semaforo/v1/decisions", params={"limit": 3}).json()["decisions"]
    assert [decision["id"] for decision in told] == ids[::-1]
    assert http.get(f"/semaforo/v1/decisions/{ids[0][:10]}").json()["id"] == ids[0]
    refused(http.get("/semaforo/v1/decisions/zzz"), 404, "no decision is kept under 'zzz'")
    refused(http.get("/semaforo/v1/decisions?limit=0"), 400, "limit is '0'; it takes 1 to 1000")


def test_a_decision_can_be_had_without_running(http: httpx.Client, served: Served) -> None:
    before = served.call(lambda: served.engine.metrics.arrived)
    question = {"target": "digits", "contract": {"min_quality": 0.95, "priority": "high"}, "rows": 2}
    told = http.post("/semaforo/v1/decide", json=question).json()
    assert told["pick"] == "net/v10/int8"
    assert told["replica"].startswith("net")
    assert told["considered"][0]["detail"] == "0.9 < 0.95"
    assert served.call(lambda: served.engine.metrics.arrived) == before
    for question, status, text in (
        ({"target": "digitz"}, 404, "Did you mean 'digits'"),
        ({"target": "digits", "contract": {"quality": 1}}, 400, "semaforo_min_quality"),
        ({"target": "digits", "row": 1}, 400, "unknown field `row`"),
        ({"target": "digits", "rows": 0}, 400, "rows is 1 or more"),
        ({"target": "digits", "shape": "x"}, 400, "no shape key"),
        ({}, 400, "missing required field `target`"),
    ):
        refused(http.post("/semaforo/v1/decide", json=question), status, text)


def test_a_variant_is_scaled_and_a_replica_drained(http: httpx.Client) -> None:
    for path in (
        "/semaforo/v1/variants/same-echo-int8%2F1%2Fx/scale",
        "/semaforo/v1/models/same-echo-int8/versions/1/variants/x/scale",
    ):
        for replicas in (2, 1):
            told = http.post(path, json={"replicas": replicas}).json()
            assert sum(r["state"] == "ready" for r in told["replicas"]) >= replicas, told
    refused(http.post(path, json={"replicas": -1}), 400, '{"replicas": n}')
    refused(http.post("/semaforo/v1/variants/nope/scale", json={"replicas": 1}), 404, "nope")
    refused(http.post("/semaforo/v1/replicas/nope/drain"), 404, "nope")
    assert http.post("/semaforo/v1/models/same-echo-int8/unload").status_code == 200
    assert http.post("/semaforo/v1/models/same-echo-int8/load").status_code == 200


def test_metrics_can_be_scraped(http: httpx.Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    http.post("/v2/models/linear/infer", json=BODY)
    families = {f.name: f for f in text_string_to_metric_families(http.get("/metrics").text)}
    names = [name for name in families if not name.startswith(("process_", "python_"))]
    assert all(name.startswith("semaforo_") for name in names)
    answered = {s.labels["model"]: s.value for s in families["semaforo_variant_answered"].samples}
    assert answered["linear"] >= 1
    seconds = families["semaforo_request_seconds"].samples
    total = next(s for s in seconds if s.name.endswith("_count") and s.labels["model"] == "linear")
    assert total.value == answered["linear"]
