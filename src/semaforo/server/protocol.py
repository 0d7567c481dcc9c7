"""HTTP/1.1 on a connection: uvicorn's httptools protocol with the limits and the ear that it lacks.

Rules this module keeps:

1. A request line and headers that are too long, too many or too slow are refused before a handler runs, and
   the connection is closed.
2. What cannot be answered by a handler is answered here in the same form: ``{"error": "…"}``.
3. The application hears of a lost connection at once (`ProtocolExchange`), without awaiting it.
4. A whole response is one write, where ASGI's two messages would be two.
5. At the end, a request that crosses with it on the wire is answered: idle connections close a moment later.

One key is put into the ASGI scope: ``semaforo.exchange``, the `Exchange` of the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from semaforo.server.http import Headers
from semaforo.server.settings import ServerSettings

_LAST_S = 0.5


class LimitedProtocol(HttpToolsProtocol):
    """One connection, within the limits of `settings`."""

    settings: ClassVar[ServerSettings] = ServerSettings()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; its first request must come within the header timeout."""
        super().connection_made(transport)
        self._exchange: ProtocolExchange | None = None
        self._refusal: tuple[int, str] | None = None
        self._in_head = True
        self._ending = False
        self._fed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._start_timer()
        most = self.settings.max_connections
        if len(self.connections) > 2 * most:
            transport.abort()
        elif len(self.connections) > most:
            self._refusal = (503, f"the server has {most} connections, which is its limit; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client that it is gone."""
        super().connection_lost(exc)
        self._stop_timer()
        if self._exchange is not None:
            self._exchange.hang_up()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, counting what arrives before the headers are complete."""
        self._fed += len(data)
        super().data_received(data)
        if not self._in_head:
            self._fed = 0
        elif self._fed > self.settings.max_header_bytes:
            self._refuse(431, self._too_long())
        elif self._timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Check the headers, then start the application."""
        self._in_head = False
        if self._timer is not None:
            self._stop_timer()
        settings = self.settings
        if len(self.headers) > settings.max_headers:
            self._refusal = (
                431,
                f"the request has {len(self.headers)} headers; {settings.max_headers} are allowed",
            )
        elif self._fed > settings.max_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > settings.max_header_bytes:
                self._refusal = (431, self._too_long())
        if self._refusal is not None:
            # The parser stops on an error in a callback, and `send_400_response` says what it was.
            raise ValueError(self._refusal[1])
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False
        exchange = ProtocolExchange(self.cycle, self.server_state)
        exchange.before = self._exchange if self._exchange is not None and not self._exchange.over else None
        self._exchange = exchange
        self.scope["semaforo.exchange"] = exchange  # type: ignore[typeddict-unknown-key]

    def shutdown(self) -> None:
        """Close after the answer to the request that is here, or that comes within a moment."""
        self._ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LAST_S, self._end_idle)
        else:
            self.cycle.keep_alive = False

    def _end_idle(self) -> None:
        arriving = self._in_head and self._fed
        if not arriving and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser could not take."""
        status, text = self._refusal or (400, "this is not a valid HTTP/1.1 request")
        self._refuse(status, text)

    def _refuse(self, status: int, text: str) -> None:
        if self.transport.is_closing():
            return
        # Behind a request that is still being answered, a refusal would be read as that request's answer.
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode({"error": text})
            retry = b"retry-after: 1\r\n" if status == 503 else b""
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\nconnection: close\r\n"
                + retry
                + b"content-length: %d\r\n\r\n" % len(body)
                + body
            )
        self.transport.close()

    def _too_long(self) -> str:
        return f"the request line and headers are longer than {self.settings.max_header_bytes} bytes"

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.settings.header_timeout_s, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if not self._in_head:
            return
        if self._fed:
            self._refuse(408, f"the headers did not arrive within {self.settings.header_timeout_s:g} s")
        else:
            self.transport.close()


class ProtocolExchange:
    """One request and its response on a connection (`semaforo.server.http.Exchange`).

    Attributes:
        gone: Whether the client hung up before the response was complete.
        before: A pipelined request that is still being answered.
    """

    __slots__ = ("_callbacks", "_cycle", "_state", "before", "gone")

    def __init__(self, cycle: RequestResponseCycle, state: ServerState) -> None:
        self._cycle = cycle
        self._state = state
        self._callbacks: list[Callable[[], object]] | None = None
        self.gone = False
        self.before: ProtocolExchange | None = None

    @property
    def over(self) -> bool:
        """Whether the response is complete."""
        return self._cycle.response_complete

    def take_body(self) -> bytes | None:
        """Return the whole body where it has arrived, else None; then it has to be received."""
        cycle = self._cycle
        if cycle.more_body or cycle.waiting_for_100_continue:
            return None
        body = bytes(cycle.body)
        cycle.body = bytearray()
        return body

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
        if self.before is not None:
            self.before.hang_up()
        if self.gone or self._cycle.response_complete:
            return
        self.gone = True
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def respond(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole response at once; False where it has to be sent by ASGI messages.

        Header values are trusted: whoever makes them keeps line breaks out.
        """
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if cycle.disconnected:
            return True
        parts = [STATUS_LINE[status]]
        for name, value in self._state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if name == b"connection":
                cycle.keep_alive = False
            else:
                parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), body)
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


def protocol_for(settings: ServerSettings) -> type[LimitedProtocol]:
    """Return the protocol class with these limits, for `uvicorn.Config(http=…)`."""
    attributes: dict[str, Any] = {"settings": settings}
    return type("SemaforoProtocol", (LimitedProtocol,), attributes)
