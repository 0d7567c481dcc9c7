"""``grpc.health.v1``: the server's health under "" and its service's name, each target's under its own.

Open to everybody. A watch looks at the state it watches several times a second, and ends with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from semaforo.errors import NotFound
from semaforo.server.description import Description
from semaforo.server.grpc.door import STOPPING, Context, Door, Handlers
from semaforo.wire.inference_messages import SERVICE
from semaforo.wire.v2_grpc import parsed

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

HEALTH_SERVICE = "grpc.health.v1.Health"

_LOOK_S = 0.1
_Request = health_pb2.HealthCheckRequest
_Response = health_pb2.HealthCheckResponse


class Health:
    """The health of an engine."""

    def __init__(self, engine: Engine, description: Description, door: Door) -> None:
        self._engine = engine
        self._description = description
        self._door = door
        self._ending = asyncio.Event()

    def handlers(self) -> Handlers:
        """Return the service's methods by name."""
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }

    def end(self) -> None:
        """End all watches."""
        self._ending.set()

    async def check(self, body: bytes, context: Context) -> bytes:
        """Answer a ``Check``."""
        try:
            name = parsed(_Request, body).service
            return _encoded(self._status(name))
        except Exception as error:
            await self._door.refuse(context, error, self._door.new_id())
            raise

    async def watch(self, body: bytes, context: Context) -> None:
        """Answer a ``Watch``: the status now, and each other one that follows."""
        try:
            name = parsed(_Request, body).service
            with self._door.stream():
                await self._follow(name, context)
            raise STOPPING
        except Exception as error:
            await self._door.refuse(context, error, self._door.new_id())

    async def _follow(self, name: str, context: Context) -> None:
        before: int | None = None
        while not self._ending.is_set():
            status = self._watched(name)
            if status != before:
                await context.write(_encoded(status))
                before = status
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _LOOK_S)

    def _status(self, name: str) -> int:
        ready = self._description.ready() if name in ("", SERVICE) else self._engine.ready(name)
        serving: int = _Response.SERVING if ready and not self._door.ending else _Response.NOT_SERVING
        return serving

    def _watched(self, name: str) -> int:
        try:
            return self._status(name)
        except NotFound:
            unknown: int = _Response.SERVICE_UNKNOWN
            return unknown


def _encoded(status: Any) -> bytes:
    reply: bytes = _Response(status=status).SerializeToString()
    return reply
