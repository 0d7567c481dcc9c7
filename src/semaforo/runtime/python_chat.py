"""Chats by a Python function or generator.

It may take ``messages``, ``body`` (the whole request) or any other field of the request by name, and gives texts,
deltas (dicts) or `ChatChunk`s; a text or delta counts as one token. ``stop`` and ``max_tokens`` are kept for it,
unless it takes the field itself, ``body``, or all fields (``**fields``).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from semaforo.errors import InvalidRequest
from semaforo.runtime.chat_limits import MOST, ChatLimits, limits_of, most_tokens
from semaforo.runtime.python_source import exited, signature_of
from semaforo.wire.payload import Chat, ChatChunk

_END = object()
_LIMITS = ("stop", *MOST)


class PythonChat:
    """A generator, or a function of ``messages``, that answers chats."""

    def __init__(self, call: Callable[..., Any], source: str, owner: Any, slots: int) -> None:
        self._call = call
        self._owner = owner
        self._parameters = tuple(signature_of(call, source).parameters.values())
        names = {parameter.name for parameter in self._parameters}
        all_fields = "body" in names or any(one.kind is one.VAR_KEYWORD for one in self._parameters)
        self._kept = frozenset(_LIMITS if all_fields else names.intersection(_LIMITS))
        self.slots = slots

    async def chat(self, request: Chat) -> AsyncIterator[ChatChunk]:
        """Stream the answer.

        Raises:
            InvalidRequest: A field that the function needs is missing, or a limit is of a wrong type.
        """
        limits = limits_of(request.body, self._kept) or ChatLimits()
        finished = False
        try:
            async with aclosing(self._parts(self._arguments(request.body))) as parts:
                async for part in parts:
                    for chunk in limits.feed(_chunk(part)):
                        finished = finished or chunk.finish_reason is not None
                        yield chunk
                    if limits.over:
                        break
        except SystemExit as error:
            raise exited(error) from error
        for chunk in limits.close():
            yield chunk
        if not finished:
            yield ChatChunk(finish_reason="stop", tokens=0)

    async def _parts(self, given: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        if inspect.isasyncgenfunction(self._call):
            async with aclosing(self._call(**given)) as parts:
                async for part in parts:
                    yield part
        elif inspect.isgeneratorfunction(self._call):
            steps: Generator[Any, None, None] = self._call(**given)
            step: asyncio.Future[Any] | None = None
            try:
                while True:
                    step = asyncio.ensure_future(asyncio.to_thread(_stay, next, steps, _END))
                    if (part := await asyncio.shield(step)) is _END:
                        break
                    yield part
            finally:
                if step is None or step.done():
                    steps.close()
                else:
                    # In the middle of a step the generator runs in a thread: it is closed as soon as that ends.
                    step.add_done_callback(lambda ended: _close_later(ended, steps))
        elif inspect.iscoroutinefunction(self._call):
            yield await self._call(**given)
        else:
            yield await asyncio.to_thread(_stay, self._call, **given)

    def memory_bytes(self) -> int:
        """Return 0: what a Python object holds is not known."""
        return 0

    def close(self) -> None:
        """Call the object's own ``close``, where it has one."""
        if callable(getattr(self._owner, "close", None)):
            self._owner.close()

    def _arguments(self, body: Mapping[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for parameter in self._parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update({name: value for name, value in body.items() if name not in given})
            elif parameter.name == "body":
                given["body"] = dict(body)
            elif parameter.name in MOST and (most := most_tokens(body)):
                given[parameter.name] = most
            elif parameter.name in body:
                given[parameter.name] = body[parameter.name]
            elif parameter.default is parameter.empty:
                raise InvalidRequest(f"the model needs the field '{parameter.name}', which the request lacks")
        return given


def _chunk(part: Any) -> ChatChunk:
    if isinstance(part, ChatChunk):
        return part
    if isinstance(part, str):
        return ChatChunk(delta={"content": part})
    if isinstance(part, dict):
        return ChatChunk(delta=part)
    raise TypeError(f"a chat model yields texts, dicts or chunks, not a {type(part).__name__}")


def _close_later(ended: asyncio.Future[Any], steps: Generator[Any, None, None]) -> None:
    if not ended.cancelled() and ended.exception() is not None:
        return

    def close() -> None:
        # Whoever asked has gone: nobody is left to hear of an error.
        with suppress(Exception):
            steps.close()

    ended.get_loop().run_in_executor(None, close)


def _stay(call: Callable[..., Any], *values: Any, **arguments: Any) -> Any:
    """Call on a thread of asyncio's pool, which hands on no SystemExit without ending the loop."""
    try:
        return call(*values, **arguments)
    except SystemExit as error:
        raise exited(error) from error
