"""Deferred work as its users meet it: a server that is killed, and OpenAI's own client with files and batches."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from semaforo.server.deferred.hooks import signed, signing_key
from tiny_fleet import FLEET, write_fleet

QUEUE = {"semaforo-mode": "queue"}
MODELS = """\
import os
import time

RUNS = os.path.join(os.path.dirname(__file__), "runs")


def shout(text: list[str]) -> list[str]:
    for word in text:
        time.sleep(0.01)
        with open(RUNS, "a") as runs:
            runs.write(word + "\\n")
    return [word.upper() for word in text]


def parrot(messages):
    text = messages[-1]["content"]
    if text == "fail":
        raise ValueError("it was told to")
    time.sleep(0.2 if text == "slow" else 0.0)
    for word in text.split():
        yield word + " "
"""


class Server:
    """A real `semaforo serve` on a port that stays the same over restarts."""

    def __init__(self, folder: Path, deferred: str) -> None:
        self.fleet = write_fleet(folder, FLEET + f"deferred: {deferred}\n")
        (folder / "words.py").write_text(MODELS)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "semaforo", "serve", str(self.fleet), "--http-port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "serves" in line, self.process.communicate()[1]

    def end(self, number: signal.Signals) -> str:
        assert self.process is not None
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        self.process = None
        return errors


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, "{path: deferred.db, in_flight: 4}")
    server.start()
    yield server
    if server.process is not None:
        server.end(signal.SIGKILL)


async def _queue(url: str, count: int) -> list[str]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def one(n: int) -> str:
            call = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [f"item {n}"]}]}
            response = await client.post("/v2/models/shout/infer", json=call, headers=QUEUE)
            assert response.status_code == 202, response.text
            return str(response.json()["id"])

        return list(await asyncio.gather(*(one(n) for n in range(count))))


def _counts(client: httpx.Client) -> dict[str, int]:
    lines = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("semaforo_deferred{")
    ]
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}


def test_a_server_killed_in_the_middle_loses_nothing_and_repeats_nothing_that_is_kept(server: Server) -> None:
    names = asyncio.run(_queue(server.url, 200))
    assert len(set(names)) == 200
    runs = Path(server.fleet).parent / "runs"
    numbers = {name: n for n, name in enumerate(names)}
    kept: dict[str, bytes] = {}
    kills: list[tuple[int, set[str]]] = []
    for _ in range(2):
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while _counts(client)["done"] < len(kept) + 30:
                time.sleep(0.02)
            done = client.get("/semaforo/v1/deferred", params={"status": "done", "limit": 1000}).json()[
                "data"
            ]
            for entry in done:
                kept[entry["id"]] = client.get(entry["result"]["url"]).content
        server.end(signal.SIGKILL)
        kills.append((len(_ran(runs)), {f"item {numbers[name]}" for name in kept}))
        server.start()
    assert len(kept) < 200
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while _counts(client)["done"] < 200:
            time.sleep(0.05)
        assert _counts(client) == {
            "queued": 0, "running": 0, "done": 200, "failed": 0, "expired": 0, "cancelled": 0,
        }  # fmt: skip
        for n, name in enumerate(names):
            result = client.get(f"/semaforo/v1/deferred/{name}/result")
            assert result.json()["outputs"][0]["data"] == [f"ITEM {n}"]
            assert kept.get(name, result.content) == result.content
    ran = _ran(runs)
    assert {f"item {n}" for n in range(200)} == set(ran)
    for before, words in kills:
        assert not words & set(ran[before:]), "what was kept has run again"
    # At most what ran when the server was killed, twice, has run again.
    assert len(ran) <= 200 + 2 * 4
    server.end(signal.SIGTERM)


def _ran(runs: Path) -> list[str]:
    # A model is measured with words of its own before it serves.
    return [word for word in runs.read_text().splitlines() if word.startswith("item ")]


def test_a_second_server_on_the_same_queue_is_refused(server: Server) -> None:
    command = [sys.executable, "-m", "semaforo", "serve", str(server.fleet), "--http-port", "0"]
    # A journal has one writer too, and is opened first.
    text = server.fleet.read_text().replace("journal: journal.bin\n", "")
    other = server.fleet.with_name("other.yaml")
    other.write_text(text)
    command[4] = str(other)
    second = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert second.returncode != 0
    assert "in use by another server" in second.stderr
    assert "Traceback" not in second.stderr


def chat(name: str, content: str, **changed: Any) -> dict[str, Any]:
    body = {"model": "chat", "messages": [{"role": "user", "content": content}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **changed}


def lines(*entries: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def ended(client: openai.OpenAI, name: str) -> Any:
    for _ in range(2000):
        batch = client.batches.retrieve(name)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.01)
    raise AssertionError(batch)


def test_openais_client_makes_batches_and_reads_their_results(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    content = lines(chat("one", "hello there"), chat("two", "fail"), chat("three", "good bye"))
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert (file.purpose, file.filename, file.bytes) == ("batch", "requests.jsonl", len(content))
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"run": "7"},
    )
    assert batch.status == "validating"
    batch = ended(client, batch.id)
    assert (batch.status, batch.metadata) == ("completed", {"run": "7"})
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    output = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in output] == ["one", "three"]
    assert output[0]["response"]["body"]["choices"][0]["message"]["content"].strip() == "hello there"
    (failed,) = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("two", 500)
    assert "message" in failed["response"]["body"]["error"]
    assert [entry.id for entry in client.batches.list(limit=1)] == [batch.id]
    assert {entry.id for entry in client.files.list(limit=1)} == {
        file.id, batch.output_file_id, batch.error_file_id,
    }  # fmt: skip
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    server.end(signal.SIGINT)
    server.start()
    assert client.files.content(batch.output_file_id).text.count("\n") == 2


def test_a_batch_of_v2_requests(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    path = "/v2/models/double/infer"
    entries = [
        {
            "custom_id": str(n), "method": "POST", "url": path,
            "body": {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [n, n, n]}]},
        }
        for n in range(50)
    ]  # fmt: skip
    file = client.files.create(file=("v2.jsonl", lines(*entries)), purpose="batch")
    endpoint: Any = path
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint=endpoint,
        completion_window="1h",  # type: ignore[arg-type]  # OpenAI's own knows one
        extra_headers={"semaforo-privacy": "internal"},
    )
    batch = ended(client, batch.id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in answers] == [str(n) for n in range(50)]
    # 'exact' may see public data only, so the contract has ruled it out for every line.
    assert {line["response"]["body"]["model_name"] for line in answers} == {"rough"}


def test_wrong_batches_are_refused_with_their_lines(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    content = lines(chat("a", "x"), chat("a", "x"), chat("b", "x", url="/v1/embeddings")) + b"{\n"
    file = client.files.create(file=("wrong.jsonl", content), purpose="batch")
    good: dict[str, Any] = {
        "input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    }  # fmt: skip
    batch = ended(client, client.batches.create(**good).id)
    assert batch.status == "failed"
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "mismatched_endpoint"),
        (4, "invalid_json_line"),
    ]
    for changed, param in (
        ({"endpoint": "/v1/files"}, "endpoint"),
        ({"endpoint": "/semaforo/v1/replicas"}, "endpoint"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "9999h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"extra_body": {"output_expires_after": {}}}, "output_expires_after"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.create(**good | changed)
        assert refused.value.param == param
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a.jsonl", b"{}"), purpose="assistants")
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_a_batch_is_cancelled_or_expires(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    slow = lines(*(chat(str(n), "slow") for n in range(100)))
    file = client.files.create(file=("slow.jsonl", slow), purpose="batch")
    made = [
        client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window=window,  # type: ignore[arg-type]  # OpenAI's own knows one
        )
        for window in ("3s", "24h")
    ]
    while not all(client.batches.retrieve(batch.id).request_counts.completed for batch in made):
        time.sleep(0.02)
    assert client.batches.cancel(made[1].id).status == "cancelling"
    expired, cancelled = (ended(client, batch.id) for batch in made)
    assert (expired.status, cancelled.status) == ("expired", "cancelled")
    for batch, code in ((expired, "batch_expired"), (cancelled, "batch_cancelled")):
        counts = batch.request_counts
        assert counts.total == 100
        assert 0 < counts.completed < 100
        assert counts.completed + counts.failed == 100
        errors = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
        assert len(errors) == counts.failed
        assert code in {line["error"]["code"] for line in errors if line["error"]}


def test_webhooks_are_verified_by_openais_client() -> None:
    client = openai.OpenAI(api_key="none")
    secret = "whsec_c2VtYWZvcm8tdGVzdC1zZWNyZXQ="
    headers = signed(signing_key(secret), "def_1", int(time.time()), b'{"type": "deferred.done"}')
    client.webhooks.verify_signature(b'{"type": "deferred.done"}', headers, secret=secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(b'{"type": "deferred.failed"}', headers, secret=secret)
