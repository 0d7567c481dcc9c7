"""HTTP/1.1 on one connection, over httptools' parser.

Rules this module keeps:

1. A request line and headers that are too long, too many or too slow are refused before a handler runs, and
   the connection is closed. What is refused here has the same form as elsewhere: ``{"error": "…"}``.
2. Requests are answered in the order in which they came; those that come early wait.
3. A request whose body is there when its head is goes to the application in the same turn of the loop.
4. A response that comes before the end of its request's body is followed by reading and dropping the rest, within
   bounds: closing at once would take the answer from the client (RFC 9112, 9.6).
5. There is no timer for each request: `due` says when this connection has waited too long, and the listener
   looks at all of them now and then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools
import msgspec

from semaforo.server.exchange import STATUS_LINES, ConnectionExchange
from semaforo.server.http import HttpRequest

if TYPE_CHECKING:
    from semaforo.server.listener import HttpServer

NEVER = float("inf")
_LAST_S = 0.5
_LINGER_S = 2.0
_LINGER_BYTES = 16_000_000
_MOST_EARLY = 16


class Connection(asyncio.Protocol):
    """One connection, within the limits of its server's settings.

    Attributes:
        due: When it has waited too long (the loop's time); `too_late` is called then.
    """

    __slots__ = (
        "_chunk",
        "_count",
        "_drained",
        "_early",
        "_ending",
        "_fed",
        "_head_done",
        "_headers",
        "_in_head",
        "_lingering",
        "_loop",
        "_parser",
        "_paused",
        "_refusal",
        "_server",
        "_settings",
        "_transport",
        "_url",
        "arriving",
        "current",
        "due",
    )  # fmt: skip

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._settings = server.settings
        self._loop = server.loop
        self._parser = httptools.HttpRequestParser(self)
        # What follows a request that closes is not ours to complain of.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._count = 0
        self._fed = 0
        self._chunk = 0
        self._in_head = True
        self._refusal: tuple[int, str] | None = None
        self._ending = False
        self._lingering = -1
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self._early: deque[ConnectionExchange] = deque()
        self.current: ConnectionExchange | None = None
        self.arriving: ConnectionExchange | None = None
        self.due = NEVER

    # --- the transport -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection; its first request must come within the header timeout."""
        self._transport = cast(asyncio.Transport, transport)
        connections = self._server.connections
        connections.add(self)
        self.due = self._loop.time() + self._settings.header_timeout_s
        most = self._settings.max_connections
        if len(connections) > 2 * most:
            self._transport.abort()
        elif len(connections) > most:
            self._refusal = (503, f"the server has {most} connections, which is its limit; try again later")
        self._server.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client that it is gone."""
        self._server.connections.discard(self)
        self.due = NEVER
        self.resume_writing()
        exchanges = [self.current, *self._early]
        self.current = self.arriving = None
        self._early.clear()
        for exchange in exchanges:
            if exchange is not None:
                exchange.hang_up()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._lingering >= 0:
            self._lingering += len(data)
            if self._lingering > _LINGER_BYTES:
                self._transport.close()
                return
        was_in_head = self._in_head
        if was_in_head:
            if not self._fed and self.current is None:
                self.due = self._loop.time() + self._settings.header_timeout_s
            self._fed += len(data)
        self._chunk = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request itself was taken as one of HTTP/1.1, and is the last here.
            pass
        except httptools.HttpParserError:
            status, text = self._refusal or (400, "this is not a valid HTTP/1.1 request")
            self._refuse(status, text)
            return
        if self._in_head:
            if was_in_head and self._fed > self._settings.max_header_bytes:
                self._refuse(431, self._too_long())
        else:
            exchange = self.current
            if exchange is not None and not exchange.begun:
                self._begin(exchange)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        self._paused = True

    def resume_writing(self) -> None:
        """Let whoever waits for the client write on."""
        self._paused = False
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        if self._paused:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await self._drained

    # --- the parser --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._headers = {}
        self._url = b""
        self._count = 0
        if not self._in_head:
            self._in_head = True
            self._fed = 0

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.lower()] = value
        self._count += 1

    def on_headers_complete(self) -> None:
        """Check the headers."""
        self._in_head = False
        self.due = NEVER
        settings = self._settings
        headers = self._headers
        if self._count > settings.max_headers:
            self._refusal = 431, f"the request has {self._count} headers; {settings.max_headers} are allowed"
        elif max(self._fed, self._chunk) > settings.max_header_bytes:
            size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size > settings.max_header_bytes:
                self._refusal = 431, self._too_long()
        if self._refusal is not None:
            # The parser stops on an error in a callback, and `data_received` says what it was.
            raise ValueError(self._refusal[1])
        url = self._url
        if url[:1] != b"/":
            parsed = httptools.parse_url(url)
            url = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
        path, _, query = url.partition(b"?")
        parser = self._parser
        method = parser.get_method().decode("ascii")
        recent = parser.get_http_version() == "1.1"
        upgrade = b"upgrade" in headers and parser.should_upgrade()
        exchange = ConnectionExchange(
            self,
            recent,
            recent and not self._ending and not upgrade and parser.should_keep_alive(),
            method == "HEAD",
            b"expect" in headers and headers[b"expect"].lower() == b"100-continue",
        )
        exchange.request = HttpRequest(
            method,
            path,
            query,
            headers,
            exchange,
            self._server.new_id(),
            settings.max_body_bytes,
            settings.body_timeout_s,
        )
        self.arriving = exchange
        if self.current is None:
            self.current = exchange
        else:
            self._early.append(exchange)
            if len(self._early) == _MOST_EARLY:
                self._transport.pause_reading()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        exchange = self.arriving
        if exchange is None or exchange.over:
            return
        exchange.parts.append(body)
        exchange.received += len(body)
        if exchange.waiter is not None:
            exchange.wake()

    def on_message_complete(self) -> None:
        """Hand over a request that is all here."""
        exchange, self.arriving = self.arriving, None
        if exchange is None:
            return
        exchange.complete = True
        if exchange.waiter is not None:
            exchange.wake()
        if exchange.over:
            if exchange is self.current:
                self._next()
        elif exchange is self.current and not exchange.begun:
            self._begin(exchange)

    # --- exchanges ---------------------------------------------------------------------------------------

    def _begin(self, exchange: ConnectionExchange) -> None:
        exchange.begun = True
        assert exchange.request is not None
        self._server.app.begin(exchange.request)

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens once the connection is closing."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def ended(self, exchange: ConnectionExchange) -> None:
        """Go on after a response has been sent."""
        exchange.request = None
        if exchange is not self.current:
            return
        if not exchange.keep_alive:
            if exchange.complete:
                self._transport.close()
            else:
                self._linger()
        elif exchange.complete:
            self._next()
        else:
            self._linger()

    def _linger(self) -> None:
        self._lingering = 0
        self.due = self._loop.time() + _LINGER_S

    def _next(self) -> None:
        exchange = self.current
        assert exchange is not None
        if not exchange.keep_alive or self._ending:
            self._transport.close()
            return
        self._lingering = -1
        self.current = self._early.popleft() if self._early else None
        if self.current is None:
            self._in_head = True
            self._fed = 0
            self.due = self._loop.time() + self._settings.keep_alive_s
            return
        self.due = NEVER
        if len(self._early) == _MOST_EARLY - 1:
            self._transport.resume_reading()
        # In a turn of its own: a long row of early requests would otherwise be as deep on the stack.
        self._loop.call_soon(self._begin_early, self.current)

    def _begin_early(self, exchange: ConnectionExchange) -> None:
        if exchange is self.current and not exchange.begun:
            self._begin(exchange)

    # --- the end -----------------------------------------------------------------------------------------

    def too_late(self) -> None:
        """Close a connection that has waited too long."""
        self.due = NEVER
        if self._in_head and self._fed and self.current is None:
            self._refuse(408, f"the headers did not arrive within {self._settings.header_timeout_s:g} s")
        else:
            self._transport.close()

    def shutdown(self) -> None:
        """Close after the answer to the request that is here, or that comes within a moment."""
        self._ending = True
        if self.current is None:
            self._loop.call_later(_LAST_S, self._end_idle)
        else:
            self.current.keep_alive = False

    def _end_idle(self) -> None:
        if self.current is None and not (self._in_head and self._fed):
            self._transport.close()

    def abort(self) -> None:
        """Break off at once."""
        self._transport.abort()

    def _refuse(self, status: int, text: str) -> None:
        if self._transport.is_closing():
            return
        # Behind a request that is still being answered, a refusal would be read as that request's answer.
        if self.current is None:
            body = msgspec.json.encode({"error": text})
            retry = b"retry-after: 1\r\n" if status == 503 else b""
            self._transport.write(
                STATUS_LINES[status]
                + b"content-type: application/json\r\nconnection: close\r\n"
                + retry
                + b"content-length: %d\r\n\r\n" % len(body)
                + body
            )
        self._transport.close()

    def _too_long(self) -> str:
        return f"the request line and headers are longer than {self._settings.max_header_bytes} bytes"

    def date(self) -> bytes:
        """Return the line of the ``date`` header."""
        return self._server.date()
