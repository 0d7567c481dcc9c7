"""OpenAI's chat protocol from the asking side: the bytes of a stream → pieces of text."""

from __future__ import annotations

from typing import Any

import msgspec

from semaforo.errors import ModelFailed, ProtocolError, error_from
from semaforo.wire.completion import restarts
from semaforo.wire.payload import Restart
from semaforo.wire.sse import SseDecoder, SseEvent


class Pieces:
    """Follows one streamed answer to its end.

    Attributes:
        done: Whether the answer is complete.
    """

    def __init__(self) -> None:
        self._decoder = SseDecoder()
        self.done = False

    def feed(self, part: bytes) -> list[str]:
        """Take the next bytes and return the pieces of text they complete.

        Raises:
            SemaforoError: The error that ended the answer, of the class it had at the server.
        """
        pieces: list[str] = []
        for event in self._decoder.feed(part):
            if event.data.strip() == b"[DONE]":
                self.done = True
            elif not self.done:
                pieces += self._texts(event)
        return pieces

    def close(self) -> None:
        """Take the end of the stream.

        Raises:
            ModelFailed: The answer is not complete.
        """
        if not self.done:
            raise ModelFailed("the server ended the stream before the end of the answer")

    def _texts(self, event: SseEvent) -> list[str]:
        try:
            body: Any = msgspec.json.decode(event.data)
            if "error" in body:
                said = body["error"]
                raise error_from(str(said.get("code")), str(said.get("message")))
            deltas = [choice["delta"] for choice in body["choices"]]
            texts = [delta["content"] for delta in deltas if isinstance(delta.get("content"), str)]
            return [Restart("".join(texts))] if restarts(body) else texts
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            shown = event.data[:200].decode("utf-8", "replace")
            raise ProtocolError(f"the server sent what is no chunk of a chat: {shown}") from None
