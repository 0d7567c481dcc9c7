"""The door of the gRPC front: who asks, how much is in flight, and how errors go out.

Rules this module keeps:

1. Every call asks `authorise` once, before its message is parsed. Health is open to everybody.
2. Of what runs models, only so much is in flight at once, over all connections and streams; of streams, which
   cost something while nothing is in flight, as many are open as connections may be.
3. An error goes out as its status code and text; what was not foreseen is logged, and goes out as INTERNAL with
   the request's id and nothing more.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
from grpc.aio import AbortError

from semaforo.errors import Cancelled, NotReady, Refused, SemaforoError
from semaforo.server.identity import Action, Keys, Principal, authorise
from semaforo.server.settings import ServerSettings
from semaforo.wire.grpc_status import details, error_metadata, status_name

logger = logging.getLogger("semaforo.server")

Headers = dict[bytes, bytes]
Context = Any
"""A ``grpc.aio.ServicerContext``; gRPC has no types."""
Handler = Callable[[bytes, Context], Awaitable[bytes]]
Handlers = dict[str, grpc.RpcMethodHandler]

STOPPING = NotReady("the server is stopping", retry_after_s=1.0)


class Door:
    """What every call of the front passes.

    Args:
        pushback: Whether errors may carry what gRPC's own clients wait for before they try again.

    Attributes:
        running: Ids of the requests in flight, the oldest first.
        ending: Whether the server stops.
    """

    def __init__(self, settings: ServerSettings, new_id: Callable[[], str], pushback: bool) -> None:
        self._pushback = pushback
        self._keys = Keys(settings.keys)
        self._most = settings.max_in_flight
        self._most_streams = settings.max_connections
        self._streams = 0
        self.new_id = new_id
        self.running: dict[str, None] = {}
        self._left_at = -math.inf
        self.ending = False

    def admit(self, headers: Headers, action: Action, resource: str) -> Principal:
        """Return who asks, if they may.

        Raises:
            Unauthenticated: A key is needed, or is not known.
            Forbidden: The key does not stand for that.
        """
        principal = self._keys.principal(headers)
        authorise(principal, action, resource)
        return principal

    def enter(self) -> str:
        """Count a request that runs a model; return its id. Whoever enters leaves.

        Raises:
            NotReady: The server stops.
            Refused: Too many are in flight.
        """
        if self.ending:
            raise STOPPING
        if len(self.running) >= self._most:
            raise Refused(
                f"{self._most} requests are in flight, which is the server's limit", retry_after_s=1.0
            )
        request_id = self.new_id()
        self.running[request_id] = None
        return request_id

    def leave(self, request_id: str) -> None:
        """Count a request no more."""
        self.running.pop(request_id, None)
        self._left_at = time.monotonic()

    @property
    def busy_until(self) -> float:
        """When the last request left, in monotonic seconds; infinite while one is in flight."""
        return math.inf if self.running else self._left_at

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Count a call that stays open, as long as it does.

        Raises:
            NotReady: The server stops.
            Refused: Too many are open.
        """
        if self.ending:
            raise STOPPING
        if self._streams >= self._most_streams:
            raise Refused(
                f"{self._most_streams} streams are open, which is the server's limit", retry_after_s=1.0
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def refuse(self, context: Context, error: Exception, request_id: str) -> None:
        """End a call with an error; raises what ends its handler."""
        if isinstance(error, AbortError):
            raise error
        known = self.known(error, request_id)
        code = grpc.StatusCode[status_name(known)]
        await context.abort(code, details(known), error_metadata(known, request_id, self._pushback))

    def known(self, error: Exception, request_id: str) -> SemaforoError:
        """Return an error as it may be told; one that was not foreseen is logged."""
        if self.ending and isinstance(error, Cancelled):
            return STOPPING
        if isinstance(error, SemaforoError):
            return error
        logger.error("request %s failed", request_id, exc_info=error)
        return SemaforoError(f"internal error; the log has it as {request_id}")


def headers_of(context: Context) -> Headers:
    """Return a call's metadata; of a repeated name the last value."""
    metadata: Any = context.invocation_metadata() or ()
    return {name.encode(): v if isinstance(v, bytes) else v.encode() for name, v in metadata}
