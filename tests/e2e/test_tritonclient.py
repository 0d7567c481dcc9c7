"""The most used V2 client, `tritonclient.http`, against a served fleet of real models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from served_fleet import ONNX_DTYPES, Served, serving, small_fleet

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
    with serving(small_fleet(folder)) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as found:
        yield found


def image(array: Any = IMAGE, *, binary: bool = True, name: str = "image") -> Any:
    tensor = triton.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("net", "v9")
    assert client.get_server_metadata()["name"] == "semaforo"
    assert client.get_model_metadata("net", "v10")["versions"] == ["v10"]
    assert client.get_model_config("digits")["input"][0]["data_type"] == "TYPE_FP32"


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("back", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("dtype", [*ONNX_DTYPES, "BF16"])
def test_every_dtype_goes_there_and_back(client: Any, dtype: str, sent: bool, back: bool) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "BF16" else triton_to_np_dtype(dtype)
    array = np.array([SAMPLES.get(dtype, [0, 1, 100])], kind)
    name = f"echo-{dtype.lower()}"
    tensor = triton.InferInput("x", [1, 3], dtype)
    if dtype == "BF16" and not sent:
        with pytest.raises(InferenceServerException, match="BF16"):
            tensor.set_data_from_numpy(array, binary_data=False)
        return
    tensor.set_data_from_numpy(array, binary_data=sent)
    wanted = [triton.InferRequestedOutput("y", binary_data=back)]
    if dtype in ("FP16", "BF16") and not (sent and back):
        with pytest.raises(InferenceServerException, match="travels only as binary"):
            client.infer(name, [tensor], outputs=wanted)
        return
    answer = client.infer(name, [tensor], outputs=wanted).as_numpy("y")
    assert answer.shape == (1, 3)
    if dtype == "BYTES":
        assert [x if isinstance(x, bytes) else x.encode() for x in answer[0]] == array[0].tolist()
    else:
        assert answer.dtype == kind
        assert answer.tolist() == array.tolist()


def test_outputs_that_are_not_named_come_as_binary(client: Any) -> None:
    answer = client.infer("digits", [image()], request_id="mine")
    assert answer.get_response()["id"] == "mine"
    assert "binary_data_size" in answer.get_output("scores")["parameters"]
    assert answer.as_numpy("scores").sum() == pytest.approx(1, abs=1e-5)
    assert answer.as_numpy("label")[0] == answer.as_numpy("scores").argmax()


@pytest.mark.parametrize("binary", [True, False])
def test_classes_are_value_index_and_label(client: Any, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)]
    found = client.infer("digits", [image()], outputs=wanted).as_numpy("scores")
    scores = client.infer("digits", [image()]).as_numpy("scores")[0]
    assert found.shape == (1, 2)
    texts = [x.decode() if isinstance(x, bytes) else x for x in found[0]]
    for text, index in zip(texts, np.argsort(-scores), strict=False):
        value, place, label = text.split(":")
        assert float(value) == pytest.approx(scores[index])
        assert int(place) == index
        assert label == ("zero", "one", "two")[index]


@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
@pytest.mark.parametrize("back", ["gzip", "deflate", None])
def test_compression_both_ways(client: Any, sent: str | None, back: str | None) -> None:
    array = np.zeros((1, 5000), np.float32)
    tensor = triton.InferInput("x", [1, 5000], "FP32")
    tensor.set_data_from_numpy(array)
    answer = client.infer(
        "echo-fp32",
        [tensor],
        request_compression_algorithm=sent,
        response_compression_algorithm=back,
    )
    assert answer.as_numpy("y").tolist() == array.tolist()


def test_the_contract_travels_in_what_the_client_offers(client: Any) -> None:
    answer = client.infer(
        "digits",
        [image()],
        priority=1,
        timeout=5_000_000,
        headers={"semaforo-min-quality": "0.95"},
        parameters={"semaforo_tenant": "acme"},
    )
    assert answer.get_response()["model_name"] == "net"
    with pytest.raises(InferenceServerException, match="priority is '9'") as caught:
        client.infer("digits", [image()], priority=9)
    assert caught.value.status() == "400"


def test_concurrent_calls_get_their_own_answers(served: Served) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}", concurrency=8) as client:
        waiting = []
        for number in range(64):
            tensor = triton.InferInput("x", [1, 1], "INT64")
            tensor.set_data_from_numpy(np.array([[number]]))
            waiting.append(client.async_infer("echo-int64", [tensor]))
        found = [call.get_result().as_numpy("y")[0, 0] for call in waiting]
    assert found == list(range(64))


@pytest.mark.parametrize(
    ("target", "tensor", "more", "status", "text"),
    [
        ("digitz", image(), {}, "404", "Did you mean 'digits'"),
        ("net", image(), {"model_version": "7"}, "404", "no version '7'"),
        ("digits", image(name="picture"), {}, "400", "takes no input 'picture'"),
        ("digits", image(np.zeros((1, 5), np.float32)), {}, "400", r"has shape \[1, 5\]"),
        ("digits", image(np.zeros((0, 4), np.float32)), {}, "400", "has no rows"),
        ("digits", image(), {"headers": {"semaforo-min-quality": "1"}}, "422", "no variant"),
        ("digits", image(), {"headers": {"semaforo-priority": "x"}}, "400", "semaforo-priority"),
        (
            "digits",
            image(),
            {"outputs": [triton.InferRequestedOutput("scorez")]},
            "400",
            "Did you mean 'scores'",
        ),
        ("wait", image(name="seconds"), {}, "400", "has shape"),
    ],
)
def test_errors_keep_their_text_and_status(
    client: Any, target: str, tensor: Any, more: dict[str, Any], status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.infer(target, [tensor], **more)
    assert caught.value.status() == status


def test_a_model_that_fails_is_a_500(client: Any) -> None:
    tensor = triton.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with pytest.raises(InferenceServerException, match="this model always fails") as caught:
        client.infer("fail", [tensor])
    assert caught.value.status() == "500"


def test_a_deadline_that_is_past_is_refused_or_expires(served: Served) -> None:
    def seconds(value: float) -> Any:
        tensor = triton.InferInput("seconds", [1], "FP32")
        tensor.set_data_from_numpy(np.array([value], np.float32))
        return [tensor]

    def hold() -> None:
        with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as other:
            other.infer("wait", seconds(0.4))

    holder = threading.Thread(target=hold)
    holder.start()
    served.await_in_flight(1)
    with (
        triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client,
        pytest.raises(InferenceServerException) as caught,
    ):
        client.infer("wait", seconds(0.01), timeout=50_000)
    assert caught.value.status() in ("503", "504")
    holder.join()


def test_statistics_and_the_repository(client: Any) -> None:
    client.infer("linear", [image(np.zeros((5, 4), np.float32))])
    stats = client.get_inference_statistics("linear")["model_stats"][0]
    assert stats["name"] == "linear"
    assert stats["inference_count"] >= 5
    assert any(batch["batch_size"] == 5 for batch in stats["batch_stats"])

    def states() -> dict[str, str]:
        return {f"{m['name']}/{m['version']}": m["state"] for m in client.get_model_repository_index()}

    assert states()["net/v9"] == "READY"
    client.unload_model("same-echo-int16")
    assert states()["same-echo-int16/1"] == "UNAVAILABLE"
    assert not client.is_model_ready("same-echo-int16")
    client.load_model("same-echo-int16")
    assert states()["same-echo-int16/1"] == "READY"
    assert client.is_model_ready("same-echo-int16")
