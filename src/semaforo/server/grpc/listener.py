"""Listening for gRPC: a server in the running loop, with an orderly end.

What happens at the end, in order:

1. No new call is taken; watches of health, and streams on which nothing is in flight, end.
2. Requests in flight may finish within the grace period; then they are answered UNAVAILABLE.
3. What was answered last has a second to reach its client where the transport would cut it off.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc

from semaforo.errors import ConfigError
from semaforo.server.description import Description
from semaforo.server.grpc.door import Door
from semaforo.server.grpc.health import HEALTH_SERVICE, Health
from semaforo.server.grpc.inference import Inference
from semaforo.server.grpc.service import Service
from semaforo.server.grpc.transport import options, transport
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.listener import check_exposure, listen, shown
from semaforo.server.settings import ServerSettings
from semaforo.wire.inference_messages import SERVICE

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

_OPTION = "--grpc-port"
_FLUSH_S = 1.0
_LOOK_S = 0.02


class GrpcServer:
    """Serves an engine on one address.

    Attributes:
        port: The port it listens on, once started.
        forced: Whether a second `end` has cut the grace short.
    """

    def __init__(self, engine: Engine, settings: ServerSettings, kept: KeptAnswers) -> None:
        description = Description(engine)
        self._transport = transport(settings.grpc_transport)
        self._engine = engine
        self._settings = settings
        self._door = Door(settings, engine.new_id, self._transport.pushback)
        inference = Inference(engine, self._door, kept, self._transport.together)
        self._service = Service(engine, description, self._door, inference)
        self._health = Health(engine, description, self._door)
        self._ending = asyncio.Event()
        self._forced = asyncio.Event()
        self._server: grpc.aio.Server
        self.port = settings.grpc_port or 0

    @property
    def forced(self) -> bool:
        """Whether a second `end` has cut the grace short."""
        return self._forced.is_set()

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address is taken, may not be used, or is open to others without any keys.
        """
        settings = self._settings
        check_exposure(settings)
        # A socket of our own says what is wrong with an address better than gRPC does.
        listen(settings.host, self.port, _OPTION).close()
        carrier = self._transport
        self._server = carrier.server(options=options(settings, carrier))
        for name, handlers in (
            (SERVICE, self._service.handlers()),
            (HEALTH_SERVICE, self._health.handlers()),
        ):
            # What is registered by its path, the native transport serves itself.
            self._server.add_registered_method_handlers(name, handlers)
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        address = f"{shown(settings.host)}:{self.port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address} for gRPC: {error}; check {_OPTION}") from None
        try:
            await self._server.start()
        except OSError as error:
            raise ConfigError(
                f"gRPC cannot start: {error}; the native transport needs a folder for temporary files, "
                "server.grpc_transport: grpcio does not"
            ) from None

    async def wait(self) -> None:
        """Wait for `end`, then until the server has stopped."""
        await self._ending.wait()
        stopping = asyncio.ensure_future(self._stop())
        forced = asyncio.ensure_future(self._forced.wait())
        try:
            await asyncio.wait(
                (stopping, forced), timeout=self._settings.grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            for request_id in reversed(list(self._door.running)):
                self._engine.cancel(request_id)
            if not self.forced:
                await asyncio.wait((stopping, forced), return_when=asyncio.FIRST_COMPLETED)
            if self.forced:
                await self._server.stop(None)
            await stopping
        finally:
            forced.cancel()

    async def _stop(self) -> None:
        until = time.monotonic() + self._settings.grace_s + _FLUSH_S
        if not self._transport.flushes:
            # The door takes no new request. How much of an answer is written, the transport does not tell.
            while not self.forced and time.monotonic() < min(until, self._door.busy_until + _FLUSH_S):
                await asyncio.sleep(_LOOK_S)
        await self._server.stop(max(_LOOK_S, until - time.monotonic()))

    def end(self) -> None:
        """Begin to stop: finish what is in flight within the grace; a second call stops at once."""
        if self._ending.is_set():
            self._forced.set()
        self._door.ending = True
        self._ending.set()
        self._health.end()
        self._service.end()
