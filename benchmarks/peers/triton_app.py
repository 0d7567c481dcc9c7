"""Triton by nvidia-pytriton: its server process, and the model in this one, with its dynamic batcher."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.model import BATCH, Model

LOOPBACK = "127.0.0.1"
model = Model()


@batch
def infer(**inputs: Any) -> dict[str, Any]:
    """Answer a batch."""
    return {model.output: model.run(inputs[model.input])}


if __name__ == "__main__":
    config = TritonConfig(
        http_address=LOOPBACK,
        http_port=int(os.environ["PORT"]),
        grpc_address=LOOPBACK,
        grpc_port=int(os.environ["GRPC_PORT"]),
        metrics_address=LOOPBACK,
        metrics_port=int(os.environ["METRICS_PORT"]),
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="net",
            infer_func=infer,
            inputs=[Tensor(name=model.input, dtype=np.float32, shape=model.row)],
            outputs=[Tensor(name=model.output, dtype=np.float32, shape=model.answer_row)],
            config=ModelConfig(max_batch_size=BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
