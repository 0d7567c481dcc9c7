"""`tritonclient.grpc`, sync, async and streaming, against a served fleet of real models."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from semaforo.build import blueprint
from semaforo.server.settings import ServerSettings
from served_fleet import ONNX_DTYPES, Served, only, serving, small_fleet
from tiny_fleet import write_fleet

IMAGE = np.array([[1, 2, 3, 4]], np.float32)
SAMPLES: dict[str, Any] = {
    "BOOL": [True, False, True],
    "BYTES": [b"", "grüße".encode(), b"x" * 500],
    "FP16": [-1.5, 0.25, 3],
    "FP32": [-1.5, 1e30, 3],
    "FP64": [-1.5, 1e300, 3],
    "UINT64": [0, 1, 2**64 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("models")
    with serving(small_fleet(folder), ServerSettings(port=0, grpc_port=0, grace_s=2.0)) as found:
        yield found


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    plan = blueprint(write_fleet(tmp_path_factory.mktemp("tiny")))
    with serving(plan.catalog, ServerSettings(port=0, grpc_port=0, grace_s=2.0)) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(served.grpc) as found:
        yield found


def image(array: Any = IMAGE, *, name: str = "image", module: Any = triton) -> Any:
    tensor = module.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def prompt(text: str) -> Any:
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], object))
    return tensor


def number(value: int) -> Any:
    tensor = triton.InferInput("x", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[value]]))
    return tensor


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("net", "v9")
    assert client.get_server_metadata().name == "semaforo"
    assert list(client.get_model_metadata("net", "v10").versions) == ["v10"]
    told = client.get_model_metadata("digits", as_json=True)
    assert told["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "4"]}]
    config = client.get_model_config("digits", as_json=True)["config"]
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert {group["kind"] for group in config["instance_group"]} == {"KIND_CPU"}
    with pytest.raises(InferenceServerException, match="Did you mean 'digits'") as caught:
        client.get_model_metadata("digitz")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("named", [True, False], ids=["outputs named", "all outputs"])
@pytest.mark.parametrize("dtype", [*ONNX_DTYPES, "BF16"])
def test_every_dtype_goes_there_and_back(client: Any, dtype: str, named: bool) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "BF16" else triton_to_np_dtype(dtype)
    array = np.array([SAMPLES.get(dtype, [0, 1, 100])], kind)
    tensor = triton.InferInput("x", [1, 3], dtype)
    tensor.set_data_from_numpy(array)
    wanted = [triton.InferRequestedOutput("y")] if named else None
    answer = client.infer(f"echo-{dtype.lower()}", [tensor], outputs=wanted, request_id="mine")
    assert answer.get_response().id == "mine"
    found = answer.as_numpy("y")
    assert found.shape == (1, 3)
    assert found.tolist() == array.tolist()


def test_classes_are_value_index_and_label(client: Any) -> None:
    wanted = [triton.InferRequestedOutput("scores", class_count=2)]
    found = client.infer("digits", [image()], outputs=wanted).as_numpy("scores")
    scores = client.infer("digits", [image()]).as_numpy("scores")[0]
    assert found.shape == (1, 2)
    for text, index in zip(found[0], np.argsort(-scores), strict=False):
        value, place, label = text.decode().split(":")
        assert float(value) == pytest.approx(scores[index])
        assert int(place) == index
        assert label == ("zero", "one", "two")[index]


def test_compressed_requests_are_taken(served: Served, client: Any) -> None:
    tensor = image(np.zeros((1, 50_000), np.float32), name="x")
    answer = client.infer("echo-fp32", [tensor], compression_algorithm="gzip")
    assert answer.as_numpy("y").shape == (1, 50_000)
    with pytest.raises(InferenceServerException, match="which isn't supported"):
        client.infer("echo-fp32", [tensor], compression_algorithm="deflate")


def test_the_other_transport_takes_deflate(tmp_path: Path) -> None:
    settings = ServerSettings(port=0, grpc_port=0, grpc_transport="grpcio")
    with (
        serving(only(small_fleet(tmp_path), "echo-fp32"), settings) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        tensor = image(np.zeros((1, 50_000), np.float32), name="x")
        answer = client.infer("echo-fp32", [tensor], compression_algorithm="deflate")
        assert answer.as_numpy("y").shape == (1, 50_000)


def test_the_contract_travels_in_what_the_client_offers(client: Any) -> None:
    answer = client.infer(
        "digits",
        [image()],
        priority=1,
        timeout=5_000_000,
        headers={"semaforo-min-quality": "0.95"},
        parameters={"semaforo_tenant": "acme"},
    )
    assert answer.get_response().model_name == "net"
    with pytest.raises(InferenceServerException, match="priority is '9'") as caught:
        client.infer("digits", [image()], priority=9)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("target", "tensor", "more", "code", "text"),
    [
        ("digitz", image(), {}, "NOT_FOUND", "Did you mean 'digits'"),
        ("net", image(), {"model_version": "7"}, "NOT_FOUND", "no version '7'"),
        ("digits", image(name="picture"), {}, "INVALID_ARGUMENT", "takes no input 'picture'"),
        ("digits", image(np.zeros((1, 5), np.float32)), {}, "INVALID_ARGUMENT", r"has shape \[1, 5\]"),
        ("digits", image(), {"headers": {"semaforo-min-quality": "1"}}, "FAILED_PRECONDITION", "no variant"),
        ("digits", image(), {"headers": {"semaforo-x": "1"}}, "INVALID_ARGUMENT", "header semaforo-x is not"),
        ("digits", image(), {"headers": {"semaforo-mode": "queue"}}, "INVALID_ARGUMENT", "over HTTP only"),
        (
            "digits",
            image(),
            {"outputs": [triton.InferRequestedOutput("scorez")]},
            "INVALID_ARGUMENT",
            "Did you mean 'scores'",
        ),
    ],
)
def test_errors_have_the_texts_of_http_and_a_code(
    client: Any, target: str, tensor: Any, more: dict[str, Any], code: str, text: str
) -> None:
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.infer(target, [tensor], **more)
    assert caught.value.status() == f"StatusCode.{code}"


def test_a_model_that_fails_is_internal(client: Any) -> None:
    tensor = triton.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with pytest.raises(InferenceServerException, match="this model always fails") as caught:
        client.infer("fail", [tensor])
    assert caught.value.status() == "StatusCode.INTERNAL"


@pytest.mark.parametrize(
    "call", ["get_system_shared_memory_status", "get_trace_settings", "get_log_settings"]
)
def test_what_is_not_served_says_so(client: Any, call: str) -> None:
    with pytest.raises(InferenceServerException, match="not served") as caught:
        getattr(client, call)()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_statistics_and_the_repository(client: Any) -> None:
    client.infer("linear", [image(np.zeros((5, 4), np.float32))])
    [stats] = client.get_inference_statistics("linear").model_stats
    assert stats.name == "linear"
    assert stats.inference_count >= 5
    assert stats.inference_stats.success.count >= 1
    assert any(batch.batch_size == 5 for batch in stats.batch_stats)
    assert len(client.get_inference_statistics().model_stats) > 10

    def states() -> dict[str, str]:
        index = client.get_model_repository_index().models
        return {f"{m.name}/{m.version}": m.state for m in index}

    assert states()["net/v9"] == "READY"
    client.unload_model("same-echo-int16")
    assert states()["same-echo-int16/1"] == "UNAVAILABLE"
    assert not client.is_model_ready("same-echo-int16")
    client.load_model("same-echo-int16")
    assert states()["same-echo-int16/1"] == "READY"
    with pytest.raises(InferenceServerException, match="'digits' is a task type"):
        client.unload_model("digits")
    with pytest.raises(InferenceServerException, match="config: a load takes no parameters"):
        client.load_model("linear", config="{}")


def test_callbacks_get_their_own_answers(client: Any) -> None:
    found: queue.Queue[Any] = queue.Queue()
    for value in range(64):
        client.async_infer("echo-int64", [number(value)], lambda result, error: found.put((result, error)))
    answers = [found.get(timeout=20) for _ in range(64)]
    assert all(error is None for _, error in answers)
    assert sorted(int(result.as_numpy("y")[0, 0]) for result, _ in answers) == list(range(64))


def test_the_asynchronous_client(served: Served) -> None:
    async def run() -> None:
        async with triton_aio.InferenceServerClient(served.grpc) as client:
            assert await client.is_server_ready()
            tensors = []
            for value in range(32):
                tensor = triton_aio.InferInput("x", [1, 1], "INT64")
                tensor.set_data_from_numpy(np.array([[value]]))
                tensors.append(tensor)
            answers = await asyncio.gather(*[client.infer("echo-int64", [tensor]) for tensor in tensors])
            assert [int(a.as_numpy("y")[0, 0]) for a in answers] == list(range(32))

            async def requests() -> Any:
                for value, tensor in enumerate(tensors):
                    yield {"model_name": "echo-int64", "inputs": [tensor], "request_id": str(value)}

            seen = {}
            async for result, error in client.stream_infer(requests()):
                assert error is None
                seen[result.get_response().id] = int(result.as_numpy("y")[0, 0])
            assert seen == {str(value): value for value in range(32)}

    asyncio.run(run())


class Streaming:
    """A client's stream and what came over it."""

    def __init__(self, address: str, **more: Any) -> None:
        self.client = triton.InferenceServerClient(address)
        self.found: queue.Queue[Any] = queue.Queue()
        self.client.start_stream(lambda result, error: self.found.put((result, error)), **more)

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream()
        self.client.close()

    def take(self) -> Any:
        """Return the next (result, error)."""
        return self.found.get(timeout=20)


def final(result: Any) -> bool:
    flag: bool = result.get_response().parameters["triton_final_response"].bool_param
    return flag


def test_a_stream_goes_on_after_errors_and_answers_as_it_can(served: Served) -> None:
    slow = triton.InferInput("seconds", [1], "FP32")
    slow.set_data_from_numpy(np.array([0.3], np.float32))
    with Streaming(served.grpc) as stream:
        stream.client.async_stream_infer("wait", [slow], request_id="slow")
        stream.client.async_stream_infer("digitz", [image()], request_id="wrong")
        stream.client.async_stream_infer("echo-int64", [number(7)], request_id="quick")
        _, error = stream.take()
        assert "Did you mean 'digits'" in str(error)
        result, _ = stream.take()
        assert (result.get_response().id, final(result)) == ("quick", True)
        result, _ = stream.take()
        assert (result.get_response().id, final(result)) == ("slow", True)


def test_a_stream_holds_many_in_flight_and_loses_none(served: Served) -> None:
    with Streaming(served.grpc) as stream:
        for value in range(1000):
            stream.client.async_stream_infer("echo-int64", [number(value)], request_id=str(value))
        seen = {}
        for _ in range(1000):
            result, error = stream.take()
            assert error is None
            seen[result.get_response().id] = int(result.as_numpy("y")[0, 0])
    assert seen == {str(value): value for value in range(1000)}


def test_a_chat_streams_its_words_and_says_which_is_the_last(chatting: Served) -> None:
    with Streaming(chatting.grpc) as stream:
        stream.client.async_stream_infer("chat", [prompt("one two three")], request_id="c")
        results = [stream.take() for _ in range(4)]
        assert [error for _, error in results] == [None] * 4
        assert [final(result) for result, _ in results] == [False, False, False, True]
        texts = [result.as_numpy("text_output")[0].decode() for result, _ in results]
        assert texts == ["one ", "two ", "three ", ""]
        assert {result.get_response().id for result, _ in results} == {"c"}
        assert results[0][0].get_response().model_name == "parrot"
        stream.client.async_stream_infer("chat", [prompt("one")], enable_empty_final_response=True)
        first, last = stream.take()[0], stream.take()[0]
        assert (final(first), final(last)) == (False, True)
        assert len(last.get_response().outputs) == 0
    with triton.InferenceServerClient(chatting.grpc) as client:
        assert client.infer("chat", [prompt("a b c")]).as_numpy("text_output").tolist() == [b"a b c "]
        assert client.get_model_config("chat").config.model_transaction_policy.decoupled
        two = triton.InferInput("text_input", [2], "BYTES")
        two.set_data_from_numpy(np.array([b"a", b"b"], object))
        with pytest.raises(InferenceServerException, match="has 2 rows; a chat takes one"):
            client.infer("chat", [two])


def test_a_client_timeout_ends_the_work(served: Served) -> None:
    slow = triton.InferInput("seconds", [1], "FP32")
    slow.set_data_from_numpy(np.array([0.5], np.float32))
    with triton.InferenceServerClient(served.grpc) as client:
        holder = threading.Thread(target=lambda: client.infer("wait", [slow]))
        holder.start()
        served.await_in_flight(1)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("wait", [slow], client_timeout=0.2)
        # Refused at once, where it is plain that it cannot be done in time.
        assert caught.value.status() in ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE")
        holder.join()
    assert served.call(lambda: len(served.engine._waiters)) == 0
