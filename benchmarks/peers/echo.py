"""The yardstick for gRPC: a ``grpc.aio`` server that gives back the bytes it gets, one by one or in a stream."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop


class Echo(grpc.GenericRpcHandler):
    """Answers every method."""

    def service(self, details: Any) -> Any:
        if details.method.endswith("StreamInfer"):
            return grpc.stream_stream_rpc_method_handler(_stream)
        return grpc.unary_unary_rpc_method_handler(_one)


async def _one(request: bytes, context: Any) -> bytes:
    return request


async def _stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def main() -> None:
    """Serve until ended."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"127.0.0.1:{os.environ['GRPC_PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
