"""V2's generate extension on a chat task whose upstream is a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from semaforo.build import blueprint
from served_fleet import Served, serving
from upstream import Fault, Upstream

FLEET = """
tasks:
  chat: {{kind: chat}}
models:
  writer: {{task: chat, url: {url}, options: {{model: bigram, timeout_s: 5}}}}
"""
PROMPT = "Where does the slow train wait"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(word_s=0.01) as server:
        yield server


@pytest.fixture(scope="module")
def served(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    (folder / "fleet.yaml").write_text(FLEET.format(url=upstream.url))
    with serving(blueprint(folder / "fleet.yaml").catalog) as running:
        yield running


@pytest.fixture
def http(served: Served, upstream: Upstream) -> Iterator[httpx.Client]:
    upstream.faults.clear()
    with httpx.Client(base_url=f"{served.url}/v2/models/chat", timeout=20) as client:
        yield client


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(part.removeprefix("data: ")) for part in text.strip().split("\n\n")]


def test_a_chat_task_is_described_as_text(http: httpx.Client) -> None:
    told = http.get("").json()
    assert [spec["name"] for spec in told["inputs"] + told["outputs"]] == ["text_input", "text_output"]
    refused = http.post("/infer", json={"inputs": []})
    assert refused.status_code == 400
    assert "/v1/chat/completions or /v2/models/chat/generate" in refused.json()["error"]


def test_the_whole_answer_and_the_streamed_one_hold_the_same_words(
    http: httpx.Client, upstream: Upstream
) -> None:
    asked = {
        "id": "g",
        "text_input": PROMPT,
        "max_tokens": 8,
        "parameters": {"temperature": 0, "priority": 1},
    }
    whole = http.post("/generate", json=asked)
    told = whole.json()
    assert (told["id"], told["model_name"]) == ("g", "writer")
    assert 1 <= len(told["text_output"].split()) <= 8
    assert whole.headers["semaforo-model"] == "writer"
    seen = upstream.seen[-1]
    assert seen["messages"] == [{"role": "user", "content": PROMPT}]
    assert (seen["max_tokens"], seen["temperature"]) == (8, 0)
    assert "priority" not in seen
    stream = http.post("/generate_stream", json=asked)
    assert stream.headers["content-type"].startswith("text/event-stream")
    parts = events(stream.text)
    assert len(parts) > 3
    assert "".join(part["text_output"] for part in parts) == told["text_output"]
    assert parts[-1]["model_name"] == "writer"


@pytest.mark.parametrize("body", [{}, {"text_input": 7}, {"text_input": "x", "max_tokens": -1}, [1], "x"])
def test_what_is_no_prompt_is_refused(http: httpx.Client, body: Any) -> None:
    for route in ("/generate", "/generate_stream"):
        response = http.post(route, json=body)
        assert response.status_code == 400
        assert list(response.json()) == ["error"]


def test_a_stream_that_breaks_off_says_so_in_band(http: httpx.Client, upstream: Upstream) -> None:
    upstream.faults.append(Fault("cut", after=3))
    stream = http.post("/generate_stream", json={"text_input": PROMPT})
    assert stream.status_code == 200
    parts = events(stream.text)
    assert list(parts[-1]) == ["error"]
    assert parts[-1]["error"]
    upstream.faults.append(Fault("cut", after=3))
    assert http.post("/generate", json={"text_input": PROMPT}).status_code >= 500


@pytest.mark.parametrize("route", ["/generate", "/generate_stream"])
def test_a_client_that_goes_away_stops_the_upstream(
    http: httpx.Client, upstream: Upstream, route: str
) -> None:
    before = upstream.cancelled
    upstream.faults.append(Fault("hang", after=2))
    with pytest.raises(httpx.ReadTimeout):
        http.post(route, json={"text_input": PROMPT}, timeout=0.3)
    until = time.monotonic() + 3
    while upstream.cancelled == before and time.monotonic() < until:
        time.sleep(0.01)
    assert upstream.cancelled == before + 1
