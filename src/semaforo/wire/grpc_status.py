"""Errors as gRPC says them: the name of a status code, and when to try again."""

from __future__ import annotations

import math

from semaforo.errors import Cancelled, SemaforoError

_BY_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    405: "UNIMPLEMENTED", 408: "DEADLINE_EXCEEDED", 409: "ALREADY_EXISTS", 413: "RESOURCE_EXHAUSTED",
    422: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
    # A cancelled request whose client still listens was stopped by the server.
    Cancelled.status: "UNAVAILABLE",
}  # fmt: skip
_MOST_TEXT = 2000


def status_name(error: SemaforoError) -> str:
    """Return the name of the status code that an error maps to."""
    return _BY_STATUS.get(error.status, "INTERNAL")


def details(error: SemaforoError) -> str:
    """Return an error's text, short enough for the trailers of every client."""
    text = str(error)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def error_metadata(error: SemaforoError, request_id: str, pushback: bool) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of an error: the request's id, its code, when to try again.

    Args:
        pushback: Whether to say that to gRPC's own retries too, which wait for as long.
    """
    found = [("semaforo-request-id", request_id), ("semaforo-error", error.code)]
    if error.retry_after_s is not None and error.status in (429, 503):
        milliseconds = max(1, math.ceil(error.retry_after_s * 1e3))
        found.append(("semaforo-retry-after-ms", str(milliseconds)))
        if pushback:
            found.append(("grpc-retry-pushback-ms", str(milliseconds)))
    return tuple(found)
