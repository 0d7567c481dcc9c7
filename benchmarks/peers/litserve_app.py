"""LitServe: one inference process and one API process, with its batching and its fast queue.

``FORM`` is ``json`` or ``base64`` (fp32 rows in a JSON string; it takes no other body for bytes). It reads the
annotations of `decode_request`, so those have none.
"""

from __future__ import annotations

import base64
import os
from typing import Any

import litserve as ls
import numpy as np

from benchmarks.peers.model import BATCH, Model, from_v2


class Net(ls.LitAPI):
    """The model behind V2's JSON."""

    def setup(self, device: str) -> None:
        self._model = Model()

    def decode_request(self, request) -> Any:
        return from_v2(request["inputs"][0])

    def batch(self, inputs: list[Any]) -> Any:
        return np.concatenate(inputs)

    def predict(self, rows: Any) -> Any:
        return self._model.run(rows)

    def unbatch(self, output: Any) -> Any:
        return [output[k : k + 1] for k in range(len(output))]

    def encode_response(self, output: Any) -> Any:
        return self._model.to_v2(output)


class Packed(Net):
    """Rows as base64."""

    def decode_request(self, request) -> Any:
        return self._model.from_bytes(base64.b64decode(request["rows"]))


if __name__ == "__main__":
    made = Packed if os.environ["FORM"] == "base64" else Net
    api = made(max_batch_size=BATCH, batch_timeout=0.001, api_path="/infer")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
