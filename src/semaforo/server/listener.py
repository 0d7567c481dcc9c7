"""Listening: connections are taken, looked after, and brought to an orderly end.

What happens at the end, in order:

1. No new connection is taken, and those that are idle are closed.
2. Requests in flight may finish within the grace period; then they are answered 503.
3. What works beside the requests stops.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import resource
import socket
import time
from email.utils import formatdate

from semaforo.errors import ConfigError
from semaforo.server.app import App
from semaforo.server.connection import NEVER, Connection
from semaforo.server.settings import ServerSettings

logger = logging.getLogger("semaforo.server")

_LOOKS_PER_TIMEOUT = 4
_LOOK_S = (0.05, 1.0)
"""Least and most seconds between two looks at all connections."""
_FLUSH_S = 1.0
_OTHER_FILES = 512
"""Files beside the clients' connections: models, workers, upstreams, databases."""


class HttpServer:
    """Serves an application on one address.

    Attributes:
        port: The port it listens on, once started.
        connections: All that are open.
    """

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings
        self.new_id = app.new_id
        self.port = settings.port
        self.connections: set[Connection] = set()
        self.loop: asyncio.AbstractEventLoop
        self.forced = False
        self._server: asyncio.Server | None = None
        self._ending = False
        self._watching: asyncio.TimerHandle | None = None
        self._date = b""
        self._date_until = 0.0
        shortest = min(settings.header_timeout_s, settings.keep_alive_s) / _LOOKS_PER_TIMEOUT
        self._look_s = min(max(shortest, _LOOK_S[0]), _LOOK_S[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address is taken, may not be used, or is open to others without any keys; or what
                works beside the requests cannot begin.
        """
        check_exposure(self.settings)
        allow_open_files(self.settings.max_connections)
        listener = listen(self.settings.host, self.settings.port)
        self.port = listener.getsockname()[1]
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        try:
            for part in self.app.background:
                await part.start()
        except BaseException:
            listener.close()
            raise
        self._server = await self.loop.create_server(lambda: Connection(self), sock=listener, backlog=2048)

    async def wait(self) -> None:
        """Wait for `end`, then until the server has stopped."""
        while not self._ending:
            self._changed.clear()
            await self._changed.wait()
        assert self._server is not None
        for part in self.app.background:
            part.end()
        self._server.close()
        for connection in list(self.connections):
            connection.shutdown()
        until = self.loop.time() + self.settings.grace_s
        while self.connections and not self.forced and self.loop.time() < until:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), min(0.02, max(0.001, until - self.loop.time())))
            except TimeoutError:
                continue
        self.app.stop(c.current.request for c in self.connections if c.current and c.current.request)
        # What was refused just now still has to reach its client.
        until = self.loop.time() + _FLUSH_S
        while self.connections and not self.forced and self.loop.time() < until:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        for part in self.app.background:
            await part.close()

    def end(self) -> None:
        """Begin to stop: finish what is in flight within the grace; a second call stops at once."""
        self.forced = self._ending
        self._ending = True
        self._changed.set()

    def watch(self) -> None:
        """Look after the connections from now on, as long as there are any."""
        if self._watching is None:
            self._watching = self.loop.call_later(self._look_s, self._look)

    def _look(self) -> None:
        self._watching = None
        now = self.loop.time()
        for connection in [c for c in self.connections if c.due <= now]:
            connection.too_late()
        if any(c.due < NEVER for c in self.connections):
            self.watch()
        elif self.connections:
            self._watching = self.loop.call_later(_LOOK_S[1], self._look)

    def date(self) -> bytes:
        """Return the line of the ``date`` header, made anew each second."""
        now = self.loop.time()
        if now >= self._date_until:
            self._date = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
            self._date_until = now + 1.0 - time.time() % 1.0
        return self._date


def listen(host: str, port: int, option: str = "--http-port") -> socket.socket:
    """Return a listening socket; `option` is what sets its port.

    Raises:
        ConfigError: The address is taken or may not be used; the message says what to do.
    """
    listener = _listening(host, port, option, backlog=2048)
    listener.setblocking(False)
    return listener


def check_free(host: str, port: int, option: str = "--http-port") -> None:
    """Check that a port could be listened on now, before there is much to lose; nobody can connect meanwhile.

    Raises:
        ConfigError: As of `listen`.
    """
    _listening(host, port, option, backlog=None).close()


def _listening(host: str, port: int, option: str, *, backlog: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        if backlog is not None:
            listener.listen(backlog)
    except OSError as error:
        listener.close()
        address = f"{shown(host)}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{address} is already in use: choose another port with {option} or stop the other process"
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(
                f"{address} may not be used by this user: choose a port from 1024 up with {option}"
            ) from None
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}; check --host") from None
    return listener


def allow_open_files(connections: int) -> None:
    """Raise the limit of open files, as far as the system allows, to what so many connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning(
            "only %d open files are allowed here, and server.limits.connections is %d: raise the limit "
            "(ulimit -Hn, LimitNOFILE=) or lower that key",
            allowed,
            connections,
        )


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


def shown(host: str) -> str:
    """Return a host as it stands in a url."""
    return f"[{host}]" if ":" in host else host


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
