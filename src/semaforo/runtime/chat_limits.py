"""Ending a chat at its ``stop`` texts and after ``max_tokens``, for a model that does neither itself.

Rules this module keeps:

1. A stop text is found however chunks divide it, and nothing of it goes out: what may be its beginning is held
   back until more is known.
2. The chunk in which the most tokens are reached is the last one.
3. What was generated counts as used, whether it goes out or not.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from semaforo.errors import InvalidRequest
from semaforo.wire.payload import ChatChunk

MOST = ("max_completion_tokens", "max_tokens")
"""Two names of one limit; the first decides where both are given."""


class ChatLimits:
    """Passes on the chunks of one answer until a limit is reached.

    Attributes:
        over: Whether one is: the model is to be stopped, and nothing more is fed.
    """

    def __init__(self, stops: Sequence[str] = (), most: int = 0) -> None:
        """Begin an answer.

        Args:
            stops: Texts that end it.
            most: Most tokens; 0 = no limit.
        """
        self._stops = stops
        self._most = most
        self._tokens = 0
        self._held: list[ChatChunk] = []
        self.over = False

    def feed(self, chunk: ChatChunk) -> list[ChatChunk]:
        """Take the next chunk, and return those that may go out."""
        self._tokens += chunk.tokens
        chunks = self._until_stop(chunk) if self._stops else [chunk]
        if self.over or not self._most or self._tokens < self._most:
            return chunks
        self.over = True
        chunks += self.close()
        return chunks if chunks[-1].finish_reason else [*chunks, ChatChunk(finish_reason="length", tokens=0)]

    def close(self) -> list[ChatChunk]:
        """Take the end of the answer, and return what was held back."""
        held, self._held = self._held, []
        return held

    def _until_stop(self, chunk: ChatChunk) -> list[ChatChunk]:
        self._held.append(chunk)
        text = "".join(map(_text, self._held))
        # The stop that is whole first, so that it does not matter how the answer comes divided.
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            return self._cut(min(found)[1])
        if chunk.finish_reason or not isinstance(chunk.delta.get("content"), str):
            return self.close()
        return self._release(len(text) - _beginning(text, self._stops))

    def _release(self, end: int) -> list[ChatChunk]:
        """Let go of the chunks that lie wholly before a place in the held text."""
        count = 0
        for chunk in self._held:
            end -= len(_text(chunk))
            if end < 0:
                break
            count += 1
        released, self._held = self._held[:count], self._held[count:]
        return released

    def _cut(self, at: int) -> list[ChatChunk]:
        """End the answer at a place in the held text."""
        self.over = True
        out = self._release(at)
        left = at - sum(len(_text(chunk)) for chunk in out)
        rest = self.close()
        last = msgspec.structs.replace(
            rest[0],
            delta={**rest[0].delta, "content": _text(rest[0])[:left]},
            finish_reason="stop",
            tokens=sum(chunk.tokens for chunk in rest),
            usage=rest[-1].usage,
        )
        return [*out, last]


def limits_of(body: Mapping[str, Any], kept: Container[str]) -> ChatLimits | None:
    """Return the limits that a chat's body asks for, but for those that the model keeps; None = there are none.

    Raises:
        InvalidRequest: A limit is of a wrong type.
    """
    stops = () if "stop" in kept else _stops(body.get("stop"))
    most = 0 if any(name in kept for name in MOST) else most_tokens(body)
    return ChatLimits(stops, most) if stops or most else None


def most_tokens(body: Mapping[str, Any]) -> int:
    """Return the most tokens that a chat's body asks for; 0 = it does not say.

    Raises:
        InvalidRequest: It is no number of tokens.
    """
    for name in MOST:
        most = body.get(name) or 0
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise InvalidRequest(f"{name} is a whole number, 1 or more")
        if most:
            return most
    return 0


def _stops(stop: object) -> tuple[str, ...]:
    texts = stop if isinstance(stop, list) else [] if stop is None else [stop]
    if not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequest("stop is a text, or a list of texts, of one character or more each")
    return tuple(texts)


def _text(chunk: ChatChunk) -> str:
    content = chunk.delta.get("content")
    return content if isinstance(content, str) else ""


def _beginning(text: str, stops: Sequence[str]) -> int:
    """Return the most characters at the end of a text with which one of the stops could begin."""
    longest = min(len(text), max(map(len, stops)) - 1)
    sizes = range(longest, 0, -1)
    return next((n for n in sizes if any(stop.startswith(text[-n:]) for stop in stops)), 0)
