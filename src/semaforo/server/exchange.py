"""One request and its response on a connection of HTTP/1.1.

Rules this module keeps:

1. A whole response is one write.
2. A response whose length is not known goes out in chunks, or, to a client of HTTP/1.0, until the end of the
   connection.
3. Who works for a client that hangs up hears of it at once, and once.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable
from typing import TYPE_CHECKING

from semaforo.server.http import Headers, HttpRequest

if TYPE_CHECKING:
    from semaforo.server.connection import Connection

STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}


class ConnectionExchange:
    """One request and its response (`semaforo.server.http.Exchange`).

    Attributes:
        request: The request, until it is answered.
        begun: Whether the application has it.
        over: Whether the response is complete.
        keep_alive: Whether another request may follow.
        parts: What has arrived of the body.
        waiter: Whoever waits for more of the body.
    """

    __slots__ = (
        "_callbacks", "_chunked", "_connection", "_expects", "_head_only", "_recent", "begun", "complete", "gone",
        "keep_alive", "over", "parts", "received", "request", "waiter",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, recent: bool, keep_alive: bool, head_only: bool, expects: bool
    ) -> None:
        self._connection = connection
        self._recent = recent
        self._head_only = head_only
        self._expects = expects
        self._chunked = False
        self._callbacks: list[Callable[[], object]] | None = None
        self.keep_alive = keep_alive
        self.request: HttpRequest | None = None
        self.begun = False
        self.complete = False
        self.gone = False
        self.over = False
        self.received = 0
        self.parts: list[bytes] = []
        self.waiter: asyncio.Future[None] | None = None

    def take_body(self) -> bytes:
        """Return what has arrived of the body, and forget it."""
        parts = self.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self.parts = []
        return body

    async def more(self) -> None:
        """Wait until more of the body has arrived, or all of it, or the client is gone."""
        if self._expects:
            self._expects = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.gone:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter

    def wake(self) -> None:
        """Let whoever waits for the body look again."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back when the client hangs up, or now if it has."""
        if self.gone:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def hang_up(self) -> None:
        """Tell everybody who waits, once."""
        if self.gone or self.over:
            return
        self.gone = True
        self.request = None
        self.wake()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response."""
        if self.gone or self.over:
            return
        parts = self._head(status, headers)
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        if not self._head_only:
            parts.append(body)
        self._connection.write(b"".join(parts))
        self._finish()

    def start(self, status: int, headers: Headers) -> None:
        """Send the head of a response whose body follows in pieces."""
        if self.gone:
            return
        self._chunked = self._recent
        if not self._chunked:
            self.keep_alive = False
        parts = self._head(status, headers)
        parts.append(b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        self._connection.write(b"".join(parts))

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body, and wait while the client reads too slowly."""
        if self.gone or self._head_only or not chunk:
            return
        if self._chunked:
            self._connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            self._connection.write(chunk)
        await self._connection.drain()

    def end(self) -> None:
        """End a body that was sent in pieces."""
        if self.gone or self.over:
            return
        if self._chunked and not self._head_only:
            self._connection.write(b"0\r\n\r\n")
        self._finish()

    def abort(self) -> None:
        """Break the connection off."""
        self._connection.abort()

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        parts = [STATUS_LINES[status], self._connection.date()]
        for name, value in headers:
            if name == b"connection":
                self.keep_alive = False
            else:
                parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        return parts

    def _finish(self) -> None:
        self.over = True
        self._callbacks = None
        self._expects = False
        self.parts = []
        self._connection.ended(self)
