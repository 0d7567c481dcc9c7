from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.wire.completion import ChunkWriter, Completion, merge_delta
from semaforo.wire.payload import ChatChunk
from semaforo.wire.sse import SseDecoder


def whole(*chunks: ChatChunk) -> dict[str, Any]:
    completion = Completion()
    for chunk in chunks:
        completion.add(chunk)
    return completion.object("r1", "small", 1_700_000_000, 11)


def call(index: int | None, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [fields if index is None else {"index": index, **fields}]}


def test_texts_are_joined_and_usage_is_estimated_where_none_is_stated() -> None:
    answer = whole(
        ChatChunk({"role": "assistant", "content": ""}, tokens=0),
        ChatChunk({"content": "Hel"}),
        ChatChunk({"content": "lo"}, logprobs={"content": [{"token": "lo"}]}),
        ChatChunk({}, "length", tokens=0, logprobs={"content": [{"token": "!"}]}),
    )
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] == {"content": [{"token": "lo"}, {"token": "!"}]}
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
    assert (answer["id"], answer["object"], answer["model"]) == ("chatcmpl-r1", "chat.completion", "small")


def test_stated_usage_wins_and_the_last_word_counts() -> None:
    last = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "details": {"cached": 1}}
    answer = whole(ChatChunk({"content": "a"}, usage={"total_tokens": 4}), ChatChunk({}, "stop", last))
    assert answer["usage"] == last


def test_an_answer_without_words_or_reason_ends_by_its_content() -> None:
    assert whole(ChatChunk({"role": "assistant"}))["choices"][0]["finish_reason"] == "stop"
    answer = whole(ChatChunk(call(0, id="a", function={"name": "f", "arguments": "{}"})))
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize("repeat", [{}, {"id": ""}, {"id": "a", "type": "function"}])
def test_tool_calls_are_merged_by_index(repeat: dict[str, Any]) -> None:
    answer = whole(
        ChatChunk(call(0, id="a", type="function", function={"name": "sum", "arguments": ""})),
        ChatChunk(call(1, id="b", type="function", function={"name": "max", "arguments": '{"y"'})),
        ChatChunk(call(0, **repeat, function={"arguments": '{"x":'})),
        ChatChunk(call(1, function={"arguments": ":2}"})),
        ChatChunk(call(0, function={"name": "sum", "arguments": "1}"})),
    )
    assert answer["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "sum", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "max", "arguments": '{"y":2}'}},
    ]


def test_tool_calls_without_index_go_on_by_id_or_with_the_last() -> None:
    answer = whole(
        ChatChunk(call(None, id="a", type="function", function={"name": "sum", "arguments": "{"})),
        ChatChunk(call(None, function={"arguments": "}"})),
        ChatChunk(call(None, id="b", type="function", function={"name": "max", "arguments": "{}"})),
    )
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["arguments"]) for c in calls] == [("a", "{}"), ("b", "{}")]


def test_fields_that_nobody_knows_survive() -> None:
    answer = whole(
        ChatChunk({"reasoning_content": "Let me ", "x": {"n": 1, "t": "a"}}),
        ChatChunk({"reasoning_content": "see.", "x": {"n": 2, "t": "b"}}),
    )
    message = answer["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me see."
    assert message["x"] == {"n": 2, "t": "ab"}


def test_merging_leaves_the_delta_as_it_was() -> None:
    delta = call(0, id="a", function={"arguments": "{"})
    merged: dict[str, Any] = {}
    merge_delta(merged, delta)
    merge_delta(merged, call(0, function={"arguments": "}"}))
    assert delta == call(0, id="a", function={"arguments": "{"})


def events(data: bytes) -> list[Any]:
    found = [event.data for event in SseDecoder().feed(data)]
    assert found[-1] == b"[DONE]"
    return [msgspec.json.decode(text) for text in found[:-1]]


def write(chunks: list[ChatChunk], *, include_usage: bool) -> list[Any]:
    writer = ChunkWriter("r1", "small", 7, 11, include_usage=include_usage)
    return events(b"".join([*(writer.chunk(chunk) for chunk in chunks), writer.end()]))


def test_a_stream_names_the_role_first_and_the_reason_last() -> None:
    found = write([ChatChunk({"content": "a"}), ChatChunk({"content": "b"})], include_usage=False)
    assert [f["choices"][0]["delta"] for f in found] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]
    assert [f["choices"][0]["finish_reason"] for f in found] == [None, None, "stop"]
    assert {(f["id"], f["object"], f["created"], f["model"]) for f in found} == {
        ("chatcmpl-r1", "chat.completion.chunk", 7, "small")
    }
    assert all("usage" not in f for f in found)


def test_usage_comes_once_at_the_end_and_only_when_asked_for() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    chunks = [ChatChunk({"content": "a"}), ChatChunk({}, "stop", tokens=0), ChatChunk({}, None, usage, 0)]
    assert len(write(chunks, include_usage=False)) == 2
    found = write(chunks, include_usage=True)
    assert [f["usage"] for f in found] == [None, None, usage]
    assert found[-1]["choices"] == []
    estimated = write(chunks[:2], include_usage=True)[-1]["usage"]
    assert estimated == {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12}


TEXT = st.text(max_size=5)
DELTA = st.one_of(
    st.fixed_dictionaries({"content": TEXT}),
    st.builds(lambda i, a: call(i, function={"arguments": a}), st.integers(0, 2), TEXT),
)


@given(st.lists(DELTA, max_size=12))
def test_a_stream_put_together_by_its_reader_equals_the_whole_answer(deltas: list[dict[str, Any]]) -> None:
    """The reader is a plain fold, written apart from the code it checks."""
    chunks = [ChatChunk(delta) for delta in deltas]
    text, arguments = "", {}
    for event in write(chunks, include_usage=False):
        delta = event["choices"][0]["delta"]
        text += delta.get("content", "")
        for piece in delta.get("tool_calls", ()):
            arguments[piece["index"]] = arguments.get(piece["index"], "") + piece["function"]["arguments"]
    message = whole(*chunks)["choices"][0]["message"]
    assert (message["content"] or "") == text
    assert sorted(c["function"]["arguments"] for c in message.get("tool_calls", ())) == sorted(
        arguments.values()
    )
