"""What a request asks in words, apart from everything else about it: what a semantic cache compares."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from semaforo.entities import Request, TaskType
from semaforo.features import chat_affinity
from semaforo.live.cache import NO_MATTER, content
from semaforo.wire.payload import Array, Chat, ChatChunk, Payload, Tensors


class Question(msgspec.Struct, frozen=True):
    """A question.

    Attributes:
        text: What is asked, in words.
        rest: Digest of all else: who asks, what for, what was said before, and every parameter.
    """

    text: str
    rest: bytes


def question_of(request: Request, payload: Payload, task: TaskType) -> Question | None:
    """Return the question of a request; None where its words do not stand for it.

    Of a chat it is what the user says last, in text alone; of tensors the one text of one row. A session may
    remember, so its requests are not compared.
    """
    # What is private is not given to a request that says it is less so.
    contract = request.contract
    who = (contract.tenant, int(contract.privacy), request.target, request.version, request.variant)
    digest = sha256(msgspec.msgpack.encode(who))
    if isinstance(payload, Chat):
        body = payload.body
        # What the affinity of a chat is made of is in its body; any other one is a session.
        if request.affinity not in ("", chat_affinity(body, request.contract.tenant)) or "prompt" in body:
            return None
        messages = body.get("messages")
        text = _last(messages)
        if text is None or not isinstance(messages, list):
            return None
        rest = {k: v for k, v in body.items() if k not in NO_MATTER and k != "messages"}
        digest.update(msgspec.json.encode([messages[:-1], rest], order="sorted"))
        return Question(text, digest.digest())
    name = _input(task)
    array = payload.arrays.get(name)
    if request.affinity or array is None or array.size != 1:
        return None
    text = _text(array)
    if text is None:
        return None
    for other in sorted(payload.arrays):
        given = payload.arrays[other]
        digest.update(msgspec.msgpack.encode((other, given.dtype.str, given.shape)))
        if other != name:
            digest.update(content(given))
    digest.update(msgspec.json.encode((payload.parameters, payload.outputs), enc_hook=repr))
    return Question(text, digest.digest())


def said_text(said: Tensors | tuple[ChatChunk, ...]) -> str | None:
    """Return the text of a kept chat; None where it holds more than text, such as calls of tools."""
    if isinstance(said, Tensors):
        return None
    if any(chunk.delta.get("tool_calls") for chunk in said):
        return None
    return "".join(str(chunk.delta.get("content") or "") for chunk in said)


def _input(task: TaskType) -> str:
    semantic = task.cache.semantic
    if semantic is not None and semantic.input:
        return semantic.input
    texts = [spec.name for spec in task.inputs if spec.dtype == "BYTES"]
    return texts[0] if len(texts) == 1 else ""


def _last(messages: Any) -> str | None:
    """Return what the user says last; None where somebody else does, or it is more than text."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
        return None
    message = messages[-1]
    if message.get("role") != "user" or message.keys() - {"role", "content"}:
        return None
    said = message.get("content")
    if isinstance(said, list):
        parts = [p for p in said if isinstance(p, Mapping) and p.keys() == {"type", "text"}]
        if len(parts) != len(said):
            return None
        said = "\n".join(str(part["text"]) for part in parts)
    return said if isinstance(said, str) and said.strip() else None


def _text(array: Array) -> str | None:
    item = array.reshape(-1)[0]
    try:
        text = item.decode() if isinstance(item, bytes) else item
    except UnicodeDecodeError:
        return None
    return text if isinstance(text, str) and text.strip() else None
