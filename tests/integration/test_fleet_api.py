"""Semaforo inside a program: real models, no server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import semaforo
from semaforo import AsyncFleet, Fleet
from semaforo.errors import ConfigError, InvalidRequest, ModelFailed, NotFound, NotReady, Unsatisfiable
from tiny_fleet import write_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet.open(write_fleet(tmp_path_factory.mktemp("fleet"))) as opened:
        yield opened


def test_one_row_in_one_row_out_and_rows_in_rows_out(fleet: Fleet) -> None:
    one = fleet.infer("double", x=[1, 2, 3])
    assert one["y"].tolist() == [2, 4, 6]
    many = fleet.infer("double", x=np.ones((2, 3)))
    assert many["y"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert list(one) == ["y"]


def test_an_answer_says_who_and_why(fleet: Fleet) -> None:
    answer = fleet.infer("double", x=[1, 2, 3], deadline="2s", min_quality=0.8, tenant="demo")
    assert (answer.model, answer.version, answer.variant) == ("exact", "1", "default")
    assert answer.replica.startswith("exact")
    assert answer.latency_s >= 0
    assert "deadline 2.0 s · min quality 0.8 · tenant demo" in answer.why
    assert "ruled out by quality" in answer.why
    assert fleet.explain(answer.request_id) == answer.why


@pytest.mark.parametrize(
    ("contract", "model"),
    [
        ({}, "exact"),
        ({"privacy": "site"}, "rough"),
        ({"max_cost": 0.0}, "exact"),
        ({"min_quality": 0.6}, "exact"),
    ],
)
def test_the_contract_decides(fleet: Fleet, contract: dict[str, object], model: str) -> None:
    assert fleet.infer("double", x=[1, 2, 3], **contract).model == model
    assert fleet.decide("double", x=[1, 2, 3], **contract).pick.startswith(f"{model}/")


def test_a_model_or_an_alias_is_asked_by_name(fleet: Fleet) -> None:
    assert fleet.infer("rough", x=[1, 2, 3])["y"].tolist() == pytest.approx([1.9, 3.8, 5.7])
    assert fleet.infer("best", x=[1, 2, 3]).model == "exact"


def test_texts_of_one_row_and_of_many(fleet: Fleet) -> None:
    assert fleet.infer("shout", text="hello")["loud"] == "HELLO"
    assert fleet.infer("shout", text=["a", "b"])["loud"].tolist() == ["A", "B"]


def test_a_chat_comes_in_pieces(fleet: Fleet) -> None:
    with fleet.chat("chat", "one two three") as stream:
        assert list(stream) == ["one ", "two ", "three "]
    assert stream.answer is not None
    assert (stream.answer["text"], stream.answer.model) == ("one two three ", "parrot")


@pytest.mark.parametrize(
    ("target", "given", "error", "message"),
    [
        ("double", {"x": [1, 2]}, InvalidRequest, r"input 'x' has shape \[2\]"),
        ("double", {"x": ["a", "b", "c"]}, InvalidRequest, "input 'x' holds"),
        ("double", {"y": [1, 2, 3]}, InvalidRequest, "takes no input 'y'"),
        ("double", {}, InvalidRequest, "also takes x"),
        ("double", {"x": [1, 2, 3], "min_quality": 0.95}, Unsatisfiable, r"0\.9 < 0\.95"),
        ("double", {"x": [1, 2, 3], "min_quality": 95}, InvalidRequest, "0 to 1"),
        ("double", {"x": [1, 2, 3], "priority": "hi"}, InvalidRequest, "Did you mean 'high'"),
        ("double", {"x": [1, 2, 3], "deadline": "20"}, InvalidRequest, "write it with a unit"),
        ("double", {"x": [1, 2, 3], "version": "7"}, NotFound, "no version '7'"),
        ("dubble", {"x": [1, 2, 3]}, NotFound, "Did you mean 'double'"),
        ("chat", {"x": 1}, InvalidRequest, "ask it by chat"),
        ("shout", {"text": 3}, InvalidRequest, "takes text or bytes, not int"),
    ],
)
def test_what_is_wrong_is_said(
    fleet: Fleet, target: str, given: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fleet.infer(target, **given)


def test_many_threads_get_their_own_answers(fleet: Fleet) -> None:
    wrong: list[int] = []

    def ask(n: int) -> None:
        for _ in range(20):
            if fleet.infer("double", x=[n, n, n])["y"].tolist() != [2 * n] * 3:
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fleet_that_is_not_open_says_so(tmp_path: Path) -> None:
    fleet = Fleet.open(write_fleet(tmp_path))
    with pytest.raises(NotReady, match="is not open"):
        fleet.infer("double", x=[1, 2, 3])
    with fleet:
        pass
    with pytest.raises(NotReady):
        fleet.infer("double", x=[1, 2, 3])
    fleet.close()


def test_a_fleet_without_one_model_that_loads_says_why(tmp_path: Path) -> None:
    path = write_fleet(tmp_path)
    path.write_text("tasks: {double: {inputs: {x: fp32[3]}, outputs: {y: fp32[3]}}}\n"
                    "models: {rough: {task: double, source: models/rough, isolation: thread}}\n")  # fmt: skip
    (tmp_path / "models/rough/1/model.onnx").write_bytes(b"no model")
    with pytest.raises(NotReady, match=r"no model could be loaded: rough.*model\.onnx"), Fleet.open(path):
        pass


def test_async_fleet_serves_many_at_once(tmp_path: Path) -> None:
    async def use() -> list[float]:
        async with AsyncFleet.open(write_fleet(tmp_path)) as fleet:
            answers = await asyncio.gather(*(fleet.infer("double", x=[n, n, n]) for n in range(30)))
            chat = await fleet.chat("chat", [{"role": "user", "content": "a b"}], deadline=60.0)
            assert await chat.text() == "a b "
            return [float(answer["y"][0]) for answer in answers]

    assert asyncio.run(use()) == [2.0 * n for n in range(30)]


def test_functions_make_a_fleet_and_are_batched() -> None:
    calls: list[int] = []

    @semaforo.model(task="length", quality=0.9, name="exact-length")
    def exact(text: list[str]) -> list[int]:
        calls.append(len(text))
        return [len(one) for one in text]

    @semaforo.model(task="length", quality=0.2)
    def rough(text: list[str]) -> list[int]:
        return [1 for _ in text]

    with Fleet.of(exact, rough) as fleet:
        assert fleet.infer("length", text="hello")["output"] == 5
        assert fleet.infer("length", text=["a", "bb"], min_quality=0.5)["output"].tolist() == [1, 2]
        assert fleet.infer("rough", text=["aaa"])["output"].tolist() == [1]
    assert 2 in calls
    assert exact(["abc"]) == [3]  # the function stays as it is


def test_a_function_that_raises_fails_its_request_alone() -> None:
    @semaforo.model(task="inverse", inputs={"x": "fp64"}, outputs={"y": "fp64"})
    def reciprocal(x: np.ndarray) -> dict[str, np.ndarray]:
        if (x == 0).any():
            raise ZeroDivisionError("zero has no inverse")
        return {"y": 1 / x}

    with Fleet.of(reciprocal) as fleet:
        with pytest.raises(ModelFailed, match="zero has no inverse"):
            fleet.infer("inverse", x=0.0)
        assert fleet.infer("inverse", x=4.0)["y"] == 0.25


def test_functions_that_cannot_be_models_say_why() -> None:
    with pytest.raises(ConfigError, match=r"'text': the annotation that is missing says no rows"):

        @semaforo.model(task="t")
        def bare(text):  # type: ignore[no-untyped-def]
            return text

    with pytest.raises(ConfigError, match="another process cannot import it"):

        @semaforo.model(task="t", isolation="process")
        def inner(text: list[str]) -> list[str]:
            return text

    @semaforo.model(task="t")
    def one(text: list[str]) -> list[str]:
        return text

    @semaforo.model(task="t")
    def other(text: list[str]) -> list[int]:
        return [0]

    with pytest.raises(ConfigError, match="another function of that task takes"):
        Fleet.of(one, other)
    with pytest.raises(ConfigError, match="is no model"):
        Fleet.of(len)


def test_import_is_light() -> None:
    code = "import semaforo, sys; print(semaforo.__version__); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
