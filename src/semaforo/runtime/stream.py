"""Driving one chat to its end, and counting what it used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import msgspec

from semaforo.errors import ModelFailed
from semaforo.runtime.base import ChatModel
from semaforo.wire.payload import Chat, ChatChunk


class StreamEnd(msgspec.Struct, frozen=True):
    """What a stream used: seconds, and settled counts of tokens."""

    service_s: float
    prompt_tokens: int
    output_tokens: int


class Stalled(ModelFailed):
    """A stream gave nothing for too long."""


async def drive(
    model: ChatModel, request: Chat, on_chunk: Callable[[ChatChunk], None], *, stall_s: float
) -> StreamEnd:
    """Run one chat and hand each chunk on; cancelling the task closes the stream.

    Args:
        model: What answers.
        request: The chat.
        on_chunk: Called with each chunk as it comes.
        stall_s: Most seconds between two chunks.

    Raises:
        Stalled: Nothing came for `stall_s` seconds.
        SemaforoError: What the model says went wrong.
    """
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    tokens = 0
    usage: dict[str, object] = {}
    try:
        async with asyncio.timeout(stall_s) as limit:
            async with aclosing(cast("AsyncGenerator[ChatChunk, None]", model.chat(request))) as chunks:
                async for chunk in chunks:
                    limit.reschedule(loop.time() + stall_s)
                    tokens += chunk.tokens
                    usage = chunk.usage or usage
                    on_chunk(chunk)
    except TimeoutError:
        if not limit.expired():
            raise
        raise Stalled(f"the model gave nothing for {stall_s:g} s") from None
    return StreamEnd(
        time.perf_counter() - begun,
        _count(usage.get("prompt_tokens"), 0),
        _count(usage.get("completion_tokens"), tokens),
    )


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
