"""The official client of OpenAI against a served fleet, whose upstreams are real servers too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from semaforo.build import blueprint
from served_fleet import Served, serving
from upstream import Fault, Upstream

KEY = "sk-the-operators"
ASK = "Where does the slow train wait"
MESSAGES: Any = [{"role": "user", "content": ASK}]
SITE = {"semaforo-privacy": "site"}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "announce",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
]
FLEET = """
tasks:
  chat: {{kind: chat}}
  digits: {{inputs: {{x: fp32[2]}}, outputs: {{y: fp32[2]}}}}
models:
  near:
    task: chat
    url: {near}
    quality: 0.6
    sees: [public, internal, site]
    options: {{model: bigram, timeout_s: 5}}
  far:
    task: chat
    url: {far}
    key: {key}
    quality: 0.9
    cost: {{input: 2.50, output: 10.00}}
    capabilities: [tools]
    options: {{model: bigram, timeout_s: 5}}
  writer:
    task: chat
    python: openai_writer:write
    quality: 0.1
    isolation: thread
  apart:
    task: chat
    python: openai_writer:write
    quality: 0.1
    isolation: process
  echo:
    task: digits
    python: openai_writer:same
    isolation: thread
aliases: {{best: far}}
"""
WRITER = f'''
import sys

sys.path.append({str(Path(__file__).parents[1])!r})

from upstream import TEXT, Bigrams

WORDS = Bigrams(TEXT)


def write(messages, max_tokens=20):
    """Write like the upstream does, in this process."""
    yield from WORDS.write(messages[-1]["content"], max_tokens)


def same(x):
    return x
'''


@pytest.fixture(scope="module")
def near() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def far() -> Iterator[Upstream]:
    with Upstream(key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def served(near: Upstream, far: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    (folder / "openai_writer.py").write_text(WRITER)
    (folder / "fleet.yaml").write_text(FLEET.format(near=near.url, far=far.url, key=KEY))
    plan = blueprint(folder / "fleet.yaml")
    with serving(plan.catalog, secrets=plan.secrets) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(near: Upstream, far: Upstream) -> Iterator[None]:
    yield
    near.forget()
    far.forget()


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=10) as found:
        yield found


def text(upstream: Upstream, most: int = 40) -> str:
    return "".join(upstream.words.write(ASK, most))


def test_a_chat_is_answered_and_says_by_whom(client: openai.OpenAI, near: Upstream) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="near", messages=MESSAGES, temperature=0.5, extra_body={"odd": {"deep": [1, None]}}
    )
    reply = raw.parse()
    assert reply.choices[0].message.content == text(near)
    assert (reply.choices[0].message.role, reply.choices[0].finish_reason) == ("assistant", "stop")
    assert reply.model == "near"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(text(near).split())
    assert raw.headers["semaforo-model"] == "near"
    assert raw.headers["semaforo-variant"] == "default"
    assert raw.headers["semaforo-replica"]
    assert reply.id == f"chatcmpl-{raw.headers['semaforo-request-id']}"
    assert near.seen[0]["odd"] == {"deep": [1, None]}
    assert near.seen[0]["temperature"] == 0.5
    assert near.seen[0]["model"] == "bigram"


def test_a_stream_gives_the_same_words_one_by_one(client: openai.OpenAI, near: Upstream) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="near", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(raw.parse())
    words = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(words) == text(near)
    assert len(words) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(words)
    assert {c.model for c in chunks} == {"near"}
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["semaforo-model"] == "near"
    assert raw.headers["semaforo-replica"]


def test_the_async_client_runs_many_chats_and_streams_at_once(served: Served, near: Upstream) -> None:
    near.word_s = 0.005

    async def stream(client: openai.AsyncOpenAI, number: int) -> str:
        asked: Any = [{"role": "user", "content": f"{number} train"}]
        found = ""
        async for chunk in await client.chat.completions.create(
            model="near", messages=asked, stream=True, max_tokens=10 + number
        ):
            found += chunk.choices[0].delta.content or ""
        return found

    async def whole(client: openai.AsyncOpenAI, number: int) -> str:
        asked: Any = [{"role": "user", "content": f"{number} train"}]
        reply = await client.chat.completions.create(model="near", messages=asked, max_tokens=10 + number)
        return reply.choices[0].message.content or ""

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            calls = [(stream if number % 2 else whole)(client, number) for number in range(12)]
            return await asyncio.gather(*calls)

    expected = ["".join(near.words.write(f"{number} train", 10 + number)) for number in range(12)]
    assert asyncio.run(run()) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_tools_go_through_to_a_model_that_has_them(
    client: openai.OpenAI, far: Upstream, near: Upstream, stream: bool
) -> None:
    arguments = ""
    if stream:
        chunks = list(
            client.chat.completions.create(model="chat", messages=MESSAGES, tools=TOOLS, stream=True)
        )
        calls = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
        name = calls[0][0].function.name
        arguments = "".join(call[0].function.arguments or "" for call in calls)
        finish = chunks[-1].choices[0].finish_reason
        assert len(calls) > 3
    else:
        choice = client.chat.completions.create(model="chat", messages=MESSAGES, tools=TOOLS).choices[0]
        assert choice.message.tool_calls is not None
        call: Any = choice.message.tool_calls[0]
        name, arguments, finish = call.function.name, call.function.arguments, choice.finish_reason
    assert (name, json.loads(arguments), finish) == ("announce", {"text": ASK}, "tool_calls")
    assert far.seen[0]["tools"] == TOOLS
    assert not near.seen


def test_names_of_models_tasks_aliases_and_auto(client: openai.OpenAI, far: Upstream) -> None:
    names = [model.id for model in client.models.list()]
    assert set(names) == {"auto", "chat", "near", "far", "writer", "apart", "best"}
    assert client.models.retrieve("best").id == "best"
    for name in ("auto", "chat"):
        assert client.chat.completions.create(model=name, messages=MESSAGES).choices[0].message.content
    assert client.chat.completions.create(model="best", messages=MESSAGES).model == "far"
    assert far.headers["authorization"] == f"Bearer {KEY}"
    with pytest.raises(openai.NotFoundError, match="Did you mean 'near'"):
        client.models.retrieve("naer")


@pytest.mark.parametrize("model", ["writer", "apart"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_python_generator_chats(client: openai.OpenAI, near: Upstream, stream: bool, model: str) -> None:
    reply: Any = client.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
    if stream:
        found = "".join(chunk.choices[0].delta.content or "" for chunk in reply)
    else:
        found = reply.choices[0].message.content
        assert reply.usage.completion_tokens == len(found.split())
    assert found == "".join(near.words.write(ASK, 20))


@pytest.mark.parametrize(
    ("fields", "kind", "param", "text_"),
    [
        ({"model": "naer"}, openai.NotFoundError, "model", "Did you mean 'near'"),
        ({"model": "digits"}, openai.BadRequestError, "model", "/v2/models/digits/infer"),
        ({"messages": []}, openai.BadRequestError, "messages", "at least one"),
        ({"messages": [{"role": "usr", "content": "x"}]}, openai.BadRequestError, "messages[0].role", "user"),
        ({"n": 3}, openai.BadRequestError, "n", "one choice"),
        ({"service_tier": "gold"}, openai.BadRequestError, "service_tier", "none of"),
        ({"extra_headers": {"semaforo-priority": "top"}}, openai.BadRequestError, None, "semaforo-priority"),
        ({"model": "near", "tools": TOOLS}, openai.UnprocessableEntityError, None, "near"),
        ({"model": "far", "extra_headers": SITE}, openai.UnprocessableEntityError, None, "far"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_refused_before_it_reaches_a_model(
    client: openai.OpenAI, near: Upstream, far: Upstream,
    fields: dict[str, Any], kind: type[openai.APIStatusError], param: str | None, text_: str, stream: bool,
) -> None:  # fmt: skip
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "chat", "messages": MESSAGES, "stream": stream, **fields})
    body: Any = caught.value.body
    assert text_ in body["message"]
    assert body["param"] == param
    assert body["type"] == "invalid_request_error"
    assert caught.value.response.headers["semaforo-request-id"]
    assert not near.seen
    assert not far.seen


def test_what_is_no_json_and_what_is_no_route(served: Served) -> None:
    broken = httpx.post(f"{served.url}/v1/chat/completions", content=b"{")
    assert broken.status_code == 400
    assert "not valid JSON" in broken.json()["error"]["message"]
    missing = httpx.post(f"{served.url}/v1/assistants", content=b"{}")
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "invalid_request_error"
    wrong = httpx.get(f"{served.url}/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstreams_word_on_the_request_reaches_the_client(
    client: openai.OpenAI, near: Upstream, stream: bool
) -> None:
    near.faults.append(Fault(status=400, body={"error": {"message": "the context is too long"}}))
    with pytest.raises(openai.BadRequestError, match="the context is too long"):
        client.chat.completions.create(model="near", messages=MESSAGES, stream=stream)
    assert len(near.seen) == 1


@pytest.mark.parametrize("kind", ["cut", "end", "error", "garbage"])
def test_a_failure_before_the_first_word_is_made_good_elsewhere(
    client: openai.OpenAI, near: Upstream, far: Upstream, kind: str
) -> None:
    for upstream in (near, far):
        upstream.faults.append(Fault(kind, 0))
    chunks = client.chat.completions.create(model="chat", messages=MESSAGES, stream=True, max_tokens=20)
    found = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert found == text(near, 20)
    assert not (near.faults and far.faults), "nothing failed"


@pytest.mark.parametrize("kind", ["cut", "error"])
def test_a_failure_amid_a_stream_is_said_in_the_stream(
    client: openai.OpenAI, near: Upstream, kind: str
) -> None:
    near.faults.append(Fault(kind, 3))
    words: list[str] = []
    stream = client.chat.completions.create(model="near", messages=MESSAGES, stream=True)

    def read() -> None:
        for chunk in stream:
            words.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError, match="upstream"):
        read()
    assert words == list(near.words.write(ASK, 3))


def test_a_client_that_leaves_a_stream_frees_the_upstream(client: openai.OpenAI, near: Upstream) -> None:
    near.word_s = 0.02
    stream = client.chat.completions.create(model="near", messages=MESSAGES, stream=True, max_tokens=5000)
    next(iter(stream))
    assert near.running == 1
    stream.close()
    near.wait(lambda: near.running == 0 and near.cancelled == 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_gives_up_waiting_frees_the_upstream(
    client: openai.OpenAI, near: Upstream, stream: bool
) -> None:
    near.faults.append(Fault("hang", 0 if stream else 2))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.8).chat.completions.create(
            model="near", messages=MESSAGES, stream=stream
        )
    near.wait(lambda: near.running == 0 and near.cancelled == 1)


def test_a_rate_limit_is_waited_for(client: openai.OpenAI, near: Upstream) -> None:
    near.limit, near.window_s = 1, 0.6
    patient = client.with_options(max_retries=5)
    begun = time.monotonic()
    for _ in range(3):
        reply = patient.chat.completions.create(model="near", messages=MESSAGES)
        assert reply.choices[0].message.content == text(near)
    assert time.monotonic() - begun > 0.6
    # What the upstream said was heeded: it was not asked again and again while it was full.
    assert near.refused <= 4


def test_a_deadline_that_passes_is_said_and_the_work_stops(client: openai.OpenAI, near: Upstream) -> None:
    near.faults.append(Fault("hang", 0))
    begun = time.monotonic()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="near", messages=MESSAGES, max_tokens=2, extra_headers={"semaforo-deadline-ms": "700"}
        )
    assert caught.value.status_code in (503, 504)
    assert time.monotonic() - begun < 3
    body: Any = caught.value.body
    assert body["type"] == "server_error"
    near.wait(lambda: near.running == 0)


def test_an_idempotency_key_answers_a_retry_once(client: openai.OpenAI, near: Upstream) -> None:
    headers = {"semaforo-idempotency-key": "once"}
    replies = [
        client.chat.completions.create(model="near", messages=MESSAGES, extra_headers=headers)
        for _ in range(2)
    ]
    assert replies[0] == replies[1]
    assert len(near.seen) == 1
    with pytest.raises(openai.ConflictError):
        client.chat.completions.create(model="best", messages=MESSAGES, extra_headers=headers)
    with pytest.raises(openai.BadRequestError, match="idempotency"):
        client.chat.completions.create(model="near", messages=MESSAGES, stream=True, extra_headers=headers)


def test_the_operators_key_is_at_fault_when_an_upstream_refuses_it(
    client: openai.OpenAI, far: Upstream
) -> None:
    far.key = "sk-changed"
    try:
        with pytest.raises(openai.InternalServerError, match="operator's key") as caught:
            client.chat.completions.create(model="far", messages=MESSAGES)
    finally:
        far.key = KEY
    assert KEY not in str(caught.value)


def test_a_service_tier_is_a_priority_and_a_header_wins(served: Served, client: openai.OpenAI) -> None:
    for headers, priority in (({}, "HIGH"), ({"semaforo-priority": "low"}, "LOW")):
        raw = client.chat.completions.with_raw_response.create(
            model="near", messages=MESSAGES, service_tier="priority", extra_headers=headers
        )
        number = raw.headers["semaforo-request-id"]
        explained = served.call(lambda number=number: served.engine.explanation(number))
        assert explained.request.contract.priority.name == priority
        assert explained.request.prompt_tokens == 4 + (len(ASK) + 3) // 4
