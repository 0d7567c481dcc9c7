"""The language model of the examples, trained and served for these tests, and asked by OpenAI's own client.

It counts each character that it works out in a file, so that what it did can be told from what was sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import curl_blocks
from semaforo.build import blueprint
from served_fleet import Served, serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "language-model"
CONTEXT = 2048
PROMPT = "The core decides "
COUNTED = """
import os

from language_writer import Writer


class Counted(Writer):
    def __init__(self, count):
        super().__init__()
        self._count = os.open(count, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def step(self, ids, caches, begin):
        os.write(self._count, b".")
        return super().step(ids, caches, begin)
"""
NARROW = """
  narrow:
    task: one-by-one
    python: counted.py:Counted
    isolation: process
    options: {slots: 1, args: {count: COUNT}}
    stream: {first: 20ms, token: 2ms, slots: 1}
"""


class Running:
    """The served fleet, and the model's own count."""

    def __init__(self, served: Served, count: Path) -> None:
        self.served = served
        self.url = served.url
        self._count = count

    @property
    def steps(self) -> int:
        """Characters worked out so far, by all replicas."""
        return self._count.stat().st_size

    def figures(self, model: str = "writer") -> dict[str, Any]:
        """What the server tells of a model's one replica, and of the queue before it."""
        told = httpx.get(f"{self.url}/semaforo/v1/figures").json()
        task = "chat" if model == "writer" else "one-by-one"
        replica = next(one for one in told["replicas"] if one["variant"].startswith(f"{model}/"))
        waiting = next(one["waiting_rows"] for one in told["tasks"] if one["name"] == task)
        return replica | {"waiting": waiting, "cancelled": told["outcomes"].get("cancelled", 0)}

    def wait(self, condition: Callable[[dict[str, Any]], bool], model: str = "writer") -> dict[str, Any]:
        """Wait until the figures are so."""
        until = time.monotonic() + 20
        while not condition(found := self.figures(model)):
            assert time.monotonic() < until, found
            time.sleep(0.005)
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("language-model")
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, folder)
    # Workers find what this process finds, and the tests have a module of that name.
    (folder / "model.py").rename(folder / "language_writer.py")
    learning = subprocess.run(
        [sys.executable, "train.py", str(EXAMPLE.parents[1] / "README.md"), "--steps", "50"],
        cwd=folder, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert learning.returncode == 0, learning.stderr
    loss = re.search(r"to ([\d.]+) nats", learning.stdout)
    assert loss, learning.stdout
    assert float(loss[1]) < 3.3  # knowing nothing of its 90 characters would be 4.5
    count = folder / "count"
    fleet = (EXAMPLE / "fleet.yaml").read_text()
    fleet = fleet.replace("model.py:Writer", "counted.py:Counted")
    fleet = fleet.replace("{slots: 8}", f"{{slots: 4, args: {{count: {count}}}}}")
    fleet = fleet.replace("\nmodels:", "  one-by-one: {kind: chat, max_queue: 2}\n\nmodels:")
    fleet = fleet.replace("\ndevices:", NARROW.replace("COUNT", str(count)) + "\ndevices:")
    (folder / "fleet.yaml").write_text(fleet)
    (folder / "counted.py").write_text(COUNTED)
    plan = blueprint(folder / "fleet.yaml")
    with serving(plan.catalog, secrets=plan.secrets) as served:
        yield Running(served, count)


@pytest.fixture
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=30) as found:
        yield found


def asked(prompt: str = PROMPT, **more: Any) -> Any:
    fields = {"model": "writer", "messages": [{"role": "user", "content": prompt}], "seed": 1}
    return {"temperature": 1.0, **fields, **more}


def deltas(stream: Any) -> Iterator[str]:
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def text_of(client: openai.OpenAI, **fields: Any) -> str:
    return client.chat.completions.create(**asked(**fields)).choices[0].message.content or ""


def test_characters_are_streamed_as_they_are_written(running: Running, client: openai.OpenAI) -> None:
    begun = running.steps
    fields = asked(max_tokens=400, stream=True, stream_options={"include_usage": True})
    chunks = client.chat.completions.create(**fields)
    first = next(chunks)
    assert running.steps - begun < 400  # the first one came before the last one was written
    found = [first, *chunks]
    parts = list(deltas(found))
    assert [len(part) for part in parts] == [1] * 400
    assert found[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in found if chunk.choices][-1] == "length"
    usage = found[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(PROMPT), 400)
    assert running.steps - begun == 400
    assert text_of(client, max_tokens=400) == "".join(parts)


@pytest.mark.parametrize("stream", [False, True])
def test_it_stops_at_a_text_and_is_stopped_there(
    running: Running, client: openai.OpenAI, stream: bool
) -> None:
    text = text_of(client, max_tokens=120)
    stop = text[60:64]
    at = text.index(stop)
    begun = running.steps
    fields = asked(max_tokens=120, stop=["never said", stop])
    if stream:
        chunks = list(client.chat.completions.create(**fields, stream=True))
        found = "".join(deltas(chunks))
        finish = chunks[-1].choices[0].finish_reason
    else:
        answer = client.chat.completions.create(**fields)
        found, finish = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        assert answer.usage is not None
        assert answer.usage.completion_tokens == at + len(stop)
    assert (found, finish) == (text[:at], "stop")
    assert running.steps - begun == at + len(stop)


def test_the_context_bounds_prompt_and_answer(running: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=f"the prompt has {CONTEXT} tokens") as caught:
        text_of(client, prompt="a" * CONTEXT)
    assert caught.value.status_code == 400
    answer = client.chat.completions.create(**asked(prompt="a" * (CONTEXT - 30)))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (30, CONTEXT)


@pytest.mark.parametrize("fields", [{"stop": ""}, {"stop": [1]}, {"temperature": -1}, {"max_tokens": -5}])
def test_wrong_fields_are_a_400(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(fields))):
        text_of(client, **fields)


def test_a_client_that_goes_away_ends_the_writing(running: Running, client: openai.OpenAI) -> None:
    begun, cancelled = running.steps, running.figures()["cancelled"]
    stream = client.chat.completions.create(**asked(stream=True))
    coming = deltas(stream)
    assert len([next(coming) for _ in range(5)]) == 5
    stream.close()
    running.wait(lambda told: told["in_flight_rows"] == 0 and told["cancelled"] == cancelled + 1)
    text_of(client, max_tokens=1)  # by now the step that was cut off is over as well
    ended = running.steps
    assert ended - begun < CONTEXT - len(PROMPT)
    text_of(client, max_tokens=200)
    assert running.steps - ended == 200


@asynccontextmanager
async def async_client(running: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    base = f"{running.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=30) as found:
        yield found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_many_streams_at_once_write_what_each_writes_alone(
    running: Running, client: openai.OpenAI, temperature: float
) -> None:
    prompts = [f"{number} replicas are " for number in range(16)]
    fields = {"max_tokens": 40, "temperature": temperature}
    alone = [text_of(client, prompt=prompt, **fields) for prompt in prompts]
    seen: list[dict[str, Any]] = []

    async def one(asking: openai.AsyncOpenAI, prompt: str) -> str:
        stream = await asking.chat.completions.create(**asked(prompt=prompt, stream=True, **fields))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def run() -> list[str]:
        async with async_client(running) as asking:
            streams = asyncio.gather(*(one(asking, prompt) for prompt in prompts))
            while not streams.done():
                seen.append(await asyncio.to_thread(running.figures))
                await asyncio.sleep(0.005)
            return await streams

    assert asyncio.run(run()) == alone
    # How many differ depends on what it was trained on: enough that a mixed-up stream would show.
    assert len(set(alone)) > (4 if temperature else 1)
    assert max(told["in_flight_rows"] for told in seen) == 4
    assert max(told["waiting"] for told in seen) > 4


def test_the_queue_is_bounded_and_the_deadline_kept(running: Running, client: openai.OpenAI) -> None:
    narrow = {"model": "narrow", "stream": True}

    async def read(stream: Any) -> str:
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def run() -> None:
        async with async_client(running) as asking:
            ask = asking.chat.completions.create
            holder = await ask(**asked(**narrow))
            await anext(holder)
            with pytest.raises(openai.InternalServerError, match="deadline") as late:
                await ask(**asked(**narrow), extra_headers={"semaforo-deadline-ms": "60"})
            assert late.value.status_code in (503, 504)
            waiting = [asyncio.ensure_future(ask(**asked(**narrow, max_tokens=5))) for _ in range(2)]
            await asyncio.to_thread(running.wait, lambda told: told["waiting"] == 2, "narrow")
            with pytest.raises(openai.InternalServerError, match="full") as refused:
                await ask(**asked(**narrow))
            assert refused.value.status_code == 503
            assert int(refused.value.response.headers["retry-after"]) >= 1
            await holder.close()
            texts = [await read(stream) for stream in await asyncio.gather(*waiting)]
            assert texts == [text_of(client, max_tokens=5)] * 2

    asyncio.run(run())
    answer = client.chat.completions.create(
        **asked(max_tokens=5, model="narrow"), extra_headers={"semaforo-deadline-ms": "20000"}
    )
    assert answer.choices[0].finish_reason == "length"


def test_bench_loads_it_with_streams(running: Running) -> None:
    begun = running.steps
    words = ["--chat", "--task", "chat", "--stream", "--concurrency", "24", "--max-tokens", "30"]
    ran = subprocess.run(
        [sys.executable, "-m", "semaforo", "bench", running.url, *words, "--duration", "1500ms", "--json", "-"],
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["answered"] == told["requests"] >= 24
    assert running.steps - begun == 30 * (told["requests"] + 1)  # it asks once before it loads


def test_a_killed_worker_ends_its_streams_with_an_error_and_comes_back(
    running: Running, client: openai.OpenAI
) -> None:
    expected = text_of(client, max_tokens=40)
    told = running.figures()
    stream = client.chat.completions.create(**asked(stream=True))
    coming = deltas(stream)
    found = "".join(next(coming) for _ in range(5))
    os.kill(told["pid"], signal.SIGKILL)
    with pytest.raises(openai.APIError, match=r"replica .* was lost"):
        list(coming)
    assert expected.startswith(found)
    assert text_of(client, max_tokens=40) == expected
    again = running.wait(lambda now: now["state"] == "ready")
    assert again["pid"] != told["pid"]
    assert again["restarts"] == told["restarts"] + 1


@pytest.mark.parametrize("command", curl_blocks.curl_commands(EXAMPLE / "README.md"))
def test_the_example_s_curl_is_answered(running: Running, command: str) -> None:
    printed = curl_blocks.run(command, running.url)
    if '"stream": true' in command:
        assert printed.rstrip().endswith("data: [DONE]")
    else:
        assert len(json.loads(printed)["choices"][0]["text"]) == 80
