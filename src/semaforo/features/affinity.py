"""The key of a session or prompt prefix, so that a replica that holds its cache can be preferred."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

PREFIX_BYTES = 4096
"""Bytes of the prefix that count: about a thousand tokens, from where a shared cache begins to matter."""


def chat_affinity(body: Mapping[str, Any], tenant: str = "") -> str:
    """Return 16 hex digits that are equal for chats which share a cache, or "" where nothing can be shared.

    A ``prompt_cache_key`` decides alone. Otherwise it is the tools, the system messages and the first other
    message, cut to `PREFIX_BYTES`: the turns of one conversation share it, and so do all conversations that
    begin with the same long system prompt. Tenants never share a key.
    """
    key = body.get("prompt_cache_key")
    named = isinstance(key, str) and key
    prefix = b"key\0" + str(key).encode("utf-8", "surrogatepass") if named else _prefix(body)
    if not prefix:
        return ""
    digest = hashlib.blake2b(prefix, digest_size=8, key=tenant.encode("utf-8", "surrogatepass")[:64])
    return digest.hexdigest()


def _prefix(body: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    size = 0
    tools = body.get("tools")
    if tools:
        parts.append(msgspec.json.encode(tools))
        size += len(parts[-1])
    for message in body.get("messages") or ():
        if size >= PREFIX_BYTES or not isinstance(message, Mapping):
            break
        parts.append(msgspec.json.encode([message.get("role"), message.get("content")]))
        size += len(parts[-1])
        if message.get("role") not in ("system", "developer"):
            break
    return b"".join(parts)[:PREFIX_BYTES]
