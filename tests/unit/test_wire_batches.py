"""Batch files: every wrong line is named, and a line of results is one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from semaforo.wire.batches import MOST_ERRORS, read_lines, result_line

ENDPOINT = "/v1/chat/completions"


def line(name: str, **changed: Any) -> bytes:
    value = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": {"model": "m", "x": 1.0}} | changed
    return json.dumps({key: item for key, item in value.items() if item is not None}).encode()


def test_good_lines_keep_their_bytes() -> None:
    body = b'{ "model":"m",  "n": 1e400 , "\\u00e9": [] }'
    text = b'{"url":"/v1/chat/completions","custom_id":"a","method":"POST","body":' + body + b"}"
    found, wrong = read_lines(b"\xef\xbb\xbf" + text + b"\r\n\n" + line("b"), ENDPOINT, 10)
    assert not wrong
    assert [(entry.number, entry.custom_id, entry.model) for entry in found] == [(1, "a", "m"), (3, "b", "m")]
    assert found[0].body == body


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (b"{", "invalid_json_line", "line 2"),
        (b'"text"', "invalid_line", "line 2"),
        (b"\xff", "invalid_json_line", "line 2"),
        (line("b", body=None), "invalid_line", "body"),
        (line("b", body=[1]), "invalid_body", "object"),
        (line("b", body={}), "missing_required_parameter", "body.model"),
        (line("b", body={"model": "m", "stream": True}), "invalid_body", "stream"),
        (line("b", method="GET"), "invalid_method", "POST"),
        (line("b", url="/v1/embeddings"), "mismatched_endpoint", "/v1/embeddings"),
        (line("a"), "duplicate_custom_id", "line 1 already"),
        (line(""), "invalid_custom_id", "1 to 512"),
        (line("b", custom_id=7), "invalid_line", "custom_id"),
    ],
)
def test_a_wrong_line_is_named(text: bytes, code: str, says: str) -> None:
    found, wrong = read_lines(line("a") + b"\n" + text + b"\n", ENDPOINT, 10)
    assert [entry.custom_id for entry in found] == ["a"]
    assert [(error.code, error.line) for error in wrong] == [(code, 2)]
    assert says in wrong[0].message


def test_all_wrong_lines_are_named_within_a_bound() -> None:
    _, wrong = read_lines(b"{\n" * 3 + line("a"), ENDPOINT, 10)
    assert [error.line for error in wrong] == [1, 2, 3]
    _, wrong = read_lines(b"{\n" * 500, ENDPOINT, 10)
    assert len(wrong) == MOST_ERRORS + 1
    assert wrong[-1].code == "too_many_errors"
    _, wrong = read_lines(b"\n".join(line(str(n)) for n in range(11)), ENDPOINT, 10)
    assert [error.code for error in wrong] == ["too_many_requests"]
    _, wrong = read_lines(b"\n \n", ENDPOINT, 10)
    assert [error.code for error in wrong] == ["empty_file"]


def test_results_are_lines() -> None:
    good = result_line("i", "c", (200, "r", b'{\n "a": [1,\n 2.0]}'), None)
    assert good.count(b"\n") == 1
    assert json.loads(good) == {
        "id": "i",
        "custom_id": "c",
        "response": {"status_code": 200, "request_id": "r", "body": {"a": [1, 2.0]}},
        "error": None,
    }
    expired = json.loads(result_line("i", "c", None, ("batch_expired", "late")))
    assert (expired["response"], expired["error"]) == (None, {"code": "batch_expired", "message": "late"})
    binary = json.loads(result_line("i", "c", (200, "r", b"\x00\xff"), None))
    assert binary["error"]["code"] == "not_json"
