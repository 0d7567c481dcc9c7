"""Which capabilities a chat needs of the model that answers it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_PART_NEEDS = {"image_url": "vision", "input_image": "vision", "input_audio": "audio"}


def chat_needs(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an OpenAI chat body needs, sorted: ``audio``, ``schema``, ``tools``, ``vision``.

    Tools that `tool_choice` forbids are not needed; a plain JSON mode (``json_object``) needs no schema.
    """
    return tuple(sorted(set(_needs(body))))


def _needs(body: Mapping[str, Any]) -> Iterator[str]:
    if (body.get("tools") and body.get("tool_choice") != "none") or (
        body.get("functions") and body.get("function_call") != "none"
    ):
        yield "tools"
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        yield "schema"
    if "audio" in (body.get("modalities") or ()):
        yield "audio"
    for message in body.get("messages") or ():
        if not isinstance(message, Mapping):
            continue
        if message.get("tool_calls") or message.get("role") in ("tool", "function"):
            yield "tools"
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            need = _PART_NEEDS.get(part.get("type") or "") if isinstance(part, Mapping) else None
            if need:
                yield need
