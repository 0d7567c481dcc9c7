"""What an upstream's status means, and whose fault it is: the client's, the operator's, or its own."""

from __future__ import annotations

import msgspec

from semaforo.errors import InvalidRequest, ModelFailed, Refused, SemaforoError
from semaforo.runtime.openai_options import Options
from semaforo.wire.ratelimit import RateLimits
from semaforo.wire.upstream import UpstreamError, parse_error

_FULL = (429, 503, 529)
_CLIENT = (400, 404, 409, 413, 415, 422)
_RETRY_S = 1.0


def status_error(status: int, body: bytes, limits: RateLimits, options: Options) -> SemaforoError:
    """Return the error for a response that is not 200.

    Args:
        status: Its status.
        body: Its body, which may be cut.
        limits: What its headers say.
        options: Names the upstream in messages.
    """
    error = _read(body)
    said = f": {options.without_key(error.message)}" if error.message else ""
    where = options.where
    if status in (401, 403):
        # Its message may quote the key, and the client can do nothing about it.
        return ModelFailed(
            f"{where} refused the operator's key ({status}); the key of this request was not at fault"
        )
    if status == 402 or error.code == "insufficient_quota":
        return ModelFailed(f"{where}: the operator's quota there is used up ({status}){said}")
    if status in _FULL:
        return Refused(f"{where} is over its limit ({status}){said}", retry_after_s=_retry_s(limits))
    if status == 404 and error.code in ("model_not_found", "not_found_error", ""):
        return ModelFailed(f"{where} does not know that model (404){said}")
    if status in _CLIENT:
        return InvalidRequest(f"{where} does not take this request ({status}){said}")
    return ModelFailed(f"{where} failed ({status}){said}")


def _retry_s(limits: RateLimits) -> float:
    if limits.retry_after_s is not None:
        return limits.retry_after_s
    if limits.reset_s is not None and 0 in (limits.requests_left, limits.tokens_left):
        return limits.reset_s
    return _RETRY_S


def _read(body: bytes) -> UpstreamError:
    try:
        error = parse_error(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    return error or UpstreamError(body[:500].decode("utf-8", "replace").strip())
