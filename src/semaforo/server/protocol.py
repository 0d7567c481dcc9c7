"""HTTP/1.1 on a connection: uvicorn's httptools protocol with the limits and the ear that it lacks.

Rules this module keeps:

1. A request line and headers that are too long, too many or too slow are refused before a handler runs, and
   the connection is closed.
2. What cannot be answered by a handler is answered here in the same form: ``{"error": "…"}``.
3. The application hears of a lost connection at once (`HangUp`), without awaiting it.

Two keys are put into the ASGI scope: ``semaforo.hang_up``, the connection's `HangUp`, and ``semaforo.whole``,
True once the body has arrived whole.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from semaforo.server.http import HangUp
from semaforo.server.settings import ServerSettings


class LimitedProtocol(HttpToolsProtocol):
    """One connection, within the limits of `settings`."""

    settings: ClassVar[ServerSettings] = ServerSettings()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; its first request must come within the header timeout."""
        super().connection_made(transport)
        self._hang_up = HangUp()
        self._refusal: tuple[int, str] | None = None
        self._in_head = True
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
        self._hang_up.lost()

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
        self.scope["semaforo.hang_up"] = self._hang_up  # type: ignore[typeddict-unknown-key]

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

    def on_message_complete(self) -> None:
        """Note that the body is whole."""
        self.scope["semaforo.whole"] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

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


def protocol_for(settings: ServerSettings) -> type[LimitedProtocol]:
    """Return the protocol class with these limits, for `uvicorn.Config(http=…)`."""
    attributes: dict[str, Any] = {"settings": settings}
    return type("SemaforoProtocol", (LimitedProtocol,), attributes)
