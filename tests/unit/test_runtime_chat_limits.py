"""Chats of Python functions end at `stop` and `max_tokens`, and the function stops with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.errors import InvalidRequest
from semaforo.runtime.chat_limits import ChatLimits
from semaforo.runtime.python import PythonRuntime
from semaforo.runtime.python_source import register, unregister
from semaforo.wire.completion import Completion
from semaforo.wire.payload import Chat, ChatChunk


def ask(function: Any, **body: Any) -> tuple[str, str, int, list[ChatChunk]]:
    """Return the answer's text, finish reason and tokens, and its chunks."""
    source = register("under_test", function)

    async def collect() -> list[ChatChunk]:
        model: Any = PythonRuntime().load(source, {}, "cpu")
        return [chunk async for chunk in model.chat(Chat({"messages": [], **body}))]

    try:
        chunks = asyncio.run(collect())
    finally:
        unregister(source)
    whole = Completion()
    for chunk in chunks:
        whole.add(chunk)
    text = "".join(chunk.delta.get("content", "") for chunk in chunks)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [whole.finish_reason]
    return text, whole.finish_reason, whole.tokens, chunks


class Counter:
    """Says the numbers from 0 on, for ever; `said` and `closed` tell what became of it."""

    def __init__(self) -> None:
        self.said = 0
        self.closed = False

    def sync(self, messages: Any) -> Iterator[str]:
        try:
            while True:
                self.said += 1
                yield f"{self.said} "
        finally:
            self.closed = True

    async def awaited(self, messages: Any) -> AsyncIterator[str]:
        with closing(self.sync(messages)) as steps:
            for step in steps:
                yield step


@pytest.mark.parametrize("how", ["sync", "awaited"])
def test_an_endless_model_is_stopped_at_its_limits(how: str) -> None:
    counter = Counter()
    assert ask(getattr(counter, how), max_tokens=3)[:3] == ("1 2 3 ", "length", 3)
    assert (counter.said, counter.closed) == (3, True)
    counter = Counter()
    assert ask(getattr(counter, how), stop="4")[:3] == ("1 2 3 ", "stop", 4)
    assert (counter.said, counter.closed) == (4, True)
    assert ask(getattr(Counter(), how), stop=["9 ", " 3"], max_tokens=50)[:3] == ("1 2", "stop", 3)
    assert ask(getattr(Counter(), how), stop="x", max_completion_tokens=2, max_tokens=9)[0] == "1 2 "


def test_what_cannot_be_a_stop_goes_out_at_once() -> None:
    limits = ChatLimits(("END",))
    fed = [[c.delta["content"] for c in limits.feed(ChatChunk({"content": part}))] for part in "aENbE"]
    assert fed == [["a"], [], [], ["E", "N", "b"], []]
    assert [c.delta["content"] for c in limits.close()] == ["E"]


def test_the_stop_that_is_whole_first_ends_the_answer() -> None:
    for parts in (["aca"], ["ac", "a"], ["a", "c", "a"]):
        limits = ChatLimits(("c", "aca"))
        out: list[ChatChunk] = []
        for part in parts:
            if not limits.over:
                out += limits.feed(ChatChunk({"content": part}))
        assert "".join(chunk.delta["content"] for chunk in out) == "a"
        assert limits.over


@given(
    st.lists(st.text("abc", min_size=0, max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_an_answer_ends_before_the_first_stop_however_it_is_divided(
    parts: list[str], stops: list[str]
) -> None:
    limits, out = ChatLimits(stops), list[ChatChunk]()
    fed = 0
    for part in parts:
        out += limits.feed(ChatChunk({"content": part}))
        fed += 1
        if limits.over:
            break
    out += limits.close()
    text = "".join(parts)
    # The stop that is whole first; of those that end together, the longest.
    places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    end = min(places)[1] if places else len(text)
    assert "".join(chunk.delta.get("content", "") for chunk in out) == text[:end]
    assert limits.over == bool(places)
    assert sum(chunk.tokens for chunk in out) == fed


def test_a_model_that_takes_a_limit_keeps_it_itself() -> None:
    def counts(messages: Any, max_tokens: int = 0) -> Iterator[str]:
        yield from ["a"] * (max_tokens * 2)

    def everything(messages: Any, **fields: Any) -> Iterator[str]:
        yield from ["a", fields["stop"]]

    def whole(messages: Any, body: dict[str, Any]) -> str:
        return f"{body['max_tokens']} {body['stop']}"

    assert ask(counts, max_tokens=3)[:2] == ("aaaaaa", "stop")
    assert ask(counts, max_completion_tokens=2, max_tokens=9)[0] == "aaaa"
    assert ask(counts, max_tokens=2, stop="aa")[:2] == ("", "stop")
    assert ask(everything, stop="a")[0] == "aa"
    assert ask(whole, stop="1", max_tokens=1)[0] == "1 1"


def test_what_the_model_says_of_its_end_stays() -> None:
    def ends(messages: Any) -> Iterator[ChatChunk]:
        yield ChatChunk({"content": "ab"}, tokens=2)
        yield ChatChunk({"content": "a"}, finish_reason="content_filter", usage={"completion_tokens": 7})

    for body in ({}, {"stop": "abc"}, {"max_tokens": 3}):
        text, finish, _, chunks = ask(ends, **body)
        assert (text, finish) == ("aba", "content_filter")
        assert chunks[-1].usage == {"completion_tokens": 7}
    assert ask(ends, max_tokens=2)[:3] == ("ab", "length", 2)
    assert ask(ends, stop="b", max_tokens=1)[:3] == ("a", "stop", 2)


def test_tool_calls_pass_and_keep_their_place() -> None:
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "}"}}]}

    def calls(messages: Any) -> Iterator[Any]:
        yield "one }"
        yield call
        yield "two"

    chunks = ask(calls, stop=["}two", "}}"])[3]
    assert [chunk.delta for chunk in chunks[:3]] == [{"content": "one }"}, call, {"content": "two"}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"stop": ""}, "stop is a text"),
        ({"stop": ["a", 1]}, "stop is a text"),
        ({"max_tokens": "9"}, "max_tokens is a whole number"),
        ({"max_completion_tokens": -1}, "max_completion_tokens is a whole number"),
        ({"max_tokens": True}, "max_tokens is a whole number"),
    ],
)
def test_wrong_limits_are_told(body: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        ask(Counter().sync, **body)
