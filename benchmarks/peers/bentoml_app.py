"""BentoML: one worker, V2's list of tensors as a batchable input, so that its adaptive batching applies."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from pydantic import BaseModel

from benchmarks.peers.model import BATCH, Model


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


@bentoml.service(
    workers=1,
    traffic={"timeout": 30, "max_concurrency": 1024},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Net:
    """The model behind both bodies."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(route="/infer", batchable=True, max_batch_size=BATCH, max_latency_ms=1000)
    def infer(self, inputs: list[Tensor]) -> list[Tensor]:
        """V2 over JSON: tensors in, tensors out."""
        rows = [np.array(t.data, np.float32).reshape(t.shape) for t in inputs]
        return [Tensor(**self._model.to_tensor(answers)) for answers in self._model.run_each(rows)]

    @bentoml.api(route="/raw")
    def raw(self, body: bytes, /) -> bytes:
        """Raw fp32 rows."""
        return self._model.run(self._model.from_bytes(body)).tobytes()


service: Any = Net
