"""The small types of the HTTP front, over raw ASGI.

Rules this module keeps:

1. A handler takes an `HttpRequest` and returns an `HttpResponse` or a `StreamResponse`; what it raises as a
   `SemaforoError` becomes an error body in the form of its protocol (`semaforo.server.app`).
2. A body is read once, whole, within its limits of size and time, and is decompressed on the way.
3. `when_gone` tells a handler at once that the client went away, without a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

import msgspec

from semaforo.errors import Cancelled, InvalidRequest, RequestTimeout, TooLarge
from semaforo.server.compression import decompress
from semaforo.server.identity import NOBODY, Action, Principal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
Method = Literal["GET", "POST", "PUT", "DELETE"]

JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
SSE: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
"""Headers of a stream of server-sent events."""

_IN_THREAD = 65_536


class HttpRequest:
    """One HTTP request, as handlers see it.

    Attributes:
        method, path: As sent; the path is percent-decoded.
        headers: Names in lower case → value; of a repeated header the last value.
        params: What the route's pattern captured.
        id: Request id, also sent back as ``semaforo-request-id``.
        principal: Who asks.
        exchange: The connection's side of it.
    """

    __slots__ = (
        "_body_timeout_s", "_max_body_bytes", "_receive", "exchange", "headers", "id", "method", "params",
        "path", "principal", "scope",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, request_id: str, max_body_bytes: int, body_timeout_s: float
    ) -> None:
        """Take an ASGI request.

        Args:
            scope: ASGI scope.
            receive: ASGI receive.
            request_id: Id of the request.
            max_body_bytes: Limit of the body, as sent and when decompressed.
            body_timeout_s: Seconds the whole body may take.
        """
        self.scope = scope
        # Taken out of the scope, which it leads back to: a cycle in each request keeps the collector busy.
        self.exchange: Exchange = scope.pop("semaforo.exchange")
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.params: Mapping[str, str] = {}
        self.id = request_id
        self.principal: Principal = NOBODY
        self._receive = receive
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    def header(self, name: str) -> str | None:
        """Return a header's value, or None; the name is in lower case."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    def query(self) -> dict[str, str]:
        """Return the query string's fields; of a repeated one the last."""
        raw: bytes = self.scope.get("query_string", b"")
        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}

    @property
    def disconnected(self) -> bool:
        """Whether the client is known to have gone away."""
        return self.exchange.gone

    async def body(self) -> bytes:
        """Read the whole body, decompressed as ``Content-Encoding`` says.

        Raises:
            TooLarge: The declared, received or decompressed size is over the limit (413).
            RequestTimeout: The client sends too slowly (408).
            InvalidRequest: The encoding is unknown or broken.
            Cancelled: The client went away before the end.
        """
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > self._max_body_bytes:
            raise self._too_large(int(declared))
        body = self.exchange.take_body()
        if body is None:
            body = await self._gather()
        if len(body) > self._max_body_bytes:
            raise self._too_large(len(body))
        encoding = self.headers.get(b"content-encoding")
        if encoding is not None:
            if len(body) > _IN_THREAD:
                return await asyncio.to_thread(decompress, body, encoding, self._max_body_bytes)
            return decompress(body, encoding, self._max_body_bytes)
        return body

    async def json(self) -> Any:
        """Read the body as JSON, whatever its ``Content-Type`` says; an empty body is ``{}``.

        Raises:
            InvalidRequest: It is not JSON; and whatever `body` raises.
        """
        body = await self.body()
        if not body:
            return {}
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back once, on the loop, as soon as the client has gone away; call after `body`."""
        self.exchange.when_gone(callback)

    async def drain(self, seconds: float, most_bytes: int) -> None:
        """Read and drop what is left of the body, for so long and so much at most."""
        size = 0
        if self.exchange.take_body() is not None:
            return
        try:
            async with asyncio.timeout(seconds):
                while size <= most_bytes:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            return

    async def _gather(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Cancelled("the client closed the connection before the end of its request")
                    part: bytes = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    if size > self._max_body_bytes:
                        raise self._too_large(size)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._body_timeout_s:g} s") from None

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(f"the body has {size} bytes or more; the limit is {self._max_body_bytes}")


class Exchange(Protocol):
    """What the front needs of a connection beyond ASGI."""

    @property
    def gone(self) -> bool:
        """Whether the client hung up before the response was complete."""
        ...

    def take_body(self) -> bytes | None:
        """Return the whole body where it has arrived, else None; then it has to be received."""
        ...

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back when the client hangs up, or now if it has."""
        ...

    def respond(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole response at once; False where it has to be sent by ASGI messages."""
        ...


class HttpResponse:
    """A whole response; its ``content-length`` is added when it is sent."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, headers: Headers = (JSON,), body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class StreamResponse:
    """A response whose chunks are sent as they come.

    When the client goes away, the generator is closed, so that its ``finally`` stops the work. An error after
    the first chunk is the generator's to say in its own protocol.
    """

    __slots__ = ("chunks", "headers", "status")

    def __init__(self, chunks: AsyncIterator[bytes], *, status: int = 200, headers: Headers = SSE) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks


Response = HttpResponse | StreamResponse
Handler = Callable[[HttpRequest], Awaitable[Response]]


class Route(msgspec.Struct, frozen=True):
    """Binds a method and a pattern to a handler.

    Attributes:
        method: HTTP method.
        pattern: Path with ``{name}`` for one segment, which becomes a key of `HttpRequest.params`.
        action: What `authorise` is asked for.
        handler: Answers the request.
    """

    method: Method
    pattern: str
    action: Action
    handler: Handler


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> HttpResponse:
    """Return a value as a JSON response."""
    return HttpResponse(status, (JSON, *headers), msgspec.json.encode(value))


def sse(data: bytes) -> bytes:
    """Return one server-sent event; `data` holds no line break."""
    return b"data: " + data + b"\n\n"
