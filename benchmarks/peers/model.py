"""The model as every peer's application holds it: onnxruntime on one thread, and the two bodies that are spoken.

Needs numpy and onnxruntime alone, so that it runs in each peer's own environment. ``MODEL`` names the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

BATCH = 32


class Model:
    """One session; rows in, rows out, both fp32."""

    def __init__(self) -> None:
        threads = ort.SessionOptions()
        threads.intra_op_num_threads = threads.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.environ["MODEL"], threads, providers=["CPUExecutionProvider"])
        given, found = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.input, self.output = given.name, found.name
        self.row: tuple[int, ...] = tuple(given.shape[1:])
        self.answer_row: tuple[int, ...] = tuple(found.shape[1:])
        self._outputs = [self.output]

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers of some rows."""
        answers: NDArray[np.float32] = self._session.run(self._outputs, {self.input: rows})[0]
        return answers

    def run_each(self, requests: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Run the rows of several requests as one batch and return each request's own."""
        answers = self.run(np.concatenate(requests))
        ends = np.cumsum([len(rows) for rows in requests])[:-1]
        return np.split(answers, ends)

    def from_bytes(self, body: bytes) -> NDArray[np.float32]:
        """Read rows from raw little-endian fp32."""
        return np.frombuffer(body, np.float32).reshape(-1, *self.row)

    def to_v2(self, answers: NDArray[np.float32]) -> dict[str, Any]:
        """Return the answer in V2's form."""
        return {"model_name": "net", "outputs": [self.to_tensor(answers)]}

    def to_tensor(self, answers: NDArray[np.float32]) -> dict[str, Any]:
        """Return one tensor in V2's form."""
        shape = list(answers.shape)
        return {"name": self.output, "shape": shape, "datatype": "FP32", "data": answers.ravel().tolist()}


def from_v2(tensor: dict[str, Any]) -> NDArray[np.float32]:
    """Read one tensor in V2's form."""
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])
