"""Models behind V2 servers: a JSON-only server of the standard library, and Semaforo behind Semaforo."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_handles import started

from semaforo import Client
from semaforo.build import blueprint
from semaforo.entities import BatchProfile, Priority, ReplicaSpec
from semaforo.errors import (
    ConfigError,
    Expired,
    InvalidRequest,
    ModelFailed,
    NotReady,
    Refused,
    RuntimeLoadError,
    SemaforoError,
)
from semaforo.live.handles import HandleFactory
from semaforo.live.replica_remote import RemoteReplica
from semaforo.runtime.handed import Handed
from semaforo.runtime.oip import OipRuntime
from semaforo.wire.payload import Tensors
from served_fleet import Served, serving, small_fleet
from sinks import Recorder, run
from v2_server import V2Server

X = {"name": "x", "dtype": "FP32", "shape": [3]}
Y = {"name": "y", "dtype": "FP32", "shape": [3]}
TEXT, SHOUTED = {"name": "text", "dtype": "BYTES"}, {"name": "loud", "dtype": "BYTES"}


@pytest.fixture
def plain() -> Iterator[V2Server]:
    with V2Server() as server:
        yield server


def spec(url: str, inputs: Any = (X,), outputs: Any = (Y,), **options: Any) -> ReplicaSpec:
    given = {"model": "scale", "poll_s": 0, **options}
    return ReplicaSpec("far-1", "far/1/x", "oip", url, options=given, inputs=inputs, outputs=outputs)


def rows(*values: float) -> Tensors:
    return Tensors({"x": np.array([[v, v, v] for v in values], np.float32)})


def test_a_json_server_is_asked_in_json(plain: V2Server) -> None:
    async def test() -> None:
        async with started(spec(plain.url, concurrency=3)) as (handle, sink, begun):
            assert (begun.isolation, begun.slots, begun.shared, begun.profile) == ("remote", 3, True, None)
            handle.run(1, [rows(1), rows(2, 3)], 3)
            _, _, results, _ = await sink.end(1)
            assert results[0].arrays["y"].tolist() == [[2, 2, 2]]
            assert results[1].arrays["y"].tolist() == [[4, 4, 4], [6, 6, 6]]

    run(test)
    headers, body = plain.seen[0]
    assert len(plain.seen) == 1, "a batch is one request, and nothing was run to measure it"
    assert "inference-header-content-length" not in headers
    assert body["outputs"] == [{"name": "y"}], "only what the task needs is asked for"
    assert (body["inputs"][0]["shape"], len(body["inputs"][0]["data"])) == ([3, 3], 9)


def test_texts_and_a_column_of_single_values(plain: V2Server) -> None:
    async def test() -> None:
        total = {"name": "total", "dtype": "FP32"}
        async with started(spec(plain.url, outputs=(total,))) as (handle, sink, _):
            handle.run(1, [rows(1, 2)], 2)
            assert (await sink.end(1))[2][0].arrays["total"].tolist() == [3, 6]
        loud = spec(plain.url, (TEXT,), (SHOUTED,), model="loud")
        async with started(loud) as (handle, sink, _):
            handle.run(1, [Tensors({"text": np.array(["é", b"b"], object)})], 2)
            assert (await sink.end(1))[2][0].arrays["loud"].tolist() == ["É", "B"]

    run(test)


@pytest.mark.parametrize(
    ("fault", "end", "said"),
    [
        ((503, {"retry-after": "3"}, {"error": "full"}), "busy", 3.0),
        ((429, {"retry-after": "0.5"}, {"error": "slow down"}), "busy", 0.5),
        ((400, {}, {"error": "x is too long"}), "invalid", "x is too long"),
        ((404, {}, {"error": "gone"}), "error", "does not know that model"),
        ((401, {}, {"error": "who?"}), "error", "refused the operator's key"),
        ((500, {}, {"error": "out of memory"}), "error", "out of memory"),
        ((504, {}, {"error": "too late"}), "error", "too late"),
        ((200, {}, b"no json"), "error", "no V2 inference response"),
        ((200, {}, {"outputs": []}), "error", "left out the output y"),
        ((200, {}, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1]}]}), "error",
         "needs 3 elements"),
        ((200, {}, {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}]}),
         "error", r"gave 'y' as int64[3]; y: fp32[3] is declared"),
        ((0, {}, None), "error", "was lost before the end"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told_apart(plain: V2Server, fault: Any, end: str, said: Any) -> None:
    async def test() -> None:
        async with started(spec(plain.url)) as (handle, sink, _):
            plain.faults.append(fault)
            handle.run(1, [rows(1)], 1)
            found = await sink.end(1)
            if end == "busy":
                assert found == ("busy", 1, said)
            elif end == "invalid":
                assert isinstance(found[2][0], InvalidRequest)
                assert said in found[2][0].message
            else:
                assert found[0] == "failed"
                assert said in found[2].message
            handle.run(2, [rows(2)], 1)
            assert (await sink.end(2))[0] == "done"

    run(test)


def test_a_refusal_of_a_batch_is_not_asked_again_for_each_member(plain: V2Server) -> None:
    async def test() -> None:
        async with started(spec(plain.url)) as (handle, sink, _):
            plain.faults.append((503, {"retry-after": "1"}, {"error": "full"}))
            handle.run(1, [rows(1), rows(2), rows(3)], 3)
            assert (await sink.end(1))[0] == "busy"
            assert len(plain.seen) == 1

    run(test)


def test_cancelling_closes_the_connection_and_frees_the_slot(plain: V2Server) -> None:
    async def test() -> None:
        plain.gate.clear()
        async with started(spec(plain.url)) as (handle, sink, _):
            handle.run(1, [rows(1)], 1)
            while not plain.running.acquire(blocking=False):
                await asyncio.sleep(0.005)
            handle.cancel(1)
            assert (await sink.end(1))[2].kind == "cancelled"
            plain.gate.set()
            handle.run(2, [rows(2)], 1)
            assert (await sink.end(2))[0] == "done"

    run(test)


class Handing(Recorder):
    """A sink that knows a contract."""

    def handed(self, batch: int) -> Handed:
        return Handed(time.monotonic() + 5.0, Priority.HIGH, "00-" + "1" * 32 + "-" + "2" * 16 + "-01")


@pytest.mark.parametrize("scheduled", [True, False])
def test_the_contract_goes_with_a_batch(scheduled: bool) -> None:
    async def test() -> None:
        handle = RemoteReplica(spec(plain.url), sink := Handing())
        await handle.start()
        handle.run(1, [rows(1)], 1)
        await sink.end(1)
        await handle.stop(1.0)

    with V2Server(("schedule_policy",) if scheduled else ()) as plain:
        run(test)
        headers, body = plain.seen[0]
    assert headers["traceparent"].endswith("-01")
    parameters = body.get("parameters", {})
    if scheduled:
        assert 0 < parameters["timeout"] <= 5_000_000
        assert parameters["priority"] == 2
    else:
        assert parameters == {}, "a server that does not schedule is told nothing that it may refuse"


def test_load_is_learned_from_statistics() -> None:
    async def test() -> None:
        plain.queued = (10, 0)
        handle = RemoteReplica(spec(plain.url, poll_s=0.02), sink := Recorder())
        begun = await handle.start()
        assert isinstance(begun.profile, BatchProfile)
        assert begun.profile.base_s >= 0.01, "40 ms over 4 requests"
        plain.gate.clear()
        handle.run(1, [rows(1)], 1)
        looks = plain.looks
        while plain.looks < looks + 3:
            await asyncio.sleep(0.005)
        plain.queued = (30, 20 * 7_000_000)
        _, replica, report = await sink.wait(lambda e: e[0] == "report")
        assert (replica, report.free_in_s) == ("far-1", pytest.approx(0.007))
        plain.gate.set()
        await sink.end(1)
        await handle.stop(1.0)

    with V2Server(("statistics",)) as plain:
        run(test)


def test_a_model_that_is_not_ready_is_left_alone_then_given_up(plain: V2Server) -> None:
    async def test() -> None:
        handle = RemoteReplica(spec(plain.url, poll_s=0.02), sink := Recorder())
        await handle.start()
        plain.ready = False
        _, _, limits = await sink.wait(lambda e: e[0] == "report")
        assert limits.retry_after_s == pytest.approx(0.04)
        _, replica, reason = await sink.wait(lambda e: e[0] == "lost")
        assert replica == "far-1"
        assert "not ready (503)" in reason
        await handle.stop(0.0)
        with pytest.raises(RuntimeLoadError, match="answered 503"):
            await HandleFactory()(spec(plain.url), sink).start()

    run(test)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "scal"}, "answered 404 .* no model scal"),
        ({"model": ""}, "options.model"),
        ({"model": "mute"}, "options.inputs: the server does not say what 'mute' takes"),
        ({"modle": "x"}, "Did you mean 'model'"),
        ({"protocol": "grpc"}, "options.protocol"),
        ({"concurrency": 0}, "options.concurrency"),
        ({"inputs": {"x": "fp23[3]"}}, "no type and shape of one row.* Did you mean 'FP32'"),
        ({"key": "a\nb"}, "options.key"),
        ({"key": 7}, "options.key: must be a text"),
    ],
)
def test_what_cannot_be_loaded_says_why(plain: V2Server, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RuntimeLoadError, match=said):
        OipRuntime().load(plain.url, {"model": "scale", **options}, "cpu")


def test_a_model_without_rows_is_asked_row_by_row(plain: V2Server) -> None:
    async def test() -> None:
        async with started(spec(plain.url, model="vector")) as (handle, sink, _):
            handle.run(1, [rows(1, 2)], 2)
            assert (await sink.end(1))[2][0].arrays["y"].tolist() == [[2, 2, 2], [4, 4, 4]]

    run(test)
    assert [body["inputs"][0]["shape"] for _, body in plain.seen] == [[3], [3]]


def test_what_is_no_v2_server_and_what_is_not_there() -> None:
    with pytest.raises(RuntimeLoadError, match="cannot be reached"):
        OipRuntime().load("http://127.0.0.1:9", {"model": "m"}, "cpu")
    with V2Server() as plain, pytest.raises(RuntimeLoadError, match=r"answered 404 at /v2/v2|no model|404"):
        OipRuntime().load(plain.url + "/other", {"model": "m"}, "cpu")


def test_declared_tensors_stand_in_for_what_a_server_does_not_say(plain: V2Server) -> None:
    options = {"model": "mute", "inputs": {"words": "bytes", "at": "int64[2, ?]"}}
    model = OipRuntime().load(plain.url, options, "cpu")
    assert [str(found) for found in model.signature.inputs] == ["words: bytes[]", "at: int64[2, ?]"]
    assert model.signature.batched
    model.close()


# --- Semaforo behind Semaforo ------------------------------------------------------------------------------

FRONT = """\
tasks:
  digits:
    inputs: {{image: 'fp32[4]'}}
    outputs: {{label: int64, scores: 'fp32[3]'}}
    prefer: {{maximise: quality}}
  words:  {{inputs: {{x: 'bytes[?]'}}, outputs: {{y: 'bytes[?]'}}}}
  halves: {{inputs: {{x: 'fp16[?]'}}, outputs: {{y: 'fp16[?]'}}}}
  wait:   {{inputs: {{seconds: fp32}}, outputs: {{slept: fp32}}}}
models:
  net:    {{task: digits, quality: 0.9, url: '{0}', runtime: oip, options: {{version: v9, poll_s: 0.05}}}}
  spare:  {{task: digits, quality: 0.5, url: '{1}', runtime: oip, options: {{model: linear, poll_s: 0.05}}}}
  words1: {{task: words, url: '{0}/v2/', runtime: oip, options: {{model: echo-bytes}}}}
  words2: {{task: words, url: '{0}', runtime: oip, options: {{model: echo-bytes, binary: false}}}}
  halves1: {{task: halves, url: '{0}', runtime: oip, options: {{model: echo-fp16}}}}
  far-wait: {{task: wait, url: '{0}', runtime: oip, max_batch: 1, options: {{model: wait, concurrency: 2}}}}
"""


@contextmanager
def chain(folder: Path, first: str, second: str) -> Iterator[tuple[Client, Served]]:
    (folder / "front.yaml").write_text(FRONT.format(first, second))
    plan = blueprint(folder / "front.yaml")
    with serving(plan.catalog, secrets=plan.secrets) as front, Client(front.url) as client:
        yield client, front


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Served, Served]]:
    folder = tmp_path_factory.mktemp("chain")
    with serving(small_fleet(folder)) as back, chain(folder, back.url, back.url) as (client, front):
        yield client, front, back


def test_a_chain_answers_as_its_end_does(chained: tuple[Client, Served, Served]) -> None:
    client, _, back = chained
    picture = [0.5, 1.0, -1.0, 2.0]
    with Client(back.url) as direct:
        for picture in (np.ones(4), np.ones((3, 4))):
            far, near = client.infer("net", image=picture), direct.infer("net", image=picture, version="v9")
            assert np.array_equal(far["scores"], near["scores"])
            assert np.array_equal(far["label"], near["label"])
    assert (near.model, near.version, far.model) == ("net", "v9", "net")
    assert client.infer("words1", x=["a", "é", ""])["y"].tolist() == ["a", "é", ""]
    assert client.infer("words2", x=["a", "é", ""])["y"].tolist() == ["a", "é", ""]
    halves = np.array([0.5, 65504], np.float16)
    assert np.array_equal(client.infer("halves", x=halves)["y"], halves)


def test_a_deadline_passes_through(chained: tuple[Client, Served, Served]) -> None:
    client, front, back = chained
    client.infer("net", image=np.ones(4), deadline="3s", priority="high")
    seen = back.call(lambda: back.engine.ring.recent(1))[0].request
    assert 2.0 < (seen.contract.deadline_s or 0) < 3.0
    assert seen.contract.priority == Priority.HIGH
    books = front.call(lambda: dict(front.engine._dispatcher.state.replicas))
    assert all(book.shared for book in books.values()), "other gateways' work counts"


def test_bytes_that_are_no_text_cannot_go_as_json(chained: tuple[Client, Served, Served]) -> None:
    with pytest.raises(InvalidRequest, match="takes JSON only"):
        chained[0].infer("words2", x=[b"\xff\x00"])


def test_an_error_at_the_end_of_the_chain_comes_back(chained: tuple[Client, Served, Served]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"does not take this request .400.: input 'x' is not UTF-8 text"
    ):
        chained[0].infer("words1", x=[b"\xff\x00"])


def test_a_client_that_goes_away_stops_the_far_end(chained: tuple[Client, Served, Served]) -> None:
    _, front, back = chained
    errors: list[Exception] = []

    def ask() -> None:
        with Client(front.url, timeout=0.4) as impatient:
            try:
                impatient.infer("wait", seconds=1.0)
            except SemaforoError as error:
                errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    back.await_in_flight(1)
    thread.join()
    assert "no answer within 0.4 s" in str(errors[0])
    until = time.monotonic() + 10
    while back.call(lambda: len(back.engine._waiters)):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_server_that_dies_is_replaced_by_another(tmp_path: Path) -> None:
    with serving(small_fleet(tmp_path)) as spare:
        with serving(small_fleet(tmp_path)) as back:
            entered = chain(tmp_path, back.url, spare.url)
            client, _ = entered.__enter__()
            assert client.infer("digits", image=np.ones(4)).model == "net"
        try:
            assert client.infer("digits", image=np.ones(4)).model == "spare"
            until = time.monotonic() + 10
            while any(r.state == "ready" for r in client.replicas() if r.variant.startswith("net/")):
                assert time.monotonic() < until
                client.infer("digits", image=np.ones(4))
            with pytest.raises((NotReady, Refused, Expired)):
                client.infer("net", image=np.ones(4), deadline="100ms")
        finally:
            entered.__exit__(None, None, None)


def test_a_server_killed_in_mid_flight_leaves_no_request_hanging(tmp_path: Path) -> None:
    with V2Server() as plain:
        text = (
            "tasks: {double: {inputs: {x: 'fp32[3]'}, outputs: {y: 'fp32[3]'}}}\n"
            f"models: {{scale: {{task: double, url: '{plain.url}', runtime: oip, options: {{poll_s: 0.05}}}}}}\n"
        )
        (tmp_path / "front.yaml").write_text(text)
        plan = blueprint(tmp_path / "front.yaml")
        with serving(plan.catalog) as front, Client(front.url) as client:
            assert client.infer("double", x=[1, 2, 3])["y"].tolist() == [2, 4, 6]
            plain.running.acquire()
            # Dropped without an answer, as by a server that is killed.
            plain.faults.extend([(0, {}, None)] * 2)
            assert client.infer("double", x=[1, 2, 3])["y"].tolist() == [2, 4, 6]
            plain.faults.extend([(0, {}, None)] * 20)
            with pytest.raises(ModelFailed, match="was lost before the end of the answer"):
                client.infer("double", x=[1, 2, 3])


def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with V2Server() as plain:
        (tmp_path / "front.yaml").write_text(
            "tasks: {double: {inputs: {x: 'fp32[3]'}, outputs: {y: 'fp32[3]'}}}\n"
            f"models: {{scale: {{task: double, url: '{plain.url}', runtime: oip, options: {{poll_s: 0.02}}}}}}\n"
        )
        plan = blueprint(tmp_path / "front.yaml")
        with serving(plan.catalog) as front, Client(front.url) as client:
            for up in (True, False, True):
                plain.ready = up
                until = time.monotonic() + 15
                while client.ready("double") is not up:
                    assert time.monotonic() < until
                    time.sleep(0.01)
            assert client.infer("double", x=[1, 2, 3])["y"].tolist() == [2, 4, 6]


def test_an_overloaded_server_is_left_alone_for_as_long_as_it_says(tmp_path: Path) -> None:
    with V2Server() as plain:
        text = (
            "tasks: {double: {inputs: {x: 'fp32[3]'}, outputs: {y: 'fp32[3]'}}}\n"
            f"models: {{scale: {{task: double, url: '{plain.url}', runtime: oip}}}}\n"
        )
        (tmp_path / "front.yaml").write_text(text)
        plan = blueprint(tmp_path / "front.yaml")
        with serving(plan.catalog) as front, Client(front.url) as client:
            client.infer("double", x=[1, 2, 3])
            plain.faults.append((503, {"retry-after": "20"}, {"error": "full"}))
            with pytest.raises(Expired, match=r"9.. ms asked, (20000|19\d\d\d) ms predicted"):
                client.infer("double", x=[1, 2, 3], deadline="1s")
            assert len(plain.seen) == 2, "it is not asked again before its time"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("task: chat, url: 'http://127.0.0.1:9', runtime: oip", "oip serves tensors"),
        ("task: digits, source: m.onnx, runtime: oip", "oip serves a model behind a `url`"),
        ("task: digits, url: 'http://127.0.0.1:9'", "`runtime: oip` for a V2 server"),
    ],
)
def test_a_fleet_file_that_does_not_fit_says_so(tmp_path: Path, model: str, said: str) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    tasks = "tasks: {digits: {inputs: {x: fp32}, outputs: {y: fp32}}, chat: {kind: chat}}\n"
    others = "d: {task: digits, source: m.onnx}, c: {task: chat, url: 'http://127.0.0.1:9'}"
    (tmp_path / "fleet.yaml").write_text(tasks + f"models: {{{others}, m: {{{model}}}}}\n")
    with pytest.raises(ConfigError, match=said):
        blueprint(tmp_path / "fleet.yaml")
