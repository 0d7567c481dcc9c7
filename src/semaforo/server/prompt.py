"""A prompt as V2 takes it, at its generate extension and over gRPC, turned into a chat."""

from __future__ import annotations

from typing import Any

from semaforo.entities import Ref, Request
from semaforo.errors import InvalidRequest
from semaforo.features import chat_affinity, chat_needs, chat_tokens
from semaforo.wire.contract import Asked
from semaforo.wire.payload import Chat


def chat_of(
    request_id: str, target: str, version: str, text: str, fields: dict[str, Any], asked: Asked
) -> tuple[Request, Chat]:
    """Return the request and the chat that a prompt amounts to.

    Args:
        request_id: Id of the request.
        target, version: As asked for.
        text: The prompt, said by the user.
        fields: Fields of the chat's body, such as ``max_tokens``.
        asked: The contract; its parameters join the body.

    Raises:
        InvalidRequest: ``max_tokens`` is no number of tokens.
    """
    body = fields | asked.parameters
    body.pop("stream", None)
    body |= {"model": target, "messages": [{"role": "user", "content": text}]}
    limit = body.get("max_tokens", 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InvalidRequest("max_tokens is a whole number, 1 or more")
    work = Request(
        request_id,
        target,
        version,
        contract=asked.contract,
        ref=Ref(1, len(text)),
        stream=True,
        needs=chat_needs(body),
        prompt_tokens=chat_tokens(body),
        max_tokens=limit,
        affinity=asked.session or chat_affinity(body, asked.contract.tenant),
        traceparent=asked.traceparent,
    )
    return work, Chat(body)


def text_of(delta: dict[str, Any]) -> str:
    """Return the text that a chunk adds."""
    content = delta.get("content")
    return content if isinstance(content, str) else ""
