"""The ASGI application: one request in, one response out, errors in the form of their protocol.

What happens to a request, in order:

1. Its route is found; no route is 404, another method is 405.
2. One that asks for inference is refused if too many requests are in flight already.
3. Its principal is found, and asked for the route's action (`authorise`).
4. Its handler runs. A `SemaforoError` becomes an error body; anything else is logged, and becomes a 500 that
   gives the request id and nothing more.
5. The response is compressed where the client takes that and it is worth it, and sent.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

import msgspec

from semaforo.errors import Cancelled, NotReady, Refused, SemaforoError, TooLarge
from semaforo.server.compression import choose, compress
from semaforo.server.http import (
    JSON,
    Headers,
    HttpRequest,
    HttpResponse,
    Receive,
    Route,
    Scope,
    Send,
    StreamResponse,
)
from semaforo.server.identity import Keys, authorise
from semaforo.server.routing import Routing
from semaforo.server.settings import ServerSettings

logger = logging.getLogger("semaforo.server")

ErrorForm = Callable[[SemaforoError, str], HttpResponse]
"""Writes an error, with the request's id, in the form of one protocol."""

_WORTH_COMPRESSING = 1024
_IN_THREAD = 65_536
_LINGER_S = 2.0
_LINGER_BYTES = 16_000_000


def v2_error(error: SemaforoError, request_id: str) -> HttpResponse:
    """Return V2's error, ``{"error": "…"}``: what every route but OpenAI's answers with."""
    headers = (*error_headers(error), (b"semaforo-request-id", request_id.encode()))
    return HttpResponse(wire_status(error), headers, msgspec.json.encode({"error": str(error)}))


def wire_status(error: SemaforoError) -> int:
    """Return the status to send: a cancelled request whose client still listens was stopped by the server."""
    return NotReady.status if error.status == Cancelled.status else error.status


class App:
    """The ASGI application."""

    def __init__(
        self,
        routes: Sequence[Route],
        settings: ServerSettings,
        new_id: Callable[[], str],
        error_forms: Sequence[tuple[str, ErrorForm]] = (),
    ) -> None:
        """Take the routes.

        Args:
            routes: All routes.
            settings: Limits and keys.
            new_id: Makes request ids.
            error_forms: Prefix of paths → form of their errors; V2's elsewhere.
        """
        self._routing = Routing(routes)
        self._settings = settings
        self._keys = Keys(settings.keys)
        self._new_id = new_id
        self._error_forms = tuple(error_forms)
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            raise RuntimeError(f"the application speaks http, not {scope['type']}")
        settings = self._settings
        request = HttpRequest(
            scope, receive, self._new_id(), settings.max_body_bytes, settings.body_timeout_s
        )
        self.in_flight += 1
        try:
            try:
                response = await self._respond(request)
            except SemaforoError as error:
                response = self._error(request, error)
            except asyncio.CancelledError:
                # The client is gone, or the server's time to finish is over: either way this task ends here.
                if request.disconnected:
                    return
                response = self._error(request, _STOPPING)
            except Exception:
                logger.exception("request %s %s %s failed", request.id, request.method, request.path)
                response = self._error(
                    request, SemaforoError(f"internal error; the log has it as {request.id}")
                )
            if isinstance(response, HttpResponse):
                await self._send(request, response, send)
            else:
                await self._stream(request, response, send)
        finally:
            self.in_flight -= 1

    async def _respond(self, request: HttpRequest) -> HttpResponse | StreamResponse:
        route, request.params = self._routing.find(request.method, request.scope["raw_path"])
        # Health and what an operator needs to see is answered however many requests wait.
        if self.in_flight > self._settings.max_in_flight and route.action == "infer":
            raise Refused(
                f"{self._settings.max_in_flight} requests are in flight, which is the server's limit",
                retry_after_s=1.0,
            )
        request.principal = self._keys.principal(request.headers)
        authorise(request.principal, route.action, request.path)
        return await route.handler(request)

    def _error(self, request: HttpRequest, error: SemaforoError) -> HttpResponse:
        form: ErrorForm = v2_error
        for prefix, candidate in self._error_forms:
            if request.path.startswith(prefix):
                form = candidate
        return form(error, request.id)

    async def _send(self, request: HttpRequest, response: HttpResponse, send: Send) -> None:
        body = response.body
        headers = response.headers
        if len(body) >= _WORTH_COMPRESSING:
            encoding = choose(request.headers.get(b"accept-encoding", b""))
            if encoding:
                in_thread = len(body) > _IN_THREAD
                body = (
                    await asyncio.to_thread(compress, body, encoding)
                    if in_thread
                    else compress(body, encoding)
                )
                headers = (*headers, (b"content-encoding", encoding), (b"vary", b"accept-encoding"))
        if response.status != TooLarge.status and request.exchange.respond(response.status, headers, body):
            return
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.status == TooLarge.status:
            # Closing while the client still sends would take the answer from it (RFC 9112, 9.6).
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await request.drain(_LINGER_S, _LINGER_BYTES)
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, request: HttpRequest, response: StreamResponse, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        request.when_gone(task.cancel)
        chunks = response.chunks
        try:
            await send(
                {"type": "http.response.start", "status": response.status, "headers": list(response.headers)}
            )
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not request.disconnected:
                raise
        except Exception:
            # The status has been sent: all that is left is to break the stream off, so that it is not
            # taken for a whole one.
            logger.exception("the stream of request %s broke off", request.id)
            raise
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()


_STOPPING = NotReady("the server is stopping", retry_after_s=1.0)


def error_headers(error: SemaforoError) -> Headers:
    """Return the headers that go with an error: when to try again, how to authenticate, what is allowed."""
    headers: list[tuple[bytes, bytes]] = [JSON]
    if error.retry_after_s is not None and error.status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
        headers.append((b"semaforo-retry-after-ms", b"%d" % max(1, math.ceil(error.retry_after_s * 1e3))))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status in (408, 413):
        headers.append((b"connection", b"close"))
    allowed: Sequence[str] = getattr(error, "allowed", ())
    if allowed:
        headers.append((b"allow", ", ".join(allowed).encode()))
    return headers
