"""A chat's answer as it comes, for programs that wait and for programs that await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol, Self

from semaforo.api.answer import FleetAnswer
from semaforo.wire.payload import Restart


class Chatting(Protocol):
    """Where the pieces of a chat come from, waiting."""

    def piece(self) -> str | None:
        """Return the next piece; None at the end."""
        ...

    def answer(self, text: str) -> FleetAnswer | None:
        """Return who served the whole text; asked at the end."""
        ...

    def close(self) -> None:
        """Stop the work."""
        ...


class ChatStream(Iterator[str]):
    """A chat's answer as it comes: an iterator of pieces of text.

    A piece that is a `semaforo.Restart` takes back all before it, and itself.

    Attributes:
        answer: Who served it and why, once it has ended; None before.
    """

    def __init__(self, source: Chatting) -> None:
        self.answer: FleetAnswer | None = None
        self._source = source
        self._said: list[str] = []

    def __next__(self) -> str:
        piece = self._source.piece()
        if piece is None:
            self.answer = self.answer or self._source.answer("".join(self._said))
            raise StopIteration
        _take(self._said, piece)
        return piece

    def text(self) -> str:
        """Read to the end and return the whole text."""
        for _ in self:
            pass
        return "".join(self._said)

    def close(self) -> None:
        """Stop the work; what was not read is dropped."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncChatting(Protocol):
    """Where the pieces of a chat come from, awaited."""

    async def piece(self) -> str | None:
        """Return the next piece; None at the end."""
        ...

    def answer(self, text: str) -> FleetAnswer | None:
        """Return who served the whole text; asked at the end."""
        ...

    def close(self) -> None:
        """Stop the work."""
        ...


class AsyncChat:
    """A chat's answer as it comes: an asynchronous iterator of pieces of text.

    A piece that is a `semaforo.Restart` takes back all before it, and itself.

    Attributes:
        answer: Who served it and why, once it has ended; None before.
    """

    def __init__(self, source: AsyncChatting) -> None:
        self.answer: FleetAnswer | None = None
        self._source = source
        self._said: list[str] = []

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await self._source.piece()
        if piece is None:
            self.answer = self.answer or self._source.answer("".join(self._said))
            raise StopAsyncIteration
        _take(self._said, piece)
        return piece

    async def text(self) -> str:
        """Read to the end and return the whole text."""
        async for _ in self:
            pass
        return "".join(self._said)

    def close(self) -> None:
        """Stop the work; what was not read is dropped."""
        self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _take(said: list[str], piece: str) -> None:
    if isinstance(piece, Restart):
        said.clear()
    else:
        said.append(piece)
