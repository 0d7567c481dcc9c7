from __future__ import annotations

from typing import Any

import msgspec
import pytest

from semaforo.errors import ModelFailed, Refused
from semaforo.wire.sse import SseEvent
from semaforo.wire.upstream import UpstreamError, delta_tokens, parse_completion, parse_error, parse_event


def event(body: Any, name: str = "") -> SseEvent:
    return SseEvent(msgspec.json.encode(body), name)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "no", "code": "bad", "type": "t"}}, UpstreamError("no", "bad")),
        ({"error": {"message": "no", "code": None, "type": "t"}}, UpstreamError("no", "t")),
        ({"error": {"message": "no", "code": 429}}, UpstreamError("no", 429)),
        ({"error": "no"}, UpstreamError("no")),
        ({"error": {"reason": "odd"}}, UpstreamError('{"reason":"odd"}')),
        ({"object": "error", "message": "no"}, UpstreamError("no")),
        ({"detail": [{"loc": ["body"]}]}, UpstreamError('[{"loc":["body"]}]')),
        ({"choices": [], "error": None}, None),
        ([], None),
        ("text", None),
    ],
)
def test_errors_in_the_forms_that_servers_use(body: Any, error: UpstreamError | None) -> None:
    assert parse_error(body) == error


def test_an_event_becomes_a_chunk() -> None:
    logprobs = {"content": [{"token": "Hi"}]}
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None, "logprobs": logprobs}
    chunk = parse_event(event({"choices": [{"index": 1, "delta": {"content": "Ho"}}, choice]}))
    assert (chunk.delta, chunk.finish_reason, chunk.tokens) == ({"content": "Hi"}, None, 1)
    assert chunk.logprobs == logprobs
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "details": {"cached": 1}}
    chunk = parse_event(event({"choices": [], "usage": usage}))
    assert (chunk.delta, chunk.usage, chunk.tokens) == ({}, usage, 0)
    assert parse_event(event({"choices": [{"delta": None, "finish_reason": ""}]})).finish_reason is None


@pytest.mark.parametrize(
    ("body", "name", "kind"),
    [
        ({"error": {"message": "no"}}, "", ModelFailed),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "", Refused),
        ({"choices": [], "error": {"message": "slow down", "code": 429}}, "", Refused),
        ({"what": "is this"}, "error", ModelFailed),
        ({"what": "is this"}, "", ModelFailed),
        ({"choices": "none"}, "", ModelFailed),
        ({"choices": [{"index": 0, "delta": "text"}]}, "", ModelFailed),
        ([1, 2], "", ModelFailed),
        (None, "", ModelFailed),
    ],
)
def test_what_is_no_chunk_is_an_error(body: Any, name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        parse_event(event(body, name))


@pytest.mark.parametrize("data", [b"", b"{", b"<html>", b"\xff\xfe", b"null", b"{}", b'{"choices":[{}]}'])
def test_what_is_no_completion_is_an_error(data: bytes) -> None:
    with pytest.raises(ModelFailed, match="no completion"):
        parse_completion(data)


def test_a_whole_completion_becomes_one_chunk() -> None:
    message = {"role": "assistant", "content": "Hi there"}
    body = {"choices": [{"message": message}], "usage": {"completion_tokens": 9}}
    chunk = parse_completion(msgspec.json.encode(body))
    assert (chunk.delta, chunk.finish_reason, chunk.tokens) == (message, "stop", 9)


@pytest.mark.parametrize(
    ("delta", "tokens"),
    [
        ({}, 0),
        ({"role": "assistant", "content": ""}, 0),
        ({"content": " the"}, 1),
        ({"content": "x" * 400}, 100),
        ({"reasoning_content": "hm"}, 1),
        ({"tool_calls": [{"function": {"arguments": '{"a":'}}]}, 1),
        ({"tool_calls": ["odd"]}, 0),
    ],
)
def test_tokens_of_a_delta(delta: dict[str, Any], tokens: int) -> None:
    assert delta_tokens(delta) == tokens
