"""The bare app: the least that serves an ONNX model over V2's JSON, with no scheduling at all.

Raw ASGI on uvicorn (uvloop, httptools), typed msgspec, onnxruntime called in the event loop.
Usage: ``MODEL=model.onnx uvicorn benchmarks.peers.bare:app``
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class _Body(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None


_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode
_threads = ort.SessionOptions()
_threads.intra_op_num_threads = _threads.inter_op_num_threads = 1
_model = ort.InferenceSession(os.environ["MODEL"], _threads, providers=["CPUExecutionProvider"])
_outputs = [_model.get_outputs()[0].name]

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """Answer one request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["method"] == "GET":
        await _reply(send, b"{}")
        return
    given = _decode(body).inputs[0]
    array = np.array(given.data, np.float32).reshape(given.shape)
    found = _model.run(_outputs, {given.name: array})[0]
    output = {"name": _outputs[0], "shape": found.shape, "datatype": "FP32", "data": found.ravel().tolist()}
    await _reply(send, _encode({"model_name": "m", "model_version": "1", "outputs": [output]}))


async def _reply(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
