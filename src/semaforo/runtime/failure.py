"""What an exception of a model means to the scheduler."""

from __future__ import annotations

from typing import Literal

import msgspec

from semaforo.errors import InvalidRequest, ModelFailed, Refused, SemaforoError

Kind = Literal["error", "invalid", "cancelled", "upstream", "busy"]


class Failure(msgspec.Struct, frozen=True):
    """Why a batch or stream failed as a whole.

    Attributes:
        kind: As in `core.events.BatchFailed`; ``busy`` means that nothing was run.
        message: For the caller.
        retry_after_s: Seconds the model asks to be left alone; 0 = not said.
    """

    kind: Kind
    message: str
    retry_after_s: float = 0.0


def as_error(error: BaseException) -> SemaforoError:
    """Return an error of the tree; what a model raised on its own becomes `ModelFailed`."""
    if isinstance(error, SemaforoError):
        return error
    detail = str(error)
    return ModelFailed(f"the model raised {type(error).__name__}{': ' + detail if detail else ''}")


def classify(error: BaseException, *, begun: bool, remote: bool) -> Failure:
    """Say what kind of failure an exception is.

    Args:
        error: What was raised.
        begun: Whether a chunk has already gone out, so that a refusal is no longer without effect.
        remote: Whether the model is served elsewhere.
    """
    known = as_error(error)
    wait = known.retry_after_s or 0.0
    if isinstance(known, InvalidRequest):
        return Failure("invalid", known.message)
    if isinstance(known, Refused) and not begun:
        return Failure("busy", known.message, wait)
    return Failure("upstream" if remote else "error", known.message, wait)
