"""The small types of the HTTP front.

Rules this module keeps:

1. A handler takes an `HttpRequest` and returns an `HttpResponse` or a `StreamResponse`; what it raises as a
   `SemaforoError` becomes an error body in the form of its protocol (`semaforo.server.app`).
2. A body is read once, whole, within its limits of size and time, and is decompressed on the way.
3. `when_gone` tells a handler at once that the client went away, without a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from semaforo.errors import Cancelled, InvalidRequest, RequestTimeout, TooLarge
from semaforo.server.compression import decompress
from semaforo.server.identity import NOBODY, Action, Principal
from semaforo.wire.not_json import NOT_JSON, told

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
        raw_path, query_string: As sent.
        headers: Names in lower case → value; of a repeated header the last value.
        params: What the route's pattern captured.
        id: Request id, also sent back as ``semaforo-request-id``.
        principal: Who asks.
        exchange: The connection's side of it.
        kept: The body, from when it is read until the contract has been.
        replayed: Whether it was queued on disk and is run now.
    """

    __slots__ = (
        "_body_timeout_s", "_max_body_bytes", "exchange", "headers", "id", "kept", "method", "params", "path",
        "principal", "query_string", "raw_path", "replayed",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        raw_path: bytes,
        query_string: bytes,
        headers: dict[bytes, bytes],
        exchange: Exchange,
        request_id: str,
        max_body_bytes: int = 64_000_000,
        body_timeout_s: float = 60.0,
    ) -> None:
        """Take a request.

        Args:
            method, raw_path, query_string, headers: What was sent; names of headers in lower case.
            exchange: Where the body comes from and the response goes.
            request_id: Id of the request.
            max_body_bytes: Limit of the body, as sent and when decompressed.
            body_timeout_s: Seconds the whole body may take.
        """
        self.method = method
        self.raw_path = raw_path
        self.query_string = query_string
        path = raw_path.decode("latin-1")
        self.path = unquote(path) if "%" in path else path
        self.headers = headers
        self.exchange = exchange
        self.params: Mapping[str, str] = {}
        self.id = request_id
        self.principal: Principal = NOBODY
        self.kept = b""
        self.replayed = False
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    def header(self, name: str) -> str | None:
        """Return a header's value, or None; the name is in lower case."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    def query(self) -> dict[str, str]:
        """Return the query string's fields; of a repeated one the last."""
        raw = self.query_string
        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}

    @property
    def disconnected(self) -> bool:
        """Whether the client is known to have gone away."""
        return self.exchange.gone

    def whole_body(self) -> bytes | None:
        """Return the body where it has arrived and is not compressed, else None: then await `body`.

        Raises:
            TooLarge: It is over the limit (413).
        """
        if b"content-encoding" in self.headers or not self.exchange.complete:
            return None
        body = self.exchange.take_body()
        if len(body) > self._max_body_bytes:
            raise self._too_large(len(body))
        self.kept = body
        return body

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
        exchange = self.exchange
        if not exchange.complete:
            await self._gather()
        body = exchange.take_body()
        if len(body) > self._max_body_bytes:
            raise self._too_large(len(body))
        encoding = self.headers.get(b"content-encoding")
        if encoding is not None:
            if len(body) > _IN_THREAD:
                body = await asyncio.to_thread(decompress, body, encoding, self._max_body_bytes)
            else:
                body = decompress(body, encoding, self._max_body_bytes)
        self.kept = body
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
        except NOT_JSON as error:
            raise InvalidRequest(f"the body is not valid JSON: {told(error)}") from None

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back once, on the loop, as soon as the client has gone away; call after `body`."""
        self.exchange.when_gone(callback)

    async def _gather(self) -> None:
        exchange = self.exchange
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while not exchange.complete:
                    if exchange.received > self._max_body_bytes:
                        raise self._too_large(exchange.received)
                    await exchange.more()
                    if exchange.gone:
                        raise Cancelled("the client closed the connection before the end of its request")
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._body_timeout_s:g} s") from None

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(f"the body has {size} bytes or more; the limit is {self._max_body_bytes}")


class Exchange(Protocol):
    """A request's connection: where its body comes from and its response goes.

    Attributes:
        gone: Whether the client hung up before the response was complete.
        complete: Whether the whole body has arrived.
        received: Bytes of the body so far.
    """

    gone: bool
    complete: bool
    received: int

    def take_body(self) -> bytes:
        """Return what has arrived of the body, and forget it."""
        ...

    async def more(self) -> None:
        """Wait until more of the body has arrived, or all of it, or the client is gone."""
        ...

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back when the client hangs up, or now if it has."""
        ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response; header values are trusted to hold no line break."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Send the head of a response whose body follows in pieces."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body, and wait while the client reads too slowly."""
        ...

    def end(self) -> None:
        """End a body that was sent in pieces."""
        ...

    def abort(self) -> None:
        """Break the connection off, so that a response that is cut short is not taken for a whole one."""
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
Reply = Callable[[HttpRequest, HttpResponse | Exception], None]
Direct = Callable[[HttpRequest, Reply], bool]
"""Answers a request without a task of its own, by calling back once, now or later; False = ask the handler."""


class Route(msgspec.Struct, frozen=True):
    """Binds a method and a pattern to a handler.

    Attributes:
        method: HTTP method.
        pattern: Path with ``{name}`` for one segment, which becomes a key of `HttpRequest.params`.
        action: What `authorise` is asked for.
        handler: Answers the request.
        direct: Tried first, once the whole body is there; for routes whose cost counts.
    """

    method: Method
    pattern: str
    action: Action
    handler: Handler
    direct: Direct | None = None


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> HttpResponse:
    """Return a value as a JSON response."""
    return HttpResponse(status, (JSON, *headers), msgspec.json.encode(value))


def sse(data: bytes) -> bytes:
    """Return one server-sent event; `data` holds no line break."""
    return b"data: " + data + b"\n\n"
