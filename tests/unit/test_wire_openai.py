from __future__ import annotations

from typing import Any

import pytest

from semaforo.entities import Priority
from semaforo.errors import Expired, Forbidden, InvalidRequest, NotFound, Refused, Unauthenticated
from semaforo.wire.openai import InvalidField, error_object, parse_chat, retry_headers

HI = [{"role": "user", "content": "hi"}]


def said(*messages: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": list(messages)}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": HI, **fields}


def test_what_decides_something_here_is_read_and_the_body_stays_as_it_was() -> None:
    body = chat(
        stream=True, stream_options={"include_usage": True}, max_tokens=5, max_completion_tokens=7,
        service_tier="flex", temperature=0.5, top_k=3, extra={"deep": [1, 2]},
    )  # fmt: skip
    copy = dict(body)
    call = parse_chat(body)
    assert (call.model, call.stream, call.include_usage) == ("chat", True, True)
    assert (call.max_tokens, call.priority) == (7, Priority.LOW)
    assert call.body is body
    assert body == copy


@pytest.mark.parametrize(
    ("tier", "priority"),
    [("priority", Priority.HIGH), ("default", Priority.NORMAL), ("flex", Priority.LOW), ("auto", None)],
)
def test_service_tiers(tier: str, priority: Priority | None) -> None:
    assert parse_chat(chat(service_tier=tier)).priority == priority


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {}}],
        },
        {"role": "assistant", "tool_calls": [{"id": "a"}]},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "tool", "content": "4", "tool_call_id": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "x"}]},
    ],
)
def test_messages_that_are_allowed(message: dict[str, Any]) -> None:
    parse_chat({"model": "m", "messages": [*HI, message]})


@pytest.mark.parametrize(
    ("body", "param", "text"),
    [
        ({"messages": HI}, "model", "give the name"),
        ({"model": 3, "messages": HI}, "model", "give the name"),
        ({"model": "m"}, "messages", "at least one"),
        (said(), "messages", "at least one"),
        (said("hi"), "messages[0]", "object"),
        (said(user("x"), {"role": "usr", "content": "x"}), "messages[1].role", "Did you mean 'user'?"),
        (said({"role": [], "content": "x"}), "messages[0].role", "none of"),
        (said({"role": "user"}), "messages[0].content", "not nothing"),
        (said(user(3)), "messages[0].content", "not 3"),
        (said(user(["x"])), "messages[0].content[0]", "'type'"),
        (said(user([{"type": []}])), "messages[0].content[0]", "'type'"),
        (said({"role": "assistant", "tool_calls": 3}), "messages[0].tool_calls", "a list"),
        (chat(stream="yes"), "stream", 'not "yes"'),
        (chat(stream_options={}), "stream_options", "only where 'stream' is true"),
        (chat(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage", "true or false"),
        (chat(n=2), "n", "one choice"),
        (chat(n=0), "n", "at least 1"),
        (chat(n=True), "n", "at least 1"),
        (chat(max_tokens=0), "max_tokens", "at least 1"),
        (chat(max_completion_tokens=1.5), "max_completion_tokens", "not 1.5"),
        (chat(service_tier="prioritty"), "service_tier", "Did you mean 'priority'?"),
        (chat(tools={}), "tools", "a list"),
        (chat(modalities="audio"), "modalities", "a list"),
        (chat(response_format="json"), "response_format", "an object"),
        (chat(response_format={"type": "json"}), "response_format.type", "none of"),
        (chat(response_format={"type": "json_schema"}), "response_format.json_schema", "not nothing"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(body: Any, param: str, text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_chat(body)
    assert caught.value.param == param
    assert text in caught.value.message
    assert error_object(caught.value)["error"] == {
        "message": caught.value.message,
        "type": "invalid_request_error",
        "param": param,
        "code": "invalid_request",
    }


@pytest.mark.parametrize("body", [None, [], "x", 3])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        parse_chat(body)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (NotFound("x"), "invalid_request_error", "not_found"),
        (Unauthenticated("x"), "authentication_error", "unauthenticated"),
        (Forbidden("x"), "permission_error", "forbidden"),
        (Refused("x"), "server_error", "refused"),
        (Expired("x"), "server_error", "expired"),
    ],
)
def test_errors_take_openais_form(error: Any, kind: str, code: str) -> None:
    assert error_object(error) == {"error": {"message": "x", "type": kind, "param": None, "code": code}}


def test_clients_are_told_whether_and_when_to_try_again() -> None:
    assert retry_headers(Refused("x", retry_after_s=0.0151)) == [(b"retry-after-ms", b"16")]
    assert retry_headers(Refused("x")) == [(b"x-should-retry", b"false")]
    assert retry_headers(Expired("x")) == []
