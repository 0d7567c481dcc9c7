"""Server-sent events: bytes in, events out, wherever the chunks are cut; and the other way round.

Rules this module keeps (WHATWG HTML, section 9.2.6, "Interpreting an event stream"):

1. A line ends with CRLF, LF or CR; only these, so that U+2028 inside JSON is text.
2. A line that begins with a colon is a comment; ``data`` lines of one event are joined by line feeds.
3. An empty line ends an event; an event without data is nothing.

Where it differs: `SseDecoder.close` gives the event that the end of the stream left without its empty line,
because some servers end that way. Whether it is whole is for the caller to tell from its content.
"""

from __future__ import annotations

import re

import msgspec

from semaforo.errors import ProtocolError

DONE = b"data: [DONE]\n\n"
"""What ends a stream in OpenAI's protocol."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True):
    """One event: its data, and its name where it has one."""

    data: bytes
    name: str = ""


class SseDecoder:
    """Turns the bytes of one stream into events."""

    def __init__(self, max_event_bytes: int = 16_777_216) -> None:
        """Start at the beginning of a stream; a longer event than `max_event_bytes` is an error."""
        self._max = max_event_bytes
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = ""
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes and return the events they complete.

        Raises:
            ProtocolError: An event is longer than may be.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        events: list[SseEvent] = []
        start = 0
        for end in _LINE_END.finditer(chunk):
            self._tail.append(chunk[start : end.start()])
            line = b"".join(self._tail)
            self._tail.clear()
            self._tail_bytes = 0
            start = end.end()
            event = self._line(line)
            if event is not None:
                events.append(event)
        rest = chunk[start:]
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        self._check()
        # A CR that ends the chunk has ended its line already; a LF that follows belongs to it.
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        return events

    def close(self) -> list[SseEvent]:
        """End the stream and return the event it left unfinished, if any."""
        line = b"".join(self._tail)
        self._tail.clear()
        self._tail_bytes = 0
        if line:
            self._line(line)
        event = self._line(b"")
        return [] if event is None else [event]

    def _line(self, line: bytes) -> SseEvent | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            if not self._data:
                self._name = ""
                return None
            event = SseEvent(b"\n".join(self._data), self._name)
            self._data.clear()
            self._data_bytes = 0
            self._name = ""
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value)
            self._check()
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _check(self) -> None:
        if self._tail_bytes + self._data_bytes > self._max:
            raise ProtocolError(f"a server-sent event is longer than {self._max} bytes")


def encode(data: bytes) -> bytes:
    """Write one event whose data holds no line break, as compact JSON never does."""
    return b"data: " + data + b"\n\n"
