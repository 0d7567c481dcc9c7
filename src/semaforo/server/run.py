"""Serving an engine in the running loop, with an orderly end.

What happens at the end, in order:

1. On SIGINT or SIGTERM no new connection is taken, and those that are idle are closed.
2. Requests in flight may finish within the grace period; then they are answered 503.
3. The engine stops. A second Ctrl-C skips the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from semaforo.errors import ConfigError
from semaforo.server.front import make_app
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.listener import HttpServer, shown
from semaforo.server.settings import ServerSettings

if TYPE_CHECKING:
    from semaforo.live.engine import Engine
    from semaforo.server.grpc.listener import GrpcServer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def serve(
    engine: Engine,
    settings: ServerSettings,
    *,
    ready: Callable[[str], None],
) -> None:
    """Serve a started engine until SIGINT or SIGTERM, then stop it.

    Args:
        engine: A started engine; it is stopped at the end, whatever happens.
        settings: Where and within which limits.
        ready: Called once requests are taken with the url, or with both urls in words where there is gRPC too.

    Raises:
        ConfigError: An address is taken, may not be used, or is open to others without any keys; or gRPC is
            not installed.
    """
    kept = KeptAnswers(settings.idempotency_entries, settings.idempotency_ttl_s)
    server = HttpServer(make_app(engine, settings, kept), settings)
    beside = None if settings.grpc_port is None else _grpc(engine, settings, kept)

    def end() -> None:
        server.end()
        if beside is not None:
            beside.end()

    try:
        await server.start()
        urls = f"http://{shown(settings.host)}:{server.port}"
        if beside is not None:
            await _start_beside(server, beside)
            urls += f" and grpc://{shown(settings.host)}:{beside.port}"
        # What was loaded stays: without it, a collection costs milliseconds less.
        gc.collect()
        gc.freeze()
        # A burst of requests allocates more than the default 700 objects, none of which is garbage yet.
        gc.set_threshold(10_000, 10, 10)
        with _on_signal(end):
            ready(urls)
            await asyncio.gather(server.wait(), *([] if beside is None else [beside.wait()]))
    finally:
        await engine.stop(0.1 if server.forced else settings.grace_s)


async def _start_beside(server: HttpServer, beside: GrpcServer) -> None:
    try:
        await beside.start()
    except BaseException:
        server.end()
        await server.wait()
        raise


def _grpc(engine: Engine, settings: ServerSettings, kept: KeptAnswers) -> GrpcServer:
    try:
        from semaforo.server.grpc.listener import GrpcServer
    except ImportError as error:
        raise ConfigError(
            f"gRPC on port {settings.grpc_port} needs {error.name}: pip install 'semaforo[grpc]', "
            "or leave --grpc-port and server.grpc_port out"
        ) from None
    return GrpcServer(engine, settings, kept)


@contextlib.contextmanager
def _on_signal(end: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(end)

    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
