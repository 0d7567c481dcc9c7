"""What an OpenAI-compatible server answers, as chunks and errors.

Rules this module keeps:

1. What is not in OpenAI's form is the server's failure (`ModelFailed`), never the client's.
2. An error inside a stream is an error, whether the server names it by event, by field or by code.
"""

from __future__ import annotations

from typing import Any

import msgspec

from semaforo.errors import ModelFailed, Refused, SemaforoError
from semaforo.wire.completion import restarts
from semaforo.wire.payload import ChatChunk
from semaforo.wire.sse import SseEvent

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_LIMIT_CODES = (429, "429", "rate_limit_exceeded", "rate_limit_error")
_ONE_TOKEN_BYTES = 16


class UpstreamError(msgspec.Struct, frozen=True):
    """An error object as far as it could be read: its text, and its ``code`` or ``type`` ("" = none)."""

    message: str
    code: str | int = ""


def parse_error(body: Any) -> UpstreamError | None:
    """Return the error that a decoded body holds, in any of the forms that servers use, or None."""
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str) and error:
        return UpstreamError(error)
    if isinstance(error, dict):
        code = error.get("code") or error.get("type")
        message = error.get("message")
        return UpstreamError(
            message if isinstance(message, str) and message else msgspec.json.encode(error).decode(),
            code if isinstance(code, str | int) else "",
        )
    if body.get("object") == "error" or "detail" in body:
        message = body.get("message") or body.get("detail")
        return UpstreamError(message if isinstance(message, str) else msgspec.json.encode(message).decode())
    return None


def parse_event(event: SseEvent) -> ChatChunk:
    """Return the chunk that an event of a stream holds; its `tokens` are an estimate.

    Raises:
        Refused: The event says that a limit is reached.
        ModelFailed: The event is an error, or no chunk.
    """
    body = _decode(event.data)
    error = parse_error(body)
    if error is None and event.name == "error":
        error = UpstreamError(event.data[:500].decode("utf-8", "replace"))
    if error is not None:
        raise stream_error(error)
    choice = _choice(body)
    delta = choice.get("delta") or _continued(choice) or {}
    if not isinstance(delta, dict):
        raise _malformed(event.data)
    return _chunk(choice, delta, body)


def parse_completion(data: bytes) -> ChatChunk:
    """Return a whole ``chat.completion``, or ``text_completion``, as one chunk.

    Raises:
        Refused: The body says that a limit is reached.
        ModelFailed: The body is an error, or no completion.
    """
    body = _decode(data)
    error = parse_error(body)
    if error is not None:
        raise stream_error(error)
    choice = _choice(body)
    message = choice.get("message") or _continued(choice)
    if not isinstance(message, dict):
        raise _malformed(data)
    chunk = _chunk(choice, message, body)
    chunk.finish_reason = chunk.finish_reason or ("tool_calls" if message.get("tool_calls") else "stop")
    stated = (chunk.usage or {}).get("completion_tokens")
    if isinstance(stated, int):
        chunk.tokens = stated
    return chunk


def stream_error(error: UpstreamError) -> SemaforoError:
    """Return what an error without a status of its own means here."""
    if error.code in _LIMIT_CODES:
        return Refused(f"the upstream is over its limit: {error.message}", retry_after_s=1.0)
    return ModelFailed(f"the upstream failed: {error.message}")


def delta_tokens(delta: dict[str, Any]) -> int:
    """Estimate the tokens of a delta: one for a short text, a quarter of the bytes of a longer one."""
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(delta))
    return 0 if not size else 1 if size <= _ONE_TOKEN_BYTES else (size + 3) // 4


def _continued(choice: dict[str, Any]) -> dict[str, Any] | None:
    """Return what goes on with a prompt (a ``text_completion``) as a chat would say it."""
    text = choice.get("text")
    return {"content": text} if isinstance(text, str) else None


def _texts(delta: dict[str, Any]) -> list[str]:
    texts = [delta.get(name) for name in _TEXTS]
    for call in delta.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            texts += [function.get("name"), function.get("arguments")]
    return [text for text in texts if isinstance(text, str)]


def _chunk(choice: dict[str, Any], delta: dict[str, Any], body: dict[str, Any]) -> ChatChunk:
    finish, usage, logprobs = choice.get("finish_reason"), body.get("usage"), choice.get("logprobs")
    return ChatChunk(
        delta,
        finish if isinstance(finish, str) and finish else None,
        usage if isinstance(usage, dict) and usage else None,
        delta_tokens(delta),
        logprobs if isinstance(logprobs, dict) else None,
        restarts(body),
    )


def _choice(body: Any) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if choices is None and isinstance(body, dict) and body.get("usage"):
        return {}
    if not isinstance(choices, list):
        raise _malformed(msgspec.json.encode(body))
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
            return choice
    return {}


def _decode(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _malformed(data) from None


def _malformed(data: bytes) -> ModelFailed:
    return ModelFailed(f"the upstream sent what is no completion: {data[:200].decode('utf-8', 'replace')}")
