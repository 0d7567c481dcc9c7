"""OpenAI's official client against completions, embeddings, moderations and transcriptions of a served fleet.

Each of these is served twice: by a real server behind a url, and by Python functions.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import text_models
import tones
from semaforo.build import blueprint
from served_fleet import Served, serving
from upstream import Fault, Upstream

PROMPT = "the slow train"
SAID = "the slow train waits"
FLEET = """
tasks:
  chat: {{kind: chat}}
  write: {{kind: chat}}
  embed: {{kind: embedding}}
  embed-here:
    kind: embedding
    inputs: {{words: bytes}}
    outputs: {{vector: 'fp32[{width}]'}}
  moderate:
    kind: moderation
    outputs: &verdicts
      scores: {{type: 'fp32[3]', labels: &labels {labels}}}
      flagged: bool
      categories: {{type: 'bool[3]', labels: *labels}}
  moderate-here:
    kind: moderation
    outputs:
      scores: {{type: 'fp32[3]', labels: *labels}}
  listen: {{kind: transcription}}
  listen-here: {{kind: transcription}}
  listen-well:
    kind: transcription
    outputs: {{text: bytes, details: bytes}}
  digits: {{inputs: {{x: fp32[2]}}, outputs: {{y: fp32[2]}}}}
models:
  near: {{task: chat, url: {url}, options: {{model: bigram, completions: true}}}}
  talker: {{task: write, url: {url}, options: {{model: bigram}}}}
  writer: {{task: write, python: openai_models:write, isolation: thread, quality: 0.1}}
  vectors: {{task: embed, url: {url}, options: {{model: bigram}}, cost: {{input: 0.02}}}}
  own-vectors: {{task: embed-here, python: openai_models:embed, isolation: thread}}
  judge: {{task: moderate, url: {url}, options: {{model: bigram}}}}
  own-judge: {{task: moderate-here, python: openai_models:judge, isolation: thread}}
  ear: {{task: listen, url: {url}, options: {{model: bigram}}}}
  own-ear: {{task: listen-here, python: openai_models:listen, isolation: thread}}
  good-ear: {{task: listen-well, python: openai_models:listen_well, isolation: process}}
  echo: {{task: digits, python: openai_models:same, isolation: thread}}
aliases: {{text-embedding-3-small: vectors, whisper-1: ear}}
"""
MODELS = f"""
import sys

sys.path.append({str(Path(__file__).parents[1])!r})

import text_models
import tones
from semaforo.errors import InvalidRequest
from upstream import TEXT, Bigrams

WORDS = Bigrams(TEXT)


def write(messages, max_tokens=16):
    yield from WORDS.write(messages[-1]["content"], max_tokens)


def embed(words: list[str]) -> list[list[float]]:
    return [text_models.embed(word) for word in words]


def judge(input: list[str]) -> list[list[float]]:
    return [list(text_models.scores(text).values()) for text in input]


def listen(audio: list[bytes], parameters) -> list[str]:
    found = [tones.listen(file)["text"] for file in audio]
    return [text.upper() if parameters.get("prompt") == "SHOUT" else text for text in found]


def listen_well(audio: bytes):
    try:
        heard = tones.listen(audio)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    return heard["text"], tones.details(heard)


def same(x):
    return x
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def served(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    (folder / "openai_models.py").write_text(MODELS)
    labels = json.dumps(text_models.LABELS)
    text = FLEET.format(url=upstream.url, labels=labels, width=text_models.WIDTH)
    (folder / "fleet.yaml").write_text(text)
    plan = blueprint(folder / "fleet.yaml")
    with serving(plan.catalog, secrets=plan.secrets) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(upstream: Upstream) -> Iterator[None]:
    yield
    upstream.forget()


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=10) as found:
        yield found


def words(upstream: Upstream, prompt: str = PROMPT, most: int = 16) -> list[str]:
    return list(upstream.words.write(prompt, most))


def post(served: Served, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/{path}", json=body, headers=headers)


# --- completions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["near", "talker", "writer"])
def test_a_prompt_goes_on(client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    raw = client.completions.with_raw_response.create(model=model, prompt=PROMPT, max_tokens=5, user="u1")
    reply = raw.parse()
    expected = words(upstream, most=5)
    choice = reply.choices[0]
    assert (choice.text, choice.index, choice.logprobs) == ("".join(expected), 0, None)
    assert reply.object == "text_completion"
    assert reply.model == model == raw.headers["semaforo-model"]
    assert reply.id == f"cmpl-{raw.headers['semaforo-request-id']}"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(expected)
    if model == "near":
        assert choice.finish_reason == "length"
        assert upstream.seen[0]["prompt"] == PROMPT
        assert "messages" not in upstream.seen[0]
        assert upstream.seen[0]["user"] == "u1"
    elif model == "talker":
        assert upstream.seen[0]["messages"] == [{"role": "user", "content": PROMPT}]
        assert "prompt" not in upstream.seen[0]


@pytest.mark.parametrize("model", ["near", "talker", "writer"])
def test_a_stream_of_text(client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    chunks = list(
        client.completions.create(
            model=model,
            prompt=PROMPT,
            max_tokens=16,
            stream=True,
            echo=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [chunk.choices[0].text for chunk in chunks if chunk.choices and chunk.choices[0].text]
    expected = words(upstream)
    assert texts == [PROMPT + expected[0], *expected[1:]]
    finish = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert finish[-1] == ("length" if model == "near" else "stop")
    assert not any(finish[:-1])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(expected)
    assert {chunk.object for chunk in chunks} == {"text_completion"}


def test_prompts_times_n_are_choices_in_order(client: openai.OpenAI, upstream: Upstream) -> None:
    prompts = ["the fast train", "the signal box"]
    reply = client.completions.create(model="near", prompt=prompts, n=2, max_tokens=4)
    expected = ["".join(words(upstream, prompt, 4)) for prompt in prompts for _ in range(2)]
    assert [choice.text for choice in reply.choices] == expected
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.usage is not None
    written = 2 * sum(len(words(upstream, prompt, 4)) for prompt in prompts)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (12, written)
    found = [""] * 4
    for chunk in client.completions.create(model="near", prompt=prompts, n=2, max_tokens=4, stream=True):
        found[chunk.choices[0].index] += chunk.choices[0].text
    assert found == expected


def test_what_only_a_completing_model_honours_reaches_it(client: openai.OpenAI, upstream: Upstream) -> None:
    reply = client.completions.create(
        model="near",
        prompt=PROMPT,
        suffix=" end",
        logprobs=2,
        echo=True,
        best_of=3,
        max_tokens=3,
        stream=False,
    )
    assert reply.choices[0].text == PROMPT + "".join(words(upstream, most=3)) + " end"
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.tokens == words(upstream, most=3)
    seen = upstream.seen[0]
    assert (seen["suffix"], seen["logprobs"], seen["echo"], seen["best_of"]) == (" end", 2, True, 3)


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"prompt": None}, "prompt", "a text"),
        ({"prompt": []}, "prompt", "list of texts"),
        ({"prompt": [1, 2]}, "prompt", "send the texts"),
        ({"prompt": [[1, 2]]}, "prompt", "send the texts"),
        ({"prompt": ["a", None]}, "prompt[1]", "must be a text"),
        ({"prompt": ["a"] * 200}, "prompt", "several requests"),
        ({"n": 129}, "n", "several requests"),
        ({"n": 2, "best_of": 1}, "best_of", "not done here"),
        ({"stop": [1]}, "stop", "list of texts"),
        ({"echo": "yes"}, "echo", "true or false"),
        ({"logprobs": True}, "logprobs", "whole number"),
        ({"max_tokens": -1}, "max_tokens", "at least 0"),
        ({"stream_options": {}}, "stream_options", "only where"),
        ({"model": "writer", "suffix": "x"}, "suffix", "completions: true"),
        ({"model": "write", "logprobs": 1}, "logprobs", "completions: true"),
        ({"model": "embed"}, "model", "/v1/embeddings"),
        ({"model": "digits"}, "model", "/v2/models/digits/infer"),
        ({"model": "auto"}, "model", "2: name one of chat, write"),
    ],
)  # fmt: skip
def test_a_wrong_completion_names_the_field(
    served: Served, upstream: Upstream, fields: dict[str, Any], param: str, text: str
) -> None:
    reply = post(served, "completions", {"model": "near", "prompt": PROMPT, **fields})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert text in error["message"]
    assert not upstream.seen


def test_one_choice_that_fails_ends_the_others(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.word_s = 0.05
    upstream.faults += [Fault("none", 100), Fault(status=400, body={"error": {"message": "too long"}})]
    with pytest.raises(openai.BadRequestError, match="too long"):
        client.completions.create(model="near", prompt=["the", "train"], max_tokens=5000)
    upstream.wait(lambda: upstream.running == 0)


def test_a_client_that_leaves_frees_all_choices(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.word_s = 0.05
    stream = client.completions.create(
        model="near", prompt=["the train", "the signal"], stream=True, max_tokens=5000
    )
    next(iter(stream))
    upstream.wait(lambda: upstream.running == 2)
    stream.close()
    upstream.wait(lambda: upstream.running == 0 and upstream.cancelled == 2)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_silent_stream_shows_that_it_lives(
    served: Served, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for module in ("chat", "completions"):
        monkeypatch.setattr(f"semaforo.server.openai.{module}.SILENCE_S", 0.02)
    upstream.word_s = 0.1
    body = {"model": "near", "prompt": PROMPT, "messages": [{"role": "user", "content": PROMPT}]}
    reply = post(served, path, body | {"stream": True, "max_tokens": 3})
    events = reply.text.split("\n\n")
    assert ": still working" in events[1:-1]
    told = [json.loads(event[6:])["choices"][0] for event in events if event.startswith("data: {")]
    said = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in told)
    assert said == "".join(words(upstream, most=3))
    assert events[-2:] == ["data: [DONE]", ""]


# --- embeddings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["vectors", "own-vectors"])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_texts_become_vectors_in_order(client: openai.OpenAI, model: str, encoding: Any) -> None:
    texts = ["the slow train", "a fast train waits for no one", ""]
    given = {} if encoding is None else {"encoding_format": encoding}
    reply = client.embeddings.create(model=model, input=texts, **given)
    found: list[Any] = [entry.embedding for entry in reply.data]
    if encoding == "base64":
        found = [np.frombuffer(base64.b64decode(text), "<f4") for text in found]
    np.testing.assert_allclose(found, [text_models.embed(text) for text in texts], atol=1e-6)
    assert [entry.index for entry in reply.data] == [0, 1, 2]
    assert reply.model == model
    expected = sum(map(text_models.tokens, texts)) if model == "vectors" else 4 + 8 + 0
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (expected, expected)


def test_a_long_list_comes_back_whole(client: openai.OpenAI) -> None:
    texts = [f"train {number} waits" for number in range(4000)]
    found = [entry.embedding for entry in client.embeddings.create(model="own-vectors", input=texts).data]
    for number in (0, 1999, 3999):
        np.testing.assert_allclose(found[number], text_models.embed(texts[number]), atol=1e-6)


def test_many_requests_at_once_share_batches_and_keep_apart(served: Served, upstream: Upstream) -> None:
    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            calls = [
                client.embeddings.create(model="embed", input=f"{n} trains", user="u") for n in range(40)
            ]
            return await asyncio.gather(*calls)

    replies = asyncio.run(run())
    for number, reply in enumerate(replies):
        expected = text_models.embed(f"{number} trains")
        np.testing.assert_allclose(reply.data[0].embedding, expected, atol=1e-6)
    # Each has its share of what the upstream counted for a batch.
    assert sum(reply.usage.prompt_tokens for reply in replies) == 80
    assert len(upstream.seen) < 40
    assert all(body["user"] == "u" for body in upstream.seen)


def test_dimensions_are_the_upstreams_or_are_checked(client: openai.OpenAI, upstream: Upstream) -> None:
    reply = client.embeddings.create(model="text-embedding-3-small", input="x", dimensions=4)
    assert len(reply.data[0].embedding) == 4
    assert upstream.seen[0]["dimensions"] == 4
    with pytest.raises(openai.BadRequestError, match="gives embeddings of 8, not 4"):
        client.embeddings.create(model="own-vectors", input="x", dimensions=4)


def test_a_text_at_fault_fails_alone(served: Served, upstream: Upstream) -> None:
    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            texts = ["poison" if n == 7 else f"{n} trains" for n in range(20)]
            calls = [client.embeddings.create(model="embed", input=text) for text in texts]
            return await asyncio.gather(*calls, return_exceptions=True)

    replies = asyncio.run(run())
    assert isinstance(replies[7], openai.BadRequestError)
    assert "poison" in replies[7].message
    assert [number for number, reply in enumerate(replies) if isinstance(reply, Exception)] == [7]


def test_an_upstream_that_fails_is_tried_again_as_a_whole(served: Served, upstream: Upstream) -> None:
    upstream.faults.append(Fault(status=500))
    assert post(served, "embeddings", {"model": "vectors", "input": ["a", "b"]}).status_code == 200
    assert [body["input"] for body in upstream.seen] == [["a", "b"], ["a", "b"]]
    upstream.faults += [Fault(status=401)] * 8
    reply = post(served, "embeddings", {"model": "vectors", "input": "a"})
    assert reply.status_code == 500
    assert "operator's key" in reply.json()["error"]["message"]


def test_an_upstreams_limit_is_waited_for(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.limit, upstream.window_s = 1, 0.5
    patient = client.with_options(max_retries=5)
    for _ in range(3):
        assert patient.embeddings.create(model="vectors", input="x").data[0].embedding
    assert upstream.refused <= 4


def test_a_deadline_and_a_client_that_gives_up_free_the_upstream(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.faults.append(Fault("hang"))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).embeddings.create(model="vectors", input="x")
    upstream.wait(lambda: upstream.running == 0 and upstream.cancelled == 1)


@pytest.mark.parametrize(
    ("fields", "status", "param", "text"),
    [
        ({"input": None}, 400, "input", "a text or a list"),
        ({"input": []}, 400, "input", "list of texts"),
        ({"input": [3, 4]}, 400, "input", "send the texts"),
        ({"input": ["a", True]}, 400, "input[1]", "must be a text"),
        ({"input": [{"type": "text", "text": "a"}]}, 400, "input[0]", "send texts"),
        ({"input": ["a"] * 5000}, 400, "input", "takes 4096 at once"),
        ({"encoding_format": "hex"}, 400, "encoding_format", "none of"),
        ({"dimensions": 0}, 400, "dimensions", "at least 1"),
        ({"model": "vektors"}, 404, "model", "Did you mean 'vectors'"),
        ({"model": 7}, 400, "model", "give the name"),
        ({"model": "auto"}, 400, "model", "embed, embed-here"),
        ({"model": "near"}, 400, "model", "'near' chats"),
        ({"service_tier": "gold"}, 400, "service_tier", "none of"),
    ],
)
def test_a_wrong_embedding_names_the_field(
    served: Served, fields: dict[str, Any], status: int, param: str, text: str
) -> None:
    reply = post(served, "embeddings", {"model": "embed", "input": "x", **fields})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (status, param)
    assert text in error["message"]


def test_contract_tier_and_key_hold_for_rows_too(
    served: Served, client: openai.OpenAI, upstream: Upstream
) -> None:
    body = {"model": "embed", "input": "x", "service_tier": "flex"}
    number = post(served, "embeddings", body).headers["semaforo-request-id"]
    explained = served.call(lambda: served.engine.explanation(number))
    assert explained.request.contract.priority.name == "LOW"
    assert explained.request.prompt_tokens == 1
    assert "service_tier" not in upstream.seen[-1]
    refused = post(served, "embeddings", body, **{"semaforo-privacy": "site"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unsatisfiable")
    upstream.seen.clear()
    key = {"semaforo-idempotency-key": "once"}
    first, second = (post(served, "embeddings", body, **key) for _ in range(2))
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"
    assert len(upstream.seen) == 1


# --- moderations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["judge", "own-judge"])
def test_moderations(client: openai.OpenAI, model: str) -> None:
    texts = ["you stupid idiot", "be careful", "all clear"]
    reply = client.moderations.create(model=model, input=texts)
    assert reply.model == model
    scores: list[Any] = [result.category_scores.model_dump(by_alias=True) for result in reply.results]
    for text, found in zip(texts, scores, strict=True):
        assert {label: found[label] for label in text_models.LABELS} == text_models.scores(text)
    # The upstream's own verdict is passed on; without one it is a score of one half that counts.
    assert [result.flagged for result in reply.results] == [True, model == "judge", False]
    assert reply.results[0].categories.harassment is True
    assert reply.results[0].categories.violence is False


def test_a_moderation_without_a_model_needs_one_task(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="moderate, moderate-here"):
        client.moderations.create(input="x")


# --- transcriptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["whisper-1", "own-ear", "good-ear"])
def test_a_recording_is_written_down(client: openai.OpenAI, model: str) -> None:
    file = ("said.wav", tones.record(SAID))
    assert client.audio.transcriptions.create(model=model, file=file).text == SAID
    assert client.audio.transcriptions.create(model=model, file=file, response_format="text") == SAID + "\n"


def test_the_fields_of_a_form_reach_the_model(client: openai.OpenAI, upstream: Upstream) -> None:
    sound = tones.record(SAID)
    client.audio.transcriptions.create(
        model="ear", file=("a b.wav", sound), language="en", prompt="trains", temperature=0.2,
        response_format="verbose_json", timestamp_granularities=["segment"], extra_body={"odd": "7"},
    )  # fmt: skip
    form = upstream.seen[0]
    assert (form["filename"], form["file"], form["model"]) == ("a b.wav", sound, "bigram")
    assert (form["language"], form["prompt"], form["temperature"], form["odd"]) == (
        "en",
        "trains",
        "0.2",
        "7",
    )
    assert form["response_format"] == "verbose_json"
    assert form["timestamp_granularities[]"] == "segment"
    loud = client.audio.transcriptions.create(model="own-ear", file=("a.wav", sound), prompt="SHOUT")
    assert loud.text == SAID.upper()


@pytest.mark.parametrize("model", ["ear", "good-ear"])
def test_segments_become_subtitles(client: openai.OpenAI, model: str) -> None:
    file = ("said.wav", tones.record(SAID))
    whole: Any = client.audio.transcriptions.create(model=model, file=file, response_format="verbose_json")
    assert (whole.text, whole.language, whole.duration) == (SAID, "english", 1.2)
    assert [segment.text for segment in whole.segments] == SAID.split()
    srt: Any = client.audio.transcriptions.create(model=model, file=file, response_format="srt")
    assert srt.startswith("1\n00:00:00,000 --> 00:00:00,180\nthe\n\n2\n00:00:00,240 --> 00:00:00,480\nslow\n")
    vtt: Any = client.audio.transcriptions.create(model=model, file=file, response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.180\nthe\n\n00:00:00.240 -->")


def test_a_model_that_gives_a_text_only_says_what_is_known(client: openai.OpenAI) -> None:
    file = ("said.wav", tones.record(SAID))
    whole: Any = client.audio.transcriptions.create(
        model="own-ear", file=file, response_format="verbose_json", language="en"
    )
    assert (whole.text, whole.language, whole.duration, whole.segments) == (SAID, "en", 1.2, None)


@pytest.mark.parametrize("model", ["ear", "good-ear"])
def test_what_is_no_recording_is_the_clients_fault(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="no WAV file"):
        client.audio.transcriptions.create(model=model, file=("x.wav", b"no sound"))


def test_a_wrong_form_names_the_field(served: Served) -> None:
    def form(files: Any = None, **fields: str) -> tuple[int, Any, str]:
        files = {"file": ("a.wav", tones.record("a"))} if files is None else files
        reply = httpx.post(
            f"{served.url}/v1/audio/transcriptions", files=files, data={"model": "own-ear", **fields}
        )
        error = reply.json()["error"]
        return reply.status_code, error["param"], error["message"]

    for files, fields, param, text in (
        ({"other": b"x"}, {}, "file", "as a file"),
        ({"file": ("a.wav", b"")}, {}, "file", "empty"),
        (None, {"response_format": "srt"}, "response_format", "no segments"),
        (
            None,
            {"response_format": "verbose_json", "timestamp_granularities[]": "word"},
            "timestamp_granularities",
            "no segments",
        ),
        (None, {"response_format": "doc"}, "response_format", "none of"),
        (None, {"temperature": "hot"}, "temperature", "from 0 to 1"),
        (None, {"stream": "true"}, "stream", "come whole"),
        (None, {"model": ""}, "model", "give the name"),
        (None, {"model": "own-judge"}, "model", "/v1/moderations"),
    ):
        status, found, message = form(files, **fields)
        assert (status, found) == (400, param)
        assert text in message
    reply = post(served, "audio/transcriptions", {"model": "own-ear"})
    assert reply.status_code == 400
    assert "multipart/form-data" in reply.json()["error"]["message"]


# --- the rest ------------------------------------------------------------------------------------------


def test_every_name_that_can_be_asked_is_listed(served: Served, client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"near", "write", "embed", "own-vectors", "judge", "listen-well", "whisper-1"} <= names
    assert names.isdisjoint({"digits", "echo", "auto"})
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    for name in ("org/model", "org%2Fmodel"):
        reply = httpx.get(f"{served.url}/v1/models/{name}")
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "model_not_found"
        assert "'org/model'" in reply.json()["error"]["message"]


def test_what_openai_reaches_v2_reaches_too(served: Served) -> None:
    tensor = {"name": "words", "shape": [1], "datatype": "BYTES", "data": [PROMPT]}
    reply = httpx.post(f"{served.url}/v2/models/embed-here/infer", json={"inputs": [tensor]})
    np.testing.assert_allclose(reply.json()["outputs"][0]["data"], text_models.embed(PROMPT), atol=1e-6)
