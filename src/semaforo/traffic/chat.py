"""What a generator notes of the answer to a chat: when its tokens came, how many, and whether it is whole."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from semaforo.errors import ProtocolError
from semaforo.wire.sse import SseDecoder


class _Message(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatWatch:
    """Reads one answer as it comes.

    Attributes:
        first_at, last_at: When its first and last token came (monotonic); 0 = none did.
        tokens: As its usage says, else as many as there were pieces.
        fault: Why it is not whole, or "".
    """

    def __init__(self, stream: bool) -> None:
        self.first_at = self.last_at = 0.0
        self.tokens = 0
        self.fault = ""
        self._events = SseDecoder() if stream else None
        self._parts: list[bytes] = []
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take in a piece of the body."""
        if self._events is None:
            self._parts.append(data)
        elif not self.fault:
            try:
                for event in self._events.feed(data):
                    self._take(event.data)
            except ProtocolError as error:
                self.fault = str(error)

    def close(self) -> None:
        """Take in the end of the body."""
        if self._events is None:
            self._take(b"".join(self._parts))
            return
        for event in self._events.close():
            self._take(event.data)
        if not self._ended and not self.fault:
            self.fault = "the stream ended without a finish_reason or [DONE]"

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._ended = True
            return
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.fault = self.fault or "the answer to a chat is no JSON as OpenAI's protocol has it"
            return
        if chunk.error is not None:
            said = chunk.error.get("message") if isinstance(chunk.error, dict) else chunk.error
            self.fault = f"in the stream: {said}"
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self._ended = True
            delta = choice.delta
            if delta is not None and (delta.content or delta.reasoning_content or delta.tool_calls):
                self.last_at = time.monotonic()
                self.first_at = self.first_at or self.last_at
                self.tokens += 1
        if chunk.usage is not None and chunk.usage.completion_tokens:
            self.tokens = chunk.usage.completion_tokens
