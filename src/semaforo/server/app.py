"""The application: one request in, one response out, errors in the form of their protocol.

What happens to a request, in order:

1. Its route is found; no route is 404, another method is 405.
2. One that asks for inference is refused if too many requests are in flight already.
3. Its principal is found, and asked for the route's action (`authorise`).
4. Where its route can answer it directly, that is all; otherwise its handler runs in a task. A `SemaforoError`
   becomes an error body; anything else is logged, and becomes a 500 that gives the request id and nothing more.
5. One that asks to be queued, and is sound, goes to the door of the queue on disk, if there is one.
6. The response is compressed where the client takes that and it is worth it, and sent.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from semaforo.errors import Cancelled, NotReady, Refused, SemaforoError
from semaforo.server.compression import choose, compress
from semaforo.server.deferred.deferring import Deferring
from semaforo.server.http import (
    JSON,
    Handler,
    Headers,
    HttpRequest,
    HttpResponse,
    Response,
    Route,
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


def v2_error(error: SemaforoError, request_id: str) -> HttpResponse:
    """Return V2's error, ``{"error": "…"}``: what every route but OpenAI's answers with."""
    headers = (*error_headers(error), (b"semaforo-request-id", request_id.encode()))
    return HttpResponse(wire_status(error), headers, msgspec.json.encode({"error": str(error)}))


def wire_status(error: SemaforoError) -> int:
    """Return the status to send: a cancelled request whose client still listens was stopped by the server."""
    return NotReady.status if error.status == Cancelled.status else error.status


class Background(Protocol):
    """Something that works beside the requests."""

    async def start(self) -> None:
        """Begin, before the first connection is taken."""
        ...

    def end(self) -> None:
        """Begin nothing more: no connection is taken any more."""
        ...

    async def close(self) -> None:
        """Stop: the last connection is closed."""
        ...


class App:
    """The application.

    Attributes:
        new_id: Makes request ids.
        in_flight: Requests that have begun and are not answered.
        defer: Queues a request that asks for it; None where nothing is queued.
        background: What works beside the requests, as long as the application is served.
    """

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
        self._error_forms = tuple(error_forms)
        self._tasks: dict[asyncio.Task[None], HttpRequest] = {}
        self.new_id = new_id
        self.in_flight = 0
        self.defer: Callable[[HttpRequest, Deferring], Awaitable[HttpResponse]] | None = None
        self.background: list[Background] = []

    def begin(self, request: HttpRequest) -> None:
        """Answer one request, now or later, through its exchange."""
        self.in_flight += 1
        try:
            route = self._admit(request)
            handler = route.handler
            direct = route.direct
            if direct is not None and request.exchange.complete and direct(request, self._reply):
                return
        except Deferring as deferring:
            handler = partial(self._queue, deferring=deferring)
        except Exception as error:
            self._reply(request, error)
            return
        task = asyncio.get_running_loop().create_task(self._run(request, handler))
        self._tasks[task] = request
        task.add_done_callback(self._tasks.pop)

    def stop(self, unanswered: Iterable[HttpRequest]) -> None:
        """Answer what is still in flight: the server stops now."""
        tasked = set(self._tasks.values())
        for task in list(self._tasks):
            task.cancel()
        for request in unanswered:
            if request not in tasked:
                error = self.error(request, _STOPPING)
                request.exchange.respond(error.status, error.headers, error.body)

    def _admit(self, request: HttpRequest) -> Route:
        route, request.params = self._routing.find(request.method, request.raw_path)
        # Health and what an operator needs to see is answered however many requests wait.
        if self.in_flight > self._settings.max_in_flight and route.action == "infer":
            raise Refused(
                f"{self._settings.max_in_flight} requests are in flight, which is the server's limit",
                retry_after_s=1.0,
            )
        request.principal = self._keys.principal(request.headers)
        authorise(request.principal, route.action, request.path)
        return route

    def takes(self, method: str, raw_path: bytes) -> bool:
        """Tell whether inference may be asked for so."""
        try:
            return self._routing.find(method, raw_path)[0].action == "infer"
        except SemaforoError:
            return False

    async def call(self, request: HttpRequest) -> Response:
        """Answer a request from within, for its principal as it stands, and raise what is wrong with it."""
        route, request.params = self._routing.find(request.method, request.raw_path)
        return await route.handler(request)

    async def _queue(self, request: HttpRequest, deferring: Deferring) -> HttpResponse:
        if self.defer is None:
            raise deferring
        return await self.defer(request, deferring)

    async def _answer(self, request: HttpRequest, handler: Handler) -> Response:
        try:
            return await handler(request)
        except Deferring as deferring:
            return await self._queue(request, deferring)

    async def _run(self, request: HttpRequest, handler: Handler) -> None:
        response: Response
        try:
            try:
                response = await self._answer(request, handler)
            except asyncio.CancelledError:
                # The client is gone, or the server's time to finish is over: either way this task ends here.
                if request.disconnected:
                    return
                response = self.error(request, _STOPPING)
            except Exception as error:
                response = self.error(request, self._known(request, error))
            if isinstance(response, HttpResponse):
                await self._send(request, response)
            else:
                await self._stream(request, response)
        finally:
            self.in_flight -= 1

    def _reply(self, request: HttpRequest, outcome: HttpResponse | Exception) -> None:
        """Send what a direct answer came to."""
        self.in_flight -= 1
        if isinstance(outcome, HttpResponse):
            response = outcome
        else:
            response = self.error(request, self._known(request, outcome))
        if len(response.body) >= _WORTH_COMPRESSING and choose(request.headers.get(b"accept-encoding", b"")):
            task = asyncio.get_running_loop().create_task(self._send(request, response))
            self._tasks[task] = request
            task.add_done_callback(self._tasks.pop)
        else:
            request.exchange.respond(response.status, response.headers, response.body)

    def _known(self, request: HttpRequest, error: Exception) -> SemaforoError:
        if isinstance(error, SemaforoError):
            return error
        logger.error("request %s %s %s failed", request.id, request.method, request.path, exc_info=error)
        return SemaforoError(f"internal error; the log has it as {request.id}")

    def error(self, request: HttpRequest, error: SemaforoError) -> HttpResponse:
        """Return an error in the form of the protocol that a request speaks."""
        form: ErrorForm = v2_error
        for prefix, candidate in self._error_forms:
            if request.path.startswith(prefix):
                form = candidate
        return form(error, request.id)

    async def _send(self, request: HttpRequest, response: HttpResponse) -> None:
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
        request.exchange.respond(response.status, headers, body)

    async def _stream(self, request: HttpRequest, response: StreamResponse) -> None:
        task = asyncio.current_task()
        assert task is not None
        exchange = request.exchange
        request.when_gone(task.cancel)
        chunks = response.chunks
        try:
            exchange.start(response.status, response.headers)
            async for chunk in chunks:
                await exchange.write(chunk)
            exchange.end()
        except asyncio.CancelledError:
            if not request.disconnected:
                exchange.abort()
        except Exception:
            # The status has been sent: all that is left is to break the stream off, so that it is not
            # taken for a whole one.
            logger.exception("the stream of request %s broke off", request.id)
            exchange.abort()
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()


_STOPPING = NotReady("the server is stopping", retry_after_s=1.0)


def error_headers(error: SemaforoError) -> Headers:
    """Return the headers that go with an error: when to try again, how to authenticate, what is allowed."""
    headers: list[tuple[bytes, bytes]] = [JSON, (b"semaforo-error", error.code.encode())]
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
