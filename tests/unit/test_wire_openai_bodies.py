"""Bodies of OpenAI's other endpoints: what is read of them, what is refused, and what answers look like."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tones
from semaforo.entities import Priority, TaskType
from semaforo.entities.interface import CATEGORIES, INTERFACES, misfits, roles
from semaforo.entities.tensor import TensorSpec
from semaforo.errors import InvalidRequest, ModelFailed, Refused, SemaforoError
from semaforo.wire.completion import Completion
from semaforo.wire.multipart import Part, parse_form
from semaforo.wire.openai_fields import InvalidField
from semaforo.wire.openai_inputs import parse_embedding, parse_moderation
from semaforo.wire.openai_prompts import parse_prompts
from semaforo.wire.openai_rows import embeddings_object, moderations_object
from semaforo.wire.payload import Chat, ChatChunk, Tensors
from semaforo.wire.text_completion import TextWriter, completion_object
from semaforo.wire.transcript import parse_audio, transcript
from semaforo.wire.upstream_tensors import parse_embeddings, parse_moderations, parse_transcription

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


# --- prompts -------------------------------------------------------------------------------------------


def test_each_choice_is_a_chat_of_its_prompt() -> None:
    call = parse_prompts({"model": "m", "prompt": ["a", "b"], "n": 2, "top_k": 3, "best_of": 2, "echo": True})
    assert call.prompts == ("a", "a", "b", "b")
    assert [chat.prompt for chat in call.chats] == ["a", "a", "b", "b"]
    assert call.chats[0].body == {
        "model": "m", "top_k": 3, "prompt": "a", "messages": [{"role": "user", "content": "a"}]
    }  # fmt: skip
    assert call.echo
    assert not call.special


def test_a_chat_is_no_prompt_because_a_field_of_it_has_that_name() -> None:
    assert Chat({"messages": [{"role": "user", "content": "x"}], "prompt": "y"}).prompt is None
    assert Chat({"messages": [{"role": "user", "content": "x"}], "prompt": ["x"]}).prompt is None
    assert Chat({"messages": [{"role": "user", "content": "x"}]}).prompt is None


@pytest.mark.parametrize(
    ("fields", "special"),
    [
        ({"suffix": "x"}, ("suffix",)),
        ({"suffix": ""}, ()),
        ({"logprobs": 0}, ("logprobs",)),
        ({"best_of": 3}, ("best_of",)),
        ({"max_tokens": 0}, ("max_tokens",)),
        ({"best_of": 1, "suffix": None, "logprobs": None, "max_tokens": 5}, ()),
    ],
)
def test_fields_that_a_chat_would_drop_are_told_apart(
    fields: dict[str, Any], special: tuple[str, ...]
) -> None:
    assert parse_prompts({"model": "m", "prompt": "a", **fields}).special == special


def test_echo_with_logprobs_is_left_to_the_model() -> None:
    call = parse_prompts({"model": "m", "prompt": "a", "echo": True, "logprobs": 1})
    assert not call.echo
    assert call.chats[0].body["echo"] is True


def test_choices_are_put_together_and_their_usage_added() -> None:
    stated = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choices = [Completion(), Completion()]
    choices[0].add(ChatChunk({"content": "x"}))
    choices[0].add(ChatChunk({"content": "y"}, "length", stated))
    choices[1].add(ChatChunk({"content": "z"}))
    value = completion_object("r", "m", 1, choices, ["a:", ""], [9, 9])
    assert [choice["text"] for choice in value["choices"]] == ["a:xy", "z"]
    assert [choice["finish_reason"] for choice in value["choices"]] == ["length", "stop"]
    assert value["usage"] == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def test_a_choice_that_says_nothing_still_ends_and_echoes() -> None:
    writer = TextWriter("r", "m", 1, ["a"], [4], include_usage=True)
    assert writer.chunk(0, ChatChunk({"role": "assistant"}, tokens=0)) == b""
    assert b'"text":"a"' in writer.over(0)
    end = writer.end()
    assert b'"completion_tokens":0' in end
    assert end.endswith(b"data: [DONE]\n\n")


# --- texts ---------------------------------------------------------------------------------------------


def test_what_nobody_here_knows_is_a_parameter() -> None:
    call = parse_embedding(
        {
            "model": "m",
            "input": "x",
            "user": "u",
            "dimensions": 3,
            "odd": [1],
            "gone": None,
            "service_tier": "flex",
        }
    )
    assert call.parameters == {"user": "u", "dimensions": 3, "odd": [1]}
    assert (call.texts, call.dimensions, call.priority) == (("x",), 3, Priority.LOW)
    assert parse_moderation({"input": ["x", "y"]}).model == "auto"


@given(
    JSON,
    st.sampled_from(["model", "input", "prompt", "n", "logprobs", "stop", "stream", "best_of", "dimensions"]),
)
@settings(max_examples=300, deadline=None)
def test_a_body_is_read_or_refused_as_the_clients_fault(value: Any, field: str) -> None:
    for parse in (parse_prompts, parse_embedding, parse_moderation):
        for body in ({"model": "m", "input": "x", "prompt": "x", field: value}, value):
            with suppress(InvalidRequest):
                parse(body)


def test_vectors_are_written_as_numbers_or_as_bytes() -> None:
    rows = np.array([[0.5, -1.0], [0.1, 0.25]], np.float32)
    plain = embeddings_object(rows, "m", 3, "float")
    read = msgspec.json.decode(msgspec.json.encode(plain))
    assert read["data"][0] == {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}
    packed = embeddings_object(rows, "m", 3, "base64")["data"][1]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), rows[1])


def test_scores_count_from_one_half_unless_the_model_says() -> None:
    scores = TensorSpec("scores", "FP32", (2,), labels=("a", "b"))
    task = TaskType("t", interface="moderation", inputs=(INTERFACES["moderation"].input,), outputs=(scores,))
    rows = np.array([[0.5, 0.49], [0.1, 0.2]], np.float32)
    found = moderations_object(Tensors({"scores": rows}), roles(task), "r", "m")["results"]
    assert [result["flagged"] for result in found] == [True, False]
    assert found[0]["categories"] == {"a": True, "b": False}
    assert found[1]["category_scores"] == {"a": 0.1, "b": 0.2}
    with pytest.raises(ModelFailed, match="2 categories"):
        moderations_object(Tensors({"scores": rows[:, :1]}), roles(task), "r", "m")


# --- forms and transcripts -----------------------------------------------------------------------------


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


def test_a_form_is_read_whole() -> None:
    body = form(
        ('Content-Disposition: form-data; name="model"', "é".encode()),
        (
            'content-disposition: form-data; name="file"; filename="a b.wav"\r\nContent-Type: audio/wav',
            b"\r\n--\x00",
        ),
    )
    assert parse_form("multipart/form-data; boundary=b", body) == [
        Part("model", "é".encode()),
        Part("file", b"\r\n--\x00", "a b.wav", "audio/wav"),
    ]


NAMED = 'content-disposition: form-data; name="a"'


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("", b"", "not stated"),
        ("application/json", b"{}", "'application/json'"),
        ("multipart/form-data", b"", "names no boundary"),
        ("multipart/form-data; boundary=" + "b" * 300, b"--b", "broken"),
        ("multipart/form-data; boundary=b", b"no form", "broken"),
        ("multipart/form-data; boundary=b", form(("x: y", b"1")), "part 1 of the form has no name"),
        ("multipart/form-data; boundary=b", form(end=b""), "ends before"),
        ("multipart/form-data; boundary=b", form((NAMED, b""), end=b""), "ends before"),
        ("multipart/form-data; boundary=b", form(*[(NAMED, b"")] * 1001), "1000 parts"),
    ],
)  # fmt: skip
def test_a_broken_form_is_refused(kind: str, body: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        parse_form(kind, body)


@given(st.binary(max_size=200), st.integers(0, 150))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_form_or_refused(noise: bytes, place: int) -> None:
    whole = form(('content-disposition: form-data; name="file"; filename="f"', b"data"))
    for body in (noise, whole[:place] + noise + whole[place:], whole[:place]):
        with suppress(InvalidRequest):
            parse_audio([*parse_form("multipart/form-data; boundary=b", body), Part("model", b"m")])


def heard(**fields: str) -> Any:
    parts = [Part("file", tones.record("a"), "a.wav"), Part("model", b"m")]
    return parse_audio([*parts, *(Part(name, text.encode()) for name, text in fields.items())])


def test_subtitles_are_made_of_segments() -> None:
    segments = [
        {"start": 0, "end": 1.5, "text": " one --> two\n\nthree"},
        {"start": 3599.9996, "end": 3661.25, "text": ""},
    ]
    _, srt = transcript(heard(response_format="srt"), "", {"segments": segments})
    assert srt.decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\none → two\nthree\n\n2\n01:00:00,000 --> 01:01:01,250\n\n"
    )
    kind, vtt = transcript(heard(response_format="vtt"), "", {"segments": segments[:1]})
    assert kind == "text/vtt; charset=utf-8"
    assert vtt.decode() == "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none → two\nthree\n"
    for details in ({}, {"segments": [{"start": "x"}]}, {"segments": [3]}):
        with pytest.raises(InvalidField, match="segment"):
            transcript(heard(response_format="srt"), "", details)


@given(st.binary(max_size=80), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_a_duration_is_known_or_left_out(noise: bytes, place: int) -> None:
    sound = tones.record("a")
    for audio in (noise, sound[:place] + noise + sound[place:], sound[:place]):
        if audio:
            call = parse_audio(
                [Part("file", audio, "x"), Part("model", b"m"), Part("response_format", b"verbose_json")]
            )
            transcript(call, "text", {})


# --- what an upstream answers --------------------------------------------------------------------------


def test_rows_of_an_upstream_are_put_in_order_and_its_tokens_shared() -> None:
    body = b"""{"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}],
               "usage": {"prompt_tokens": 11}}"""
    found = parse_embeddings(body, ["a" * 30, "b" * 10])
    np.testing.assert_array_equal(found["embedding"], [[1, 2], [3, 4]])
    assert found["tokens"].tolist() == [8, 3]
    packed = base64.b64encode(np.array([1, 2], "<f4").tobytes()).decode()
    found = parse_embeddings(b'{"data": [{"embedding": "%s"}]}' % packed.encode(), ["abcdefgh"])
    np.testing.assert_array_equal(found["embedding"], [[1, 2]])
    assert found["tokens"].tolist() == [2]


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"", ModelFailed, "no JSON"),
        (b"[]", ModelFailed, "no JSON object"),
        (b'{"error": {"message": "slow down", "code": 429}}', Refused, "slow down"),
        (b'{"data": []}', ModelFailed, "0 embeddings for 1"),
        (b'{"data": 3}', ModelFailed, "no embeddings for 1"),
        (b'{"data": [{}]}', ModelFailed, "no list of numbers"),
        (b'{"data": [{"embedding": []}]}', ModelFailed, "no list of numbers"),
        (b'{"data": [{"embedding": ["x"]}]}', ModelFailed, "no list of numbers"),
        (b'{"data": [{"embedding": [[1]]}]}', ModelFailed, "no list of numbers"),
        (b'{"data": [{"embedding": "!"}]}', ModelFailed, "no list of numbers"),
    ],
)
def test_what_is_no_embedding_is_the_upstreams_failure(
    body: bytes, kind: type[SemaforoError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        parse_embeddings(body, ["x"])


def test_a_category_that_an_upstream_lacks_is_named() -> None:
    body = b'{"results": [{"flagged": true, "categories": {"a": true}, "category_scores": {"a": 0.9}}]}'
    found = parse_moderations(body, 1, ["a"])
    assert (found["scores"].tolist(), found["flagged"].tolist()) == ([[pytest.approx(0.9)]], [True])
    with pytest.raises(ModelFailed, match=r"lack 'b'.* as it has them: a"):
        parse_moderations(body, 1, ["a", "b"])
    with pytest.raises(ModelFailed, match="without a text"):
        parse_transcription(b"{}")


# --- the interface -------------------------------------------------------------------------------------


def test_what_is_agreed_fits_itself() -> None:
    for name, agreed in INTERFACES.items():
        assert misfits(name, [agreed.input], [agreed.output, *agreed.extras]) == []
    assert len(CATEGORIES) == INTERFACES["moderation"].output.shape[0]


TEXT = TensorSpec("x", "BYTES")
VECTOR = TensorSpec("e", "FP16", (2,))


@pytest.mark.parametrize(
    ("interface", "inputs", "outputs", "text"),
    [
        ("embedding", [], [TensorSpec("e", "FP32", (4,))], "inputs: takes nothing"),
        ("embedding", [TensorSpec("x")], [TensorSpec("e", "FP32", (4,))], "takes x: fp32[]"),
        ("embedding", [TEXT], [TensorSpec("e", "FP32")], "gives e: fp32[]"),
        ("embedding", [TEXT], [VECTOR, TensorSpec("tokens", "BOOL")], "tokens"),
        ("moderation", [TEXT], [TensorSpec("s", "FP32", (2,))], "no labels"),
        ("transcription", [TEXT], [TEXT, TensorSpec("b", "BYTES")], "gives x: bytes[], b"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(interface: str, inputs: Any, outputs: Any, text: str) -> None:
    found = misfits(interface, inputs, outputs)
    assert len(found) == 1
    assert text in found[0]
