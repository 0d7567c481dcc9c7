"""mosec: one worker process behind its Rust front, with dynamic batching.

``FORM`` is ``json``, read and written by mosec itself or, where ``CODEC`` says so, by msgspec; or ``raw``, which is
fp32 rows.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
from mosec import Server, Worker

from benchmarks.peers.model import BATCH, Model, from_v2


class Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Body(msgspec.Struct):
    inputs: list[Tensor]


class Json(Worker):
    """V2 over JSON, by mosec's own codec."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()

    def forward(self, data: list[Any]) -> list[Any]:
        answers = self._model.run_each([from_v2(body["inputs"][0]) for body in data])
        return [self._model.to_v2(answer) for answer in answers]


class TypedJson(Worker):
    """V2 over JSON, by msgspec."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()
        self._decode = msgspec.json.Decoder(Body).decode
        self._encode = msgspec.json.Encoder().encode

    def deserialize(self, data: bytes) -> Any:
        tensor = self._decode(data).inputs[0]
        return np.array(tensor.data, np.float32).reshape(tensor.shape)

    def forward(self, data: list[Any]) -> list[Any]:
        return self._model.run_each(data)

    def serialize(self, data: Any) -> bytes:
        return self._encode(self._model.to_v2(data))


class Raw(Worker):
    """Raw fp32 rows."""

    req_mime_type = resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()

    def deserialize(self, data: bytes) -> Any:
        return self._model.from_bytes(data)

    def forward(self, data: list[Any]) -> list[Any]:
        return self._model.run_each(data)

    def serialize(self, data: Any) -> bytes:
        return bytes(data.tobytes())


if __name__ == "__main__":
    server = Server()
    typed = os.environ.get("CODEC") == "msgspec"
    worker = Raw if os.environ["FORM"] == "raw" else TypedJson if typed else Json
    server.append_worker(worker, num=1, max_batch_size=BATCH, max_wait_time=1, route="/infer")
    server.run()
