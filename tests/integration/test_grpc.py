"""The gRPC front over real sockets: who may do what, limits, deadlines, clients that go away, health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from semaforo.build import blueprint
from semaforo.server.settings import KeySettings, ServerSettings
from semaforo.wire.inference_messages import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
    message,
)
from served_fleet import Served, only, serving, small_fleet
from upstream import Fault, Upstream

SERVICE = "/inference.GRPCInferenceService/"
INFER, READ, OPERATE = "key-of-a-client", "key-of-a-reader", "key-of-an-operator"
KEYS = {
    INFER: KeySettings("acme", ("infer",)),
    READ: KeySettings("ops", ("read",)),
    OPERATE: KeySettings("ops", ("operate", "infer"), may_set_tenant=True),
}
CHAT = """
tasks:
  chat: {{kind: chat}}
models:
  writer: {{task: chat, url: {url}, options: {{model: bigram, timeout_s: 5}}}}
"""


TRANSPORTS = ("native", "grpcio")


@pytest.fixture(scope="module", params=TRANSPORTS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    catalog = only(small_fleet(tmp_path_factory.mktemp("models")), "digits", "wait", "echo-fp32", "fail")
    settings = ServerSettings(
        port=0,
        grpc_port=0,
        grpc_transport=request.param,
        max_in_flight=40,
        max_body_bytes=200_000,
        grace_s=2.0,
    )
    with serving(catalog, settings) as found:
        yield found


@pytest.fixture(scope="module", params=TRANSPORTS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    catalog = only(small_fleet(tmp_path_factory.mktemp("models")), "digits", "wait")
    with serving(
        catalog, ServerSettings(port=0, grpc_port=0, grpc_transport=request.param, keys=KEYS)
    ) as found:
        yield found


def asked_of(target: str, name: str, array: Any, **more: Any) -> Any:
    asked = ModelInferRequest(model_name=target, **more)
    asked.inputs.add(name=name, datatype="FP32", shape=array.shape)
    asked.raw_input_contents.append(array.astype(np.float32).tobytes())
    return asked


def digits(**more: Any) -> Any:
    return asked_of("digits", "image", np.array([[1, 2, 3, 4]]), **more)


def sleep(seconds: float, **more: Any) -> Any:
    return asked_of("wait", "seconds", np.array([seconds]), **more)


def unary(channel: grpc.Channel, method: str) -> Any:
    """Return a method of the service; what it takes are messages, what it gives are messages too."""
    response = ModelInferResponse if method == "ModelInfer" else message(f"{method}Response")
    return channel.unary_unary(
        SERVICE + method, lambda m: m if isinstance(m, bytes) else m.SerializeToString(), response.FromString
    )


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.grpc) as found:
        yield found


def wait_until(true: Callable[[], Any]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.002)


def idle(served: Served) -> bool:
    return bool(served.call(lambda: not served.engine._waiters and not served.engine._streams))


def test_trailing_metadata_say_who_answered(served: Served, channel: grpc.Channel) -> None:
    _, call = unary(channel, "ModelInfer").with_call(digits(), metadata=[("semaforo-min-quality", "0.95")])
    told = dict(call.trailing_metadata())
    assert (told["semaforo-model"], told["semaforo-version"], told["semaforo-variant"]) == (
        "net",
        "v10",
        "int8",
    )
    assert told["semaforo-replica"].startswith("net-int8")
    decision = httpx.get(f"{served.url}/semaforo/v1/decisions/{told['semaforo-request-id']}").json()
    assert decision["decided"][0]["pick"] == "net/v10/int8"


def test_the_trace_context_and_the_class_travel(served: Served, channel: grpc.Channel) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = [("traceparent", trace), ("semaforo-priority", "high"), ("semaforo-tenant", "acme")]
    _, call = unary(channel, "ModelInfer").with_call(digits(), metadata=metadata, timeout=9)
    request_id = dict(call.trailing_metadata())["semaforo-request-id"]
    asked = httpx.get(f"{served.url}/semaforo/v1/decisions/{request_id}").json()["request"]
    assert asked["traceparent"] == trace
    assert (asked["contract"]["priority"], asked["contract"]["tenant"]) == ("high", "acme")
    # The call's own deadline, less what it took to get here; gRPC rounds it up a little.
    assert 5 < asked["contract"]["deadline_s"] <= 9.1


@pytest.mark.parametrize(("ours", "theirs", "least", "most"), [("20000", 5, 1, 5.5), ("300", 20, 0.3, 0.3)])
def test_of_two_deadlines_the_sooner_counts(
    served: Served, channel: grpc.Channel, ours: str, theirs: float, least: float, most: float
) -> None:
    asked = unary(channel, "ModelInfer")
    _, call = asked.with_call(digits(), metadata=[("semaforo-deadline-ms", ours)], timeout=theirs)
    request_id = dict(call.trailing_metadata())["semaforo-request-id"]
    contract = httpx.get(f"{served.url}/semaforo/v1/decisions/{request_id}").json()["request"]["contract"]
    assert least <= contract["deadline_s"] <= most


def test_a_deadline_that_passes_stops_the_work(served: Served, channel: grpc.Channel) -> None:
    first = unary(channel, "ModelInfer").future(sleep(0.6))
    served.await_in_flight(1)
    # Only its client knows of this deadline: the contract has none that could refuse it early.
    second = unary(channel, "ModelInfer").future(sleep(0.01), metadata=[("semaforo-deadline-ms", "100")])
    with pytest.raises(grpc.RpcError) as caught:
        second.result(timeout=5)
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert first.result(timeout=5).model_name == "sleeper"


def test_a_client_that_cancels_stops_the_work(served: Served, channel: grpc.Channel) -> None:
    running = unary(channel, "ModelInfer").future(sleep(0.5))
    served.await_in_flight(1)
    waiting = unary(channel, "ModelInfer").future(sleep(30))
    served.await_in_flight(2)
    waiting.cancel()
    wait_until(lambda: served.call(lambda: len(served.engine._waiters)) == 1)
    assert running.result(timeout=5).model_name == "sleeper"
    assert waiting.cancelled()
    assert idle(served)


def test_a_client_that_hangs_up_stops_the_work(served: Served) -> None:
    channel = grpc.insecure_channel(served.grpc)
    calls = [unary(channel, "ModelInfer").future(sleep(0.8)) for _ in range(3)]
    served.await_in_flight(3)
    gone_at = time.monotonic()
    channel.close()
    wait_until(lambda: idle(served))
    assert time.monotonic() - gone_at < 0.7
    assert all(call.code() == grpc.StatusCode.CANCELLED for call in calls)


def test_what_is_no_message_is_the_callers_error(channel: grpc.Channel) -> None:
    for method in ("ModelInfer", "ModelMetadata", "RepositoryIndex"):
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, method)(b"\xff\xff\xff")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "the message is no inference." in caught.value.details()
    assert unary(channel, "ModelInfer")(digits()).model_name


def test_what_is_too_large_is_refused_as_sent_and_as_inflated(channel: grpc.Channel) -> None:
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, "ModelInfer")(
                asked_of("echo-fp32", "x", np.zeros((1, 100_000))), compression=compression
            )
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unary(channel, "ModelInfer")(asked_of("echo-fp32", "x", np.zeros((1, 10_000)))).model_name


def test_a_model_that_fails_is_internal_and_says_when_to_come_back_only_if_that_helps(
    channel: grpc.Channel,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "ModelInfer")(asked_of("fail", "x", np.zeros(1)))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    told = dict(caught.value.trailing_metadata())
    assert told["semaforo-error"] == "model_failed"
    assert "semaforo-retry-after-ms" not in told


def test_more_in_flight_than_allowed_is_refused_with_when_to_come_back(
    served: Served, channel: grpc.Channel
) -> None:
    asked = unary(channel, "ModelInfer")
    calls = [asked.future(sleep(0.005)) for _ in range(60)]
    codes = [call.code() for call in calls]
    refused = [call for call in calls if call.code() == grpc.StatusCode.UNAVAILABLE]
    assert codes.count(grpc.StatusCode.OK) >= 40
    assert codes.count(grpc.StatusCode.OK) + len(refused) == 60
    assert all("which is the server's limit" in call.details() for call in refused)
    assert all(dict(call.trailing_metadata())["semaforo-retry-after-ms"] == "1000" for call in refused)
    assert unary(channel, "ServerLive")(message("ServerLiveRequest")()).live


def test_a_retry_with_the_same_key_is_answered_once(served: Served, channel: grpc.Channel) -> None:
    key = [("semaforo-idempotency-key", "order-1")]
    asked = unary(channel, "ModelInfer")
    first, call = asked.with_call(sleep(0.02, id="a"), metadata=key)
    again, repeated = asked.with_call(sleep(0.02, id="a"), metadata=key)
    assert first == again
    told, retold = dict(call.trailing_metadata()), dict(repeated.trailing_metadata())
    assert retold["semaforo-request-id"] == told["semaforo-request-id"]
    assert retold["idempotent-replayed"] == "true"
    with pytest.raises(grpc.RpcError, match="was used for another request") as caught:
        asked(sleep(0.03), metadata=key)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError):
        asked(asked_of("fail", "x", np.zeros(1)), metadata=[("semaforo-idempotency-key", "bad")])
    body = {"inputs": [{"name": "seconds", "shape": [1], "datatype": "FP32", "data": [0.02]}]}
    headers = {"semaforo-idempotency-key": "order-1"}
    assert httpx.post(f"{served.url}/v2/models/wait/infer", json=body, headers=headers).status_code == 409


@pytest.mark.parametrize(
    ("method", "asked", "allowed"),
    [
        ("ServerLive", {}, {"", INFER, READ, OPERATE}),
        ("ServerReady", {}, {"", INFER, READ, OPERATE}),
        ("ModelReady", {"name": "digits"}, {"", INFER, READ, OPERATE}),
        ("ServerMetadata", {}, {"", INFER, READ, OPERATE}),
        ("ModelMetadata", {"name": "digits"}, {INFER, READ, OPERATE}),
        ("ModelConfig", {"name": "digits"}, {INFER, READ, OPERATE}),
        ("RepositoryIndex", {}, {INFER, READ, OPERATE}),
        ("ModelStatistics", {}, {READ, OPERATE}),
        ("RepositoryModelLoad", {"model_name": "linear"}, {OPERATE}),
        ("ModelInfer", None, {INFER, OPERATE}),
    ],
)
def test_each_method_asks_for_its_role(
    guarded: Served, method: str, asked: dict[str, str] | None, allowed: set[str]
) -> None:
    with grpc.insecure_channel(guarded.grpc) as channel:
        call = unary(channel, method)
        body = digits() if asked is None else message(f"{method}Request")(**asked)
        for key in ("", INFER, READ, OPERATE):
            metadata = [("authorization", f"Bearer {key}")] if key else []
            if key in allowed:
                call(body, metadata=metadata)
                continue
            with pytest.raises(grpc.RpcError) as caught:
                call(body, metadata=metadata)
            code = grpc.StatusCode.PERMISSION_DENIED if key else grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.code() == code
        with pytest.raises(grpc.RpcError, match="the API key is not known") as caught:
            call(body, metadata=[("x-api-key", "guessed")])
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_asks_for_a_role_and_a_tenant_is_checked(guarded: Served) -> None:
    with grpc.insecure_channel(guarded.grpc) as channel:
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as caught:
            next(iter(stream(iter([digits().SerializeToString()]))))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        asked = unary(channel, "ModelInfer")
        for key, fits in ((INFER, False), (OPERATE, True)):
            metadata = [("x-api-key", key), ("semaforo-tenant", "others")]
            if fits:
                asked(digits(), metadata=metadata)
                continue
            with pytest.raises(grpc.RpcError, match="may not speak for tenant 'others'") as caught:
                asked(digits(), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def streamed(served: Served, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run something with a stream's call."""

    async def run() -> Any:
        async with grpc.aio.insecure_channel(served.grpc) as channel:
            call = channel.stream_stream(
                SERVICE + "ModelStreamInfer",
                lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                ModelStreamInferResponse.FromString,
            )
            return await work(call)

    return asyncio.run(run())


def test_a_stream_says_what_is_wrong_in_band_with_the_id(served: Served) -> None:
    async def work(call: Any) -> None:
        stream = call()
        await stream.write(b"\xff\xff")
        assert "no inference.ModelInferRequest" in (await stream.read()).error_message
        await stream.write(digits(id="7", model_version="x"))
        answer = await stream.read()
        assert (answer.infer_response.id, bool(answer.error_message)) == ("7", True)
        assert answer.infer_response.parameters["semaforo_error"].string_param == "not_found"
        await stream.write(digits(id="8"))
        answer = await stream.read()
        assert (answer.infer_response.id, answer.error_message) == ("8", "")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() == grpc.StatusCode.OK
        keyed = call(metadata=[("semaforo-idempotency-key", "k")])
        await keyed.write(digits())
        assert "keeps one whole answer" in (await keyed.read()).error_message

    streamed(served, work)


def test_a_stream_that_is_cancelled_stops_its_work(served: Served) -> None:
    async def work(call: Any) -> None:
        stream = call()
        for seconds in (0.3, 30, 30):
            await stream.write(sleep(seconds))
        await asyncio.to_thread(served.await_in_flight, 3)
        stream.cancel()
        await asyncio.to_thread(wait_until, lambda: idle(served))

    streamed(served, work)


def test_a_stream_whose_client_reads_late_holds_back_and_loses_nothing(served: Served) -> None:
    """More requests than a stream may have in flight are sent before one answer is read."""
    asked = [asked_of("echo-fp32", "x", np.full((1, 2000), n), id=str(n)) for n in range(600)]

    async def work(call: Any) -> set[str]:
        stream = call()

        async def write() -> None:
            for one in asked:
                await stream.write(one)
            await stream.done_writing()

        writing = asyncio.ensure_future(write())
        await asyncio.wait((writing,), timeout=0.3)
        seen = set()
        async for answer in stream:
            # The server's own limit of what is in flight may refuse some: each is told so.
            assert not answer.error_message or "the server's limit" in answer.error_message
            seen.add(answer.infer_response.id)
        await writing
        return seen

    assert streamed(served, work) == {str(n) for n in range(600)}


def test_hundreds_of_streams_at_once(served: Served) -> None:
    async def work(call: Any) -> None:
        streams = [call() for _ in range(300)]
        for number, stream in enumerate(streams):
            await stream.write(digits(id=str(number)))
            assert (await stream.read()).infer_response.id == str(number)
        for stream in streams:
            await stream.done_writing()
        assert [await stream.code() for stream in streams] == [grpc.StatusCode.OK] * 300

    streamed(served, work)


@pytest.mark.parametrize("how", ["cancel", "hang up"])
def test_a_chat_whose_client_goes_away_stops_upstream(tmp_path: Path, how: str) -> None:
    asked = ModelInferRequest(model_name="chat")
    asked.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"Where?")
    with Upstream(word_s=0.01) as upstream:
        (tmp_path / "fleet.yaml").write_text(CHAT.format(url=upstream.url))
        settings = ServerSettings(port=0, grpc_port=0)
        with serving(blueprint(tmp_path / "fleet.yaml").catalog, settings) as served:
            upstream.faults.append(Fault("hang", after=2))

            async def work(call: Any) -> None:
                stream = call()
                await stream.write(asked)
                assert (await stream.read()).infer_response.outputs[0].contents.bytes_contents[0]
                if how == "cancel":
                    stream.cancel()

            streamed(served, work)
            wait_until(lambda: upstream.cancelled == 1)
            wait_until(lambda: idle(served))
            upstream.faults.append(Fault("cut", after=3))

            async def broken(call: Any) -> None:
                stream = call()
                await stream.write(asked)
                while not (answer := await stream.read()).error_message:
                    assert answer is not grpc.aio.EOF
                assert answer.infer_response.parameters["triton_final_response"].bool_param

            streamed(served, broken)


def test_health_of_the_server_and_of_each_target(served: Served, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inference.GRPCInferenceService", "digits", "net"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
    with pytest.raises(grpc.RpcError, match="Did you mean 'digits'") as caught:
        health.Check(health_pb2.HealthCheckRequest(service="digitz"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_hears_of_every_change(served: Served, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="failer"), timeout=20)
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    states = health_pb2.HealthCheckResponse
    assert next(watch).status == states.SERVING
    assert next(unknown).status == states.SERVICE_UNKNOWN
    unary(channel, "RepositoryModelUnload")(message("RepositoryModelUnloadRequest")(model_name="failer"))
    assert next(watch).status == states.NOT_SERVING
    asked = health.Check(health_pb2.HealthCheckRequest(service="fail"))
    assert asked.status == states.NOT_SERVING
    unary(channel, "RepositoryModelLoad")(message("RepositoryModelLoadRequest")(model_name="failer"))
    assert next(watch).status == states.SERVING
    watch.cancel()
    unknown.cancel()
