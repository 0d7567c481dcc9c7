"""Requests that name no task, by every way in: they end where the same request inside the program ends."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from semaforo import AsyncClient, Client, Fleet
from semaforo.build import blueprint
from semaforo.errors import InvalidRequest, NotFound
from semaforo.features.extract import chat_signals
from semaforo.features.signals import Signals
from semaforo.jobs.learn.tasks import train_tasks
from semaforo.server.deferred.settings import DeferredSettings
from semaforo.server.settings import ServerSettings
from served_fleet import Served, serving

FLEET = """\
tasks:
  weather: {inputs: {text: bytes}, outputs: {label: int64}}
  food: {inputs: {text: bytes}, outputs: {label: int64}}
  side: {inputs: {x: "fp32[1]"}, outputs: {label: int64}}
  sides: {inputs: {x: "fp64[1]"}, outputs: {label: int64}}
  code: {kind: chat}
  verse: {kind: chat}
models:
  w: {task: weather, python: "both.py:text", isolation: thread}
  f: {task: food, python: "both.py:text", isolation: thread}
  s: {task: side, python: "both.py:number", isolation: thread}
  t: {task: sides, python: "both.py:number", isolation: thread}
  coder: {task: code, python: "both.py:code", isolation: thread}
  poet: {task: verse, python: "both.py:verse", isolation: thread}
auto: tasks.model
"""
BOTH = """\
import numpy as np


def text(text: list[str]) -> np.ndarray:
    return np.array([len(t) for t in text])


def number(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] > 0).astype(np.int64)


def code(messages):
    yield "pass"


def verse(messages):
    yield "o "
    yield "rose"
"""
WORDS = {
    "weather": ["rain", "sun", "wind", "cloud", "storm"],
    "food": ["bread", "soup", "salt", "oven", "plate"],
    "code": ["function", "class", "loop", "compile", "list"],
    "verse": ["rose", "moon", "heart", "sorrow", "dawn"],
}


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture(scope="module")
def fleet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auto")
    rng = np.random.default_rng(0)
    examples = {
        task: [
            chat_signals(said(text)) if task in ("code", "verse") else Signals(text)
            for text in (" ".join(rng.choice(words, 4)) for _ in range(60))
        ]
        for task, words in WORDS.items()
    }
    (folder / "tasks.model").write_bytes(train_tasks(examples).encode())
    (folder / "both.py").write_text(BOTH)
    (folder / "fleet.yaml").write_text(FLEET)
    return folder / "fleet.yaml"


@pytest.fixture(scope="module")
def served(fleet_file: Path) -> Iterator[Served]:
    plan = blueprint(fleet_file)
    deferred = DeferredSettings(path=fleet_file.with_name("deferred.db"))
    settings = ServerSettings(port=0, grpc_port=0, grace_s=2.0, deferred=deferred)
    with serving(plan.catalog, settings, tasks=plan.tasks) as found:
        yield found


def tensor(name: str, datatype: str, array: np.ndarray[Any, Any]) -> Any:
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def texts(*said: str, name: str = "text") -> Any:
    return tensor(name, "BYTES", np.array([text.encode() for text in said], object))


def test_over_grpc_content_and_form_tell_the_task(served: Served) -> None:
    with triton.InferenceServerClient(served.grpc) as client:
        for inputs, model in (
            ([texts("rain wind cloud sun")], "w"),
            ([texts("soup oven bread", "salt bread")], "f"),
            ([tensor("x", "FP32", np.float32([[1.0]]))], "s"),
            ([tensor("x", "FP64", np.float64([[1.0]]))], "t"),
            ([texts("rose moon dawn heart", name="text_input")], "poet"),
            ([texts("loop list compile class", name="text_input")], "coder"),
        ):
            answer = client.infer("auto", inputs)
            assert answer.get_response().model_name == model
        with pytest.raises(InferenceServerException, match="food") as unclear:
            client.infer("auto", [texts("nothing of this")])
        assert unclear.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="no task takes such inputs"):
            client.infer("auto", [tensor("y", "FP32", np.float32([[1.0]]))])


def test_on_a_stream_each_request_finds_its_own(served: Served) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: heard.put((result, error)))
        client.async_stream_infer("auto", [texts("bread soup plate")], request_id="food")
        result, error = heard.get(timeout=10)
        assert error is None
        assert (result.get_response().id, result.get_response().model_name) == ("food", "f")
        client.async_stream_infer("auto", [texts("rose dawn sorrow", name="text_input")])
        pieces = [heard.get(timeout=10)[0] for _ in range(3)]
        assert [piece.as_numpy("text_output")[0] for piece in pieces] == [b"o ", b"rose", b""]
        assert pieces[0].get_response().model_name == "poet"
        client.async_stream_infer("auto", [texts("zzz")], request_id="lost")
        _, error = heard.get(timeout=10)
        assert "weather" in str(error)
        client.stop_stream()


def test_a_client_asks_as_a_fleet_inside_the_program_is_asked(served: Served, fleet_file: Path) -> None:
    with Client(served.url) as client, Fleet.open(fleet_file) as fleet:
        for values, model in (
            ({"text": "rain wind cloud sun"}, "w"),
            ({"text": ["soup oven bread", "salt bread"]}, "f"),
            ({"x": np.float32([1.0])}, "s"),
            ({"x": np.float64([[1.0], [2.0]])}, "t"),
        ):
            answer = client.infer("auto", **values)
            assert answer.model == model
            assert "the task was not named: it is" in answer.why
            inside = fleet.infer("auto", **values)
            assert inside.model == model
            assert np.array_equal(inside["label"], answer["label"])
        for asked in (client, fleet):
            chat = asked.chat("auto", "moon heart rose dawn")
            assert chat.text() == "o rose"
            assert chat.answer is not None
            assert chat.answer.model == "poet"
            assert "the task was not named: it is verse" in chat.answer.why
            with pytest.raises(InvalidRequest, match="weather"):
                asked.infer("auto", text="zzz qqq")
            with pytest.raises(InvalidRequest, match="no task takes such inputs"):
                asked.infer("auto", z=1)
        with pytest.raises(InvalidRequest, match="each in a form of its own"):
            client.infer("auto", x=[1.0])
        with pytest.raises(NotFound):
            client.infer("auto", text="rain", version="2")


def test_what_waits_in_the_queue_finds_its_task_too(served: Served) -> None:
    with Client(served.url) as client:
        assert client.submit("auto", text="cloud storm rain wind").result(20).model == "w"
        with pytest.raises(InvalidRequest, match="weather"):
            client.submit("auto", text="zzz qqq")


def test_a_decision_without_content_rests_on_the_form(served: Served, fleet_file: Path) -> None:
    with Client(served.url) as client, Fleet.open(fleet_file) as fleet:
        for asked in (client, fleet):
            assert asked.decide("auto", x=np.float32([1.0])).pick == "s/1/default"
        with pytest.raises(InvalidRequest, match="several tasks take this: weather, food"):
            client.decide("auto", text="rain wind cloud sun")


def test_an_async_client_asks_the_same(served: Served) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(served.url) as client:
            answers = await asyncio.gather(
                client.infer("auto", text="storm wind rain"), client.infer("auto", text="plate salt soup")
            )
            chat = await client.chat("auto", "compile function loop class")
            await chat.text()
            assert chat.answer is not None
            return [*(answer.model for answer in answers), chat.answer.model]

    assert asyncio.run(ask()) == ["w", "f", "coder"]


def test_generate_takes_it_too(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        for body, model in (
            ({"text": "rain wind cloud sun", "id": "a"}, "w"),
            ({"text_input": "rose moon dawn heart"}, "poet"),
        ):
            answer = http.post("/v2/models/auto/generate", json=body).json()
            assert answer["model_name"] == model
        streamed = http.post(
            "/v2/models/auto/generate_stream", json={"text_input": "loop class list compile"}
        )
        assert '"text_output":"pass"' in streamed.text
        body = {"model": "auto", "prompt": ["moon rose", "heart dawn"]}
        assert http.post("/v1/completions", json=body).json()["model"] == "poet"
        unclear = http.post("/v1/completions", json={**body, "prompt": "zzz"})
        assert (unclear.status_code, unclear.json()["error"]["param"]) == (400, "model")
        assert http.post("/v2/models/auto/generate", json={"words": "rain"}).status_code == 400
