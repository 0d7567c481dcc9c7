from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaforo.errors import ProtocolError
from semaforo.wire.sse import SseDecoder, SseEvent, encode

STREAM = (
    b"\xef\xbb\xbfdata: one\n\n"
    b": a comment\r\ndata: two\r\ndata:three\r\n\r\n"
    b"event: error\rdata: four \xe2\x80\xa8 still four\r\r"
    b"id: 7\nretry: 10\nevent: lost\n\n"
    b"data\n\ndata: \xc3\xa9\n\n"
)
EVENTS = [
    SseEvent(b"one"),
    SseEvent(b"two\nthree"),
    SseEvent("four \u2028 still four".encode(), "error"),
    SseEvent(b""),
    SseEvent("é".encode()),
]


def decode(parts: list[bytes]) -> list[SseEvent]:
    decoder = SseDecoder()
    events = [event for part in parts for event in decoder.feed(part)]
    return events + decoder.close()


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_stream_cut_at_any_byte_gives_the_same_events(at: int) -> None:
    assert decode([STREAM[:at], b"", STREAM[at:]]) == EVENTS


def test_a_stream_that_comes_byte_by_byte_gives_the_same_events() -> None:
    assert decode([STREAM[i : i + 1] for i in range(len(STREAM))]) == EVENTS


def test_an_event_is_given_as_soon_as_its_empty_line_is_there_even_by_a_bare_cr() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [SseEvent(b"a")]
    assert decoder.feed(b"\ndata: b\n\n") == [SseEvent(b"b")]


def test_the_end_gives_the_event_that_lacks_its_empty_line() -> None:
    assert decode([b"data: a\n\ndata: [DONE]"]) == [SseEvent(b"a"), SseEvent(b"[DONE]")]
    assert decode([b"data: a\n\n: only a comment"]) == [SseEvent(b"a")]


@pytest.mark.parametrize("line", [b"x" * 60, b"data: " + b"x" * 20 + b"\n"])
def test_an_event_without_end_is_refused(line: bytes) -> None:
    def feed_on(decoder: SseDecoder) -> None:
        for _ in range(20):
            decoder.feed(line)

    with pytest.raises(ProtocolError, match="longer than 100 bytes"):
        feed_on(SseDecoder(max_event_bytes=100))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back_however_it_is_cut(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
    stream = b"".join(encode(text.encode()) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [event.data.decode() for event in decode(parts)] == texts
