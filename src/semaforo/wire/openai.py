"""OpenAI's chat protocol at the door: a body checked, an error in its form, the list of models.

Rules this module keeps:

1. A field that decides something here is checked here, and the error names it in `param`.
2. Every other field is the model's own affair and stays in the body as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from semaforo.entities import Priority
from semaforo.errors import InvalidRequest, NotFound, SemaforoError, nearest
from semaforo.wire.openai_fields import InvalidField, integer, named_model, shown, tier, typed

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_FORMATS = ("text", "json_object", "json_schema")
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class UnknownModel(NotFound):
    """No model, alias or task type that does what was asked for has the name that was given."""

    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, names: Iterable[str], does: str = "can be asked here") -> None:
        known = list(names)
        listed = f" There are {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else ""
        super().__init__(f"nothing that {does} is named '{model}'.{nearest(model, known)}{listed}")


class ChatCall(msgspec.Struct, frozen=True):
    """A chat body that was checked.

    Attributes:
        model: Model, alias or task type as asked for, or ``auto``.
        body: The whole body as it was sent.
        stream: Whether the client wants server-sent events.
        include_usage: Whether a stream ends with a chunk of usage.
        max_tokens: Most tokens of the answer; 0 = not said.
        priority: Class by ``service_tier``; None where it says nothing.
    """

    model: str
    body: dict[str, Any]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int = 0
    priority: Priority | None = None


def parse_chat(body: Any) -> ChatCall:
    """Check a decoded body.

    Raises:
        InvalidField: What is wrong with which field.
        InvalidRequest: The body is no object.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object with 'model' and 'messages'")
    model = named_model(body)
    _messages(body.get("messages"))
    stream = typed(body, "stream", bool, "true or false") or False
    options = typed(body, "stream_options", dict, "an object")
    if options is not None and not stream:
        raise InvalidField("stream_options", "is allowed only where 'stream' is true")
    if integer(body, "n", 1) > 1:
        raise InvalidField("n", "one request gives one choice; send as many requests as you want choices")
    _choices(body)
    return ChatCall(
        model,
        body,
        stream,
        bool(options and typed(options, "include_usage", bool, "true or false", "stream_options.")),
        integer(body, "max_completion_tokens", 0) or integer(body, "max_tokens", 0),
        tier(body),
    )


def error_object(error: SemaforoError) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    kind = _ERROR_TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
    fields = {
        "message": error.message,
        "type": kind,
        "param": getattr(error, "param", None),
        "code": error.code,
    }
    return {"error": fields}


def retry_headers(error: SemaforoError) -> list[tuple[bytes, bytes]]:
    """Return what tells OpenAI's clients, beside ``Retry-After``, whether and when to try again."""
    if error.retry_after_s is not None:
        # These clients read it before Retry-After, which knows whole seconds only.
        return [(b"retry-after-ms", b"%d" % max(1, -int(-error.retry_after_s * 1000 // 1)))]
    # These clients repeat every 5xx; a refusal that waiting cannot change would only come again.
    return [(b"x-should-retry", b"false")] if error.code in ("refused", "unsatisfiable") else []


def model_object(name: str, created_s: int, owned_by: str = "semaforo") -> dict[str, Any]:
    """Return one entry of ``/v1/models``; `created_s` is in seconds since 1970."""
    return {"id": name, "object": "model", "created": created_s, "owned_by": owned_by}


def model_list(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answer of ``/v1/models``."""
    return {"object": "list", "data": list(entries)}


def _messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidField("messages", "give at least one message, like {'role': 'user', 'content': '…'}")
    for number, message in enumerate(messages):
        at = f"messages[{number}]"
        if not isinstance(message, dict):
            raise InvalidField(at, "a message is an object with 'role' and 'content'")
        role = message.get("role")
        if role not in _ROLES:
            hint = nearest(role, _ROLES) if isinstance(role, str) else ""
            raise InvalidField(f"{at}.role", f"{shown(role)} is none of {', '.join(_ROLES)}.{hint}")
        calls = typed(message, "tool_calls", list, "a list", f"{at}.")
        _content(message, at, optional=role == "assistant" and bool(calls or message.get("function_call")))


def _content(message: Mapping[str, Any], at: str, *, optional: bool) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, list):
        for number, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise InvalidField(f"{at}.content[{number}]", "a part is an object with a 'type'")
        return
    if content is not None or not (optional or message.get("refusal") or message.get("audio")):
        raise InvalidField(f"{at}.content", f"must be a text or a list of parts, not {shown(content)}")


def _choices(body: Mapping[str, Any]) -> None:
    for name in ("tools", "functions", "modalities"):
        typed(body, name, list, "a list")
    form = typed(body, "response_format", dict, "an object")
    if form is None:
        return
    kind = form.get("type")
    if kind not in _FORMATS:
        hint = nearest(kind, _FORMATS) if isinstance(kind, str) else ""
        raise InvalidField("response_format.type", f"{shown(kind)} is none of {', '.join(_FORMATS)}.{hint}")
    if kind == "json_schema":
        typed(form, "json_schema", dict, "an object with 'name' and 'schema'", "response_format.", must=True)
