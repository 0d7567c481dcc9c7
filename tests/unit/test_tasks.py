"""Which task a request asks for: by its inputs, by its content, and not at all."""

from __future__ import annotations

import numpy as np
import pytest

from semaforo.entities import TaskType, TensorSpec
from semaforo.errors import ArtefactError, InvalidRequest
from semaforo.features.extract import tensor_signals
from semaforo.features.signals import Signals
from semaforo.jobs.learn.tasks import train_tasks
from semaforo.routing.tasks import Given, TaskModel, fitting, infer

WORDS = {
    "weather": ["rain", "sun", "wind", "cloud", "storm", "warm", "cold"],
    "food": ["bread", "soup", "salt", "oven", "plate", "spoon"],
}


def texts(rng: np.random.Generator, task: str, n: int) -> list[Signals]:
    return [Signals(" ".join(rng.choice(WORDS[task], 5))) for _ in range(n)]


def arrays(rng: np.random.Generator, middle: float, n: int) -> list[Signals]:
    return [tensor_signals({"x": rng.normal(middle, 1.0, (1, 16))}) for _ in range(n)]


@pytest.fixture(scope="module")
def model() -> TaskModel:
    rng = np.random.default_rng(0)
    examples = {task: texts(rng, task, 80) for task in WORDS}
    examples |= {"low": arrays(rng, 0.0, 80), "high": arrays(rng, 5.0, 80)}
    return TaskModel.decode(train_tasks(examples).encode(), "m")


def test_content_tells_tasks_of_one_form_apart(model: TaskModel) -> None:
    rng = np.random.default_rng(1)
    for task in WORDS:
        found = [_found(model, ["food", "weather"], s) for s in texts(rng, task, 50)]
        assert found.count(task) >= 42
        assert found.count(task) + found.count("") == 50
    for task, middle in (("low", 0.0), ("high", 5.0)):
        found = [_found(model, ["high", "low"], s) for s in arrays(rng, middle, 50)]
        assert found.count(task) >= 42


def _found(model: TaskModel, among: list[str], signals: Signals) -> str:
    try:
        return infer(model, among, signals).task
    except InvalidRequest:
        return ""


def test_what_is_like_nothing_is_not_guessed(model: TaskModel) -> None:
    with pytest.raises(InvalidRequest, match=r"like nothing.*name the task\. Nearest: "):
        infer(model, ["food", "weather"], Signals("guitar drum choir song"))
    with pytest.raises(InvalidRequest, match="like nothing"):
        infer(model, ["high", "low"], tensor_signals({"x": np.full((1, 16), 1e4)}))


def test_what_could_be_either_lists_both(model: TaskModel) -> None:
    with pytest.raises(InvalidRequest, match=r"food \d+%"):
        infer(model, ["food", "weather"], Signals("rain bread sun soup"))


def test_where_the_inputs_leave_one_nothing_has_to_be_learned() -> None:
    tasks = {
        "a": TaskType("a", inputs=(TensorSpec("x", "FP32", (4,)),)),
        "b": TaskType("b", inputs=(TensorSpec("x", "FP32", (8,)), TensorSpec("y", "FP32", optional=True))),
        "c": TaskType("c", inputs=(TensorSpec("x", "FP32", (-1,)),)),
        "d": TaskType("d", kind="chat"),
    }
    assert fitting(tasks, {"x": Given("FP32", (4,))}) == ["a", "c"]
    assert fitting(tasks, {"x": Given("FP32", (8,)), "y": Given("FP32", ())}) == ["b"]
    assert fitting(tasks, {"x": Given("INT64", (4,))}) == []
    assert fitting(tasks, None) == ["d"]
    assert infer(None, ["b"], Signals()).probability == 1.0
    with pytest.raises(InvalidRequest, match="several tasks take this: a, c"):
        infer(None, ["a", "c"], Signals())
    with pytest.raises(InvalidRequest, match="no task takes such inputs"):
        infer(None, [], Signals())


def test_too_little_to_learn_from() -> None:
    with pytest.raises(InvalidRequest, match="one task only"):
        train_tasks({"a": [Signals("x")] * 30})
    with pytest.raises(InvalidRequest, match="'b' has 3 examples"):
        train_tasks({"a": [Signals("x")] * 30, "b": [Signals("y")] * 3})
    with pytest.raises(ArtefactError, match="is no model that tells tasks apart"):
        TaskModel.decode(b"semaforo router\n", "file")
