"""Runs a request that was kept on disk as if it had just come over a connection.

Rules this module keeps:

1. The handlers that answer direct calls answer it; what they return is what the direct call would have got.
2. It runs in the lowest class, for the tenant that it was admitted for, and without a deadline of its own or its
   task's: it may be tried until it expires, whatever is predicted of it, and whoever runs it ends it then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from semaforo.entities import Priority
from semaforo.errors import SemaforoError
from semaforo.repository.deferred import Work
from semaforo.server.app import App
from semaforo.server.http import Exchange, HttpRequest, HttpResponse
from semaforo.server.identity import Principal

_KEPT = frozenset(("accept", "content-type", "inference-header-content-length", "traceparent"))
_APART = frozenset(("deadline-ms", "idempotency-key", "mode", "priority", "tenant", "webhook"))


def kept_headers(headers: Mapping[bytes, bytes]) -> tuple[tuple[str, str], ...]:
    """Return the headers that matter to the work; its tenant, class and deadline are kept beside them."""
    found = []
    for raw_name, value in headers.items():
        name = raw_name.decode("latin-1")
        ours, _, word = name.partition("semaforo-")
        if name in _KEPT or (not ours and word and word not in _APART):
            found.append((name, value.decode("latin-1")))
    return tuple(found)


_FAR_MS = b"%d" % (365 * 86_400_000)


class Within:
    """The side of an `Exchange` that handlers use, for a request that has no connection.

    Attributes:
        gone: Whether the work was called off.
        complete: The whole body is there.
        received: Bytes of the body.
    """

    def __init__(self, body: bytes) -> None:
        self.gone = False
        self.complete = True
        self.received = len(body)
        self._body = body
        self._callbacks: list[Callable[[], object]] = []

    def take_body(self) -> bytes:
        """Return the body, and forget it."""
        body, self._body = self._body, b""
        return body

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back when the work is called off, or now if it has been."""
        if self.gone:
            callback()
        else:
            self._callbacks.append(callback)

    def call_off(self) -> None:
        """Tell whoever works on it to stop."""
        self.gone = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Replay:
    """One run of a request that was kept on disk."""

    def __init__(self, app: App, work: Work) -> None:
        self._app = app
        self._within = Within(work.body)
        headers = {name.encode("latin-1"): value.encode("latin-1") for name, value in work.headers}
        headers[b"semaforo-priority"] = Priority.LOW.name.lower().encode()
        headers[b"semaforo-deadline-ms"] = _FAR_MS
        self.request = HttpRequest(
            "POST",
            work.path.encode("latin-1"),
            b"",
            headers,
            cast(Exchange, self._within),
            app.new_id(),
            len(work.body),
        )
        self.request.replayed = True
        self.request.principal = Principal("deferred work", work.tenant, frozenset({"infer"}))

    async def run(self) -> HttpResponse:
        """Return the answer.

        Raises:
            SemaforoError: What a direct call would have been told in the form of its protocol.
        """
        response = await self._app.call(self.request)
        if not isinstance(response, HttpResponse):
            await _close(response.chunks)
            raise SemaforoError("a stream cannot be kept: ask for a whole answer")
        return response

    def error(self, error: SemaforoError) -> HttpResponse:
        """Return an error as a direct call would have got it."""
        return self._app.error(self.request, error)

    @property
    def called_off(self) -> bool:
        """Whether the work was stopped."""
        return self._within.gone

    def call_off(self) -> None:
        """Stop the work."""
        self._within.call_off()


async def _close(chunks: object) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
