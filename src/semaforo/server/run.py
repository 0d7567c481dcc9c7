"""Listening: uvicorn in the running loop, with an orderly end.

What happens at the end, in order:

1. On SIGINT or SIGTERM no new connection is taken, and those that are idle are closed.
2. Requests in flight may finish within the grace period; then they are answered 503.
3. The engine stops. A second Ctrl-C skips the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from semaforo.errors import ConfigError
from semaforo.server.app import App
from semaforo.server.front import make_app
from semaforo.server.protocol import protocol_for
from semaforo.server.settings import ServerSettings

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wait for the end without waking up ten times a second; the date is set once a second."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 10
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), 1.0)

    def end(self) -> None:
        """Begin to stop; a second call gives up waiting."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        self.ending.set()

    def bind(self) -> None:
        """Make what belongs to the running loop."""
        self.ending = asyncio.Event()


class HttpServer:
    """Serves an application on one address.

    Attributes:
        port: The port it listens on, once started.
    """

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self._settings = settings
        config = uvicorn.Config(
            app,
            http=protocol_for(settings),
            ws="none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, round(settings.keep_alive_s)),
            timeout_graceful_shutdown=max(1, round(settings.grace_s)),
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address is taken, may not be used, or is open to others without any keys.
        """
        check_exposure(self._settings)
        listener = listen(self._settings.host, self._settings.port)
        self.port = listener.getsockname()[1]
        self._server.bind()
        self._task = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.005)

    async def wait(self) -> None:
        """Wait until the server has stopped."""
        assert self._task is not None
        await self._task

    def end(self) -> None:
        """Begin to stop: finish what is in flight within the grace; a second call stops at once."""
        self._server.end()

    @property
    def forced(self) -> bool:
        """Whether waiting was given up."""
        return self._server.force_exit


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
        ready: Called with the url once requests are taken.

    Raises:
        ConfigError: The address is taken, may not be used, or is open to others without any keys.
    """
    server = HttpServer(make_app(engine, settings), settings)
    try:
        await server.start()
        # What was loaded stays: without it, a collection costs milliseconds less.
        gc.collect()
        gc.freeze()
        # A burst of requests allocates more than the default 700 objects, none of which is garbage yet.
        gc.set_threshold(10_000, 10, 10)
        with _on_signal(server.end):
            ready(f"http://{_shown(settings.host)}:{server.port}")
            await server.wait()
    finally:
        await engine.stop(0.1 if server.forced else settings.grace_s)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The address is taken or may not be used; the message says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        address = f"{_shown(host)}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{address} is already in use: choose another port with --http-port or stop the other process"
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(
                f"{address} may not be used by this user: choose a port from 1024 up with --http-port"
            ) from None
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}; check --host") from None
    listener.setblocking(False)
    return listener


def check_exposure(settings: ServerSettings) -> None:
    """Refuse to serve others without keys.

    Raises:
        ConfigError: The address is not a loopback address, and there are no keys.
    """
    if settings.keys or settings.allow_anonymous or _loopback(settings.host):
        return
    raise ConfigError(
        f"{settings.host} can be reached from other machines, and no API keys are configured: "
        "set server.keys, or bind 127.0.0.1"
    )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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
