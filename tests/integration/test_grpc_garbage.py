"""What a refused gRPC call leaves behind: nothing that cannot be collected."""

from __future__ import annotations

import gc
from pathlib import Path

import grpc
import pytest

from semaforo.server.settings import ServerSettings
from semaforo.wire.inference_messages import ModelInferRequest
from served_fleet import only, serving, small_fleet


def contexts() -> int:
    """Return how many calls' contexts are alive."""
    gc.collect()
    return sum(1 for found in gc.get_objects() if type(found).__name__ == "_ServicerContext")


def test_refused_calls_are_collected(tmp_path: Path) -> None:
    body = ModelInferRequest(model_name="nothing").SerializeToString()
    settings = ServerSettings(port=0, grpc_port=0)
    with serving(only(small_fleet(tmp_path), "digits"), settings) as served:
        with grpc.insecure_channel(served.grpc) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(50):
                with pytest.raises(grpc.RpcError, match="nothing"):
                    ask(body, timeout=10)
        # The last one or two may still be on their way out.
        assert served.call(contexts) < 10
