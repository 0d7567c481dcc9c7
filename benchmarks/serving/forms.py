"""The bodies that are sent, and how an answer is read from each; every peer is asked in forms that it speaks.

Rules this module keeps:

1. One form sends the very same bytes to every server that speaks it.
2. An answer is compared with what onnxruntime says of the same rows, number by number.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import models

Array = NDArray[np.float32]
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
GRPC_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
_LENGTH = "inference-header-content-length"


class Form(msgspec.Struct, frozen=True):
    """One way to ask: how a body is written and how its answer is read.

    Attributes:
        name: As `FORM` says it to a peer.
        write: Rows → body and headers.
        read: Answer's body and headers (names in lower case) → rows.
    """

    name: str
    write: Callable[[Array], tuple[bytes, dict[str, str]]]
    read: Callable[[bytes, dict[str, str]], Array]


def _write_json(rows: Array) -> tuple[bytes, dict[str, str]]:
    data = [round(float(v), 4) for v in rows.ravel()]
    tensor = {"name": "x", "shape": rows.shape, "datatype": "FP32", "data": data}
    return msgspec.json.encode({"inputs": [tensor]}), {"content-type": "application/json"}


def _read_json(body: bytes, headers: dict[str, str]) -> Array:
    found = msgspec.json.decode(body)
    tensor = found[0] if isinstance(found, list) else found["outputs"][0]
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])


def _write_binary(rows: Array) -> tuple[bytes, dict[str, str]]:
    tensor = {
        "name": "x", "shape": rows.shape, "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes},
    }  # fmt: skip
    head = msgspec.json.encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"content-type": "application/octet-stream", _LENGTH: str(len(head))}
    return head + rows.tobytes(), headers


def _read_binary(body: bytes, headers: dict[str, str]) -> Array:
    length = int(headers[_LENGTH])
    tensor = msgspec.json.decode(body[:length])["outputs"][0]
    return np.frombuffer(body[length:], np.float32).reshape(tensor["shape"])


def _write_raw(rows: Array) -> tuple[bytes, dict[str, str]]:
    return rows.tobytes(), {"content-type": "application/octet-stream"}


def _read_raw(body: bytes, headers: dict[str, str]) -> Array:
    return np.frombuffer(body, np.float32).reshape(-1, models.CLASSES)


def _write_base64(rows: Array) -> tuple[bytes, dict[str, str]]:
    body = msgspec.json.encode({"rows": base64.b64encode(rows.tobytes()).decode()})
    return body, {"content-type": "application/json"}


def _write_grpc(rows: Array) -> tuple[bytes, dict[str, str]]:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="net", raw_input_contents=[rows.tobytes()])
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = "x", "FP32"
    tensor.shape.extend(rows.shape)
    return request.SerializeToString(), {}


def _read_grpc(body: bytes, headers: dict[str, str]) -> Array:
    from tritonclient.grpc import service_pb2

    response = service_pb2.ModelInferResponse.FromString(body)
    raw = response.raw_output_contents
    data: Any = np.frombuffer(raw[0], np.float32) if raw else response.outputs[0].contents.fp32_contents
    return np.asarray(data, np.float32).reshape(response.outputs[0].shape)


JSON = Form("json", _write_json, _read_json)
BINARY = Form("binary", _write_binary, _read_binary)
RAW = Form("raw", _write_raw, _read_raw)
BASE64 = Form("base64", _write_base64, _read_json)
GRPC = Form("grpc", _write_grpc, _read_grpc)


class Case(msgspec.Struct, frozen=True):
    """One model with the rows that are asked about and what onnxruntime answers."""

    model: Path
    rows: Array
    answers: Array

    def check(self, found: Array) -> None:
        """Compare an answer.

        Raises:
            ValueError: It is not what onnxruntime says.
        """
        if found.shape != self.answers.shape or not np.allclose(found, self.answers, rtol=1e-3, atol=1e-5):
            raise ValueError(f"answered {found.ravel()[:4]}…, onnxruntime says {self.answers.ravel()[:4]}…")


def case(model: Path, shape: tuple[int, ...]) -> Case:
    """Return one row of a model with its answer."""
    drawn = np.random.default_rng(0).random((1, *shape), np.float32)
    rows = np.round(drawn, 4).astype(np.float32)
    answers = models.session(model).run(None, {"x": rows})[0]
    return Case(model, rows, answers)
