"""The tree of errors: each says what was wrong, where, and what to do about it, and maps to one wire status.

Rules this module keeps:

1. Every error that can reach a caller is a `SemaforoError`; its message is a sentence or two a person can act on.
2. `code` is a stable word for programs, `status` the HTTP status; other protocols map from `code`.
3. An error may say when to try again (`retry_after_s`); absent means that waiting alone will not help.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SemaforoError(Exception):
    """Root of all errors that Semaforo raises on purpose.

    Attributes:
        code: A stable word for programs, for example ``deadline_unreachable``.
        status: The HTTP status that the error maps to.
        retry_after_s: Seconds after which a retry may succeed, or None.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class ConfigError(SemaforoError):
    """A fleet file, or what it points at, is wrong. The message begins with ``file:line: key``."""

    code = "config"


class ArtefactError(SemaforoError):
    """A model file is missing, does not match its digest, or may not be loaded."""

    code = "artefact"


class RuntimeLoadError(SemaforoError):
    """A runtime could not load a model."""

    code = "load_failed"


class InvalidRequest(SemaforoError):
    """The request itself is wrong; sending it again unchanged will fail again."""

    code = "invalid_request"
    status = 400


class Unauthenticated(SemaforoError):
    """No valid key was given where keys are required."""

    code = "unauthenticated"
    status = 401


class Forbidden(SemaforoError):
    """The principal is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFound(SemaforoError):
    """No such model, version, task, alias, request or route."""

    code = "not_found"
    status = 404


class MethodNotAllowed(SemaforoError):
    """The route exists and does not take this method."""

    code = "method_not_allowed"
    status = 405


class RequestTimeout(SemaforoError):
    """The client took too long to send its request."""

    code = "request_timeout"
    status = 408


class Conflict(SemaforoError):
    """An idempotency key was used again with another body, or a state forbids the change."""

    code = "conflict"
    status = 409


class TooLarge(SemaforoError):
    """A body or header is over its limit."""

    code = "too_large"
    status = 413


class ModelFailed(SemaforoError):
    """The model raised an error on this input, or its worker was lost as often as may be tried."""

    code = "model_failed"


class Unsatisfiable(SemaforoError):
    """No variant in service meets the contract, whatever the load."""

    code = "unsatisfiable"
    status = 422


class NotReady(SemaforoError):
    """What was asked for exists and has no replica in service now."""

    code = "not_ready"
    status = 503


class Refused(SemaforoError):
    """Not admitted: the deadline cannot be met, a queue is full, or a quota is used up."""

    code = "refused"
    status = 503


class BudgetSpent(SemaforoError):
    """What may be spent on behalf of the caller, its task or the fleet is spent, or reserved by what runs."""

    code = "budget"
    status = 429


class Shed(SemaforoError):
    """Admitted, then dropped to make room for work of a higher class."""

    code = "shed"
    status = 503


class Expired(SemaforoError):
    """The deadline passed, or could no longer be met, before an answer was ready."""

    code = "expired"
    status = 504


class Cancelled(SemaforoError):
    """The client went away, or asked to stop."""

    code = "cancelled"
    status = 499


class ProtocolError(SemaforoError):
    """Gateway and worker do not speak the same frames."""

    code = "protocol"
    status = 502


class JournalError(SemaforoError):
    """A journal cannot be read, or a replay differs from what was recorded."""

    code = "journal"


ERRORS: dict[str, type[SemaforoError]] = {
    cls.code: cls
    for cls in (
        ConfigError, ArtefactError, RuntimeLoadError, InvalidRequest, Unauthenticated, Forbidden, NotFound,
        MethodNotAllowed, RequestTimeout, Conflict, TooLarge, ModelFailed, Unsatisfiable, NotReady, Refused,
        BudgetSpent, Shed, Expired, Cancelled, ProtocolError, JournalError,
    )
}  # fmt: skip
"""Errors by code: how an error that travelled as (code, message) becomes one again."""


def error_from(code: str, message: str, retry_after_s: float | None = None) -> SemaforoError:
    """Rebuild an error from its code and message; an unknown code gives the root of the tree."""
    return ERRORS.get(code, SemaforoError)(message, retry_after_s=retry_after_s)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word nearest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""
