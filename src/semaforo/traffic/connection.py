"""One kept-alive HTTP/1.1 connection of a generator; at most one request at a time."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools
import msgspec

from semaforo.traffic.chat import ChatWatch

_MOST_SAID = 4096
_FRAMED = (b"content-length", b"transfer-encoding")


class Answered(msgspec.Struct, gc=False):
    """The end of one request.

    Attributes:
        status: HTTP status; 0 = the connection broke.
        who: ``model/variant`` as a ``semaforo-*`` header says, or "".
        said: Beginning of the body, where the status is no success.
        chat: What was noted of a chat's answer.
    """

    status: int
    who: str = ""
    said: bytes = b""
    chat: ChatWatch | None = None


class Owner(Protocol):
    """Who sends on connections and hears of what comes."""

    def ready(self, connection: Connection) -> None:
        """A connection can take a request."""
        ...

    def answered(self, number: int, answer: Answered) -> None:
        """A request has ended."""
        ...

    def lost(self, connection: Connection) -> None:
        """A connection is gone; its request, if any, has ended."""
        ...


class Connection(asyncio.Protocol):
    """Sends requests one after another and reads their answers."""

    def __init__(self, owner: Owner) -> None:
        self.sent_bytes = self.received_bytes = 0
        self._owner = owner
        self._number = -1
        self._chat: ChatWatch | None = None
        self._transport: asyncio.Transport
        self._new_parser()

    def send(self, number: int, parts: tuple[bytes, ...], chat: str) -> None:
        """Send request `number`."""
        self._number = number
        self._chat = ChatWatch(chat == "stream") if chat else None
        for part in parts:
            self.sent_bytes += len(part)
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    def close(self) -> None:
        """End the connection."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._owner.ready(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(Answered(0, said=f"the answer is no HTTP/1.1: {error}".encode()))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._number >= 0:
            if self._in_body and not self._framed:
                # A body of no stated length ends with its connection (RFC 9112, 6.3).
                self.on_message_complete(closing=True)
            else:
                reason = f"the connection broke: {error}" if error else "the server closed the connection"
                self._end(Answered(0, said=reason.encode()))
        self._owner.lost(self)

    # --- called by the parser ----------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        name = name.lower()
        if name == b"semaforo-variant":
            self._variant = value
        elif name == b"semaforo-model":
            self._model = value
        elif name in _FRAMED:
            self._framed = True

    def on_headers_complete(self) -> None:
        """Take in the end of the headers."""
        self._in_body = True
        self._good = 200 <= self._parser.get_status_code() < 300

    def on_body(self, data: bytes) -> None:
        """Take in a piece of the body."""
        if not self._good:
            if len(self._said) < _MOST_SAID:
                self._said += data
        elif self._chat is not None:
            self._chat.feed(data)

    def on_message_complete(self, closing: bool = False) -> None:
        """Take in the end of an answer."""
        status = self._parser.get_status_code()
        if status < 200:
            self._clear()
            return
        model, variant = self._model, self._variant
        keep = not closing and self._parser.should_keep_alive()
        chat = self._chat if self._good else None
        if chat is not None:
            chat.close()
        self._end(
            Answered(status, (model + b"/" + variant).decode("latin-1") if model else "", self._said, chat)
        )
        self._clear()
        if keep:
            self._owner.ready(self)
        elif not closing:
            self._transport.close()

    def _end(self, answer: Answered) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            self._owner.answered(number, answer)

    def _clear(self) -> None:
        self._model = self._variant = self._said = b""
        self._in_body = self._framed = self._good = False

    def _new_parser(self) -> None:
        self._clear()
        self._parser = httptools.HttpResponseParser(self)
