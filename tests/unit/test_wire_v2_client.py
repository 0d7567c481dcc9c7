"""V2 from the asking side, against the server's own codec and against replies that are wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.entities import Contract, Priority, Privacy, TaskType, TensorSpec
from semaforo.errors import (
    InvalidRequest,
    ModelFailed,
    NotReady,
    ProtocolError,
    Refused,
    SemaforoError,
    Unsatisfiable,
)
from semaforo.wire.contract import read_contract
from semaforo.wire.openai_client import Pieces
from semaforo.wire.payload import Tensors
from semaforo.wire.v2 import V2Codec
from semaforo.wire.v2_client import (
    contract_headers,
    decode_reply,
    encode_request,
    parse_metadata,
    parse_server,
    reply_error,
)

ARRAYS: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "INT64": np.array([[-(2**63), 2**63 - 1]]),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "FP16": np.array([[0.5, 65504]], np.float16),
    "FP32": np.array([[1e-30, np.nan]], np.float32),
    "FP64": np.array([[1e-300, 0.1]]),
    "BF16": np.array([[16256, 1]], np.uint16),
    "BYTES": np.array([["é", b"\x00b"]], object),
}


def codec(dtype: str) -> V2Codec:
    inputs, outputs = (TensorSpec("x", dtype, (-1,)),), (TensorSpec("y", dtype, (-1,)),)
    return V2Codec(TaskType("t", inputs=inputs, outputs=outputs))


@pytest.mark.parametrize("dtype", ARRAYS)
@pytest.mark.parametrize("binary", [True, False])
def test_what_one_side_writes_the_other_reads(dtype: str, binary: bool) -> None:
    array = ARRAYS[dtype]
    if not binary and dtype in ("FP16", "BF16"):
        with pytest.raises(InvalidRequest, match=f"input 'x' is {dtype}, which travels only as binary"):
            encode_request({"x": array}, {"x": dtype}, binary=False)
        return
    server = codec(dtype)
    body, length = encode_request({"x": array}, {"x": dtype}, binary=binary)
    assert (length is not None) is binary
    call = server.decode(body, length)
    assert call.binary is binary
    reply, json_length = server.encode(call, Tensors({"y": call.tensors.arrays["x"]}), "m", "3")
    text = None if json_length is None else str(json_length)
    model, version, outputs = decode_reply(bytearray(reply), text)
    assert (model, version) == ("m", "3")
    if dtype == "BYTES":
        found = [v if isinstance(v, bytes) else v.encode() for v in outputs["y"].ravel()]
        assert found == ["é".encode(), b"\x00b"]
    else:
        assert outputs["y"].dtype == array.dtype
        assert np.array_equal(outputs["y"], array, equal_nan=array.dtype.kind == "f")


def test_only_what_is_wanted_is_asked_for() -> None:
    body, _ = encode_request(
        {"x": np.ones((1, 1), np.float32)}, {}, binary=False, parameters={"top": 3}, outputs=["y"]
    )
    asked = json.loads(body)
    assert (asked["outputs"], asked["parameters"]) == ([{"name": "y"}], {"top": 3})
    assert asked["inputs"][0]["datatype"] == "FP32"


OUTPUT = {"name": "y", "datatype": "FP32", "shape": [2]}


@pytest.mark.parametrize(
    ("reply", "length", "said"),
    [
        (b"<html>", None, "no V2 inference response"),
        (b"\xff", None, "no V2 inference response"),
        (b"[" * 100_000, None, "no V2 inference response"),
        ({"outputs": [{**OUTPUT, "data": [1]}]}, None, "output 'y': shape .2. needs 2 elements"),
        ({"outputs": [OUTPUT]}, None, "output 'y'"),
        ({"outputs": [{**OUTPUT, "datatype": "FP33", "data": [1, 2]}]}, None, "Did you mean 'FP32'"),
        ({"outputs": [{**OUTPUT, "shape": [-2], "data": [1, 2]}]}, None, "no V2 inference response"),
        ({"outputs": [{**OUTPUT, "parameters": {"binary_data_size": 8}}]}, None, "0 bytes are left"),
        (
            {"outputs": [{**OUTPUT, "parameters": {"binary_data_size": True}}]},
            None,
            "binary_data_size is True",
        ),
        (b"{}", "3", "says that its JSON has 3 bytes, and has 2"),
        (b"{}", "-1", "says that its JSON has -1 bytes"),
    ],
)
def test_a_wrong_reply_is_the_servers_fault(reply: Any, length: str | None, said: str) -> None:
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    with pytest.raises(ProtocolError, match=said):
        decode_reply(body, length)


@given(st.binary(max_size=200), st.none() | st.integers(-2, 210).map(str))
def test_no_bytes_raise_anything_else(body: bytes, length: str | None) -> None:
    for read in (
        lambda: decode_reply(body, length),
        lambda: parse_metadata(body),
        lambda: parse_server(body),
    ):
        with suppress(ProtocolError):
            read()


def test_metadata_of_servers_that_say_little() -> None:
    bare = parse_metadata(b'{"name": "m", "versions": [], "platform": "", "inputs": null, "outputs": []}')
    assert (bare.inputs, bare.outputs) == ((), ())
    assert parse_server(b'{"name": "s"}') == ("s", frozenset())


@given(
    st.builds(
        Contract,
        priority=st.sampled_from(Priority),
        deadline_s=st.none() | st.floats(1e-6, 1e6),
        min_quality=st.floats(0, 1),
        max_cost=st.none() | st.floats(0, 1e6),
        privacy=st.sampled_from(Privacy),
        tenant=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    )
)
def test_a_contract_survives_its_headers(contract: Contract) -> None:
    headers = {name.encode(): value.encode() for name, value in contract_headers(contract).items()}
    found = read_contract(headers, {}).contract
    assert (found.deadline_s or 0) == pytest.approx(contract.deadline_s or 0, rel=1e-9)
    exact = ("priority", "min_quality", "max_cost", "privacy", "tenant")
    assert [getattr(found, name) for name in exact] == [getattr(contract, name) for name in exact]


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "said"),
    [
        (400, {}, {"error": "too long"}, InvalidRequest, "too long"),
        (503, {"retry-after": "2"}, {"error": "full"}, Refused, "full"),
        (503, {"semaforo-error": "not_ready"}, {"error": "loading"}, NotReady, "loading"),
        (422, {}, {"error": {"message": "none", "code": "unsatisfiable"}}, Unsatisfiable, "none"),
        (
            404,
            {},
            b"<html>",
            ProtocolError,
            "at answered 404 .no content type. .* is this a Semaforo or V2 server",
        ),
        (500, {}, {"error": "boom"}, ModelFailed, "boom"),
        (418, {}, {"error": "tea"}, SemaforoError, "tea"),
        (503, {}, {"error": {}}, ProtocolError, "without saying why"),
    ],
)
def test_an_error_is_the_class_it_was(
    status: int, headers: dict[str, str], body: Any, kind: type[SemaforoError], said: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = reply_error(status, headers, content, "at")
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error
    assert error.retry_after_s == (2.0 if "retry-after" in headers else None)


def test_retry_after_is_read_to_the_millisecond_and_dates_are_left() -> None:
    both = {"semaforo-retry-after-ms": "150", "retry-after": "1"}
    assert reply_error(503, both, b'{"error": "x"}', "").retry_after_s == pytest.approx(0.15)
    date = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert reply_error(503, date, b'{"error": "x"}', "").retry_after_s is None


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def test_pieces_of_a_chat_however_they_are_cut() -> None:
    words = ["a", "é ", "c"]
    stream = b"".join(event({"choices": [{"delta": {"content": word}}]}) for word in words)
    stream += event({"choices": [], "usage": {}}) + b"data: [DONE]\n\n"
    for size in (1, 7, len(stream)):
        pieces = Pieces()
        found = [t for at in range(0, len(stream), size) for t in pieces.feed(stream[at : at + size])]
        assert (found, pieces.done) == (words, True)
        pieces.close()


def test_a_chat_that_breaks_off_or_is_no_chat() -> None:
    pieces = Pieces()
    with pytest.raises(Refused, match="full"):
        pieces.feed(event({"error": {"message": "full", "code": "refused"}}))
    for wrong in ({"choices": 3}, [1], {"error": None}, {"choices": [{}]}):
        with pytest.raises(ProtocolError, match="no chunk of a chat"):
            Pieces().feed(event(wrong))
    with pytest.raises(ModelFailed, match="before the end"):
        Pieces().close()
