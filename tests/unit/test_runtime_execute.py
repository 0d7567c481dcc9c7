"""Running members: order kept, poison alone, wrong rows named; and the profile that is measured."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from semaforo.entities import BatchProfile, ReplicaSpec, Signature, TensorSpec
from semaforo.errors import ArtefactError, InvalidRequest, ModelFailed, RuntimeLoadError, SemaforoError
from semaforo.runtime.adapter import plan
from semaforo.runtime.execute import Executor, wholly_failed
from semaforo.runtime.host import Hosted, load, warm, warm_awaited
from semaforo.runtime.profile import fit, measure, rows_within, rungs, sample
from semaforo.runtime.registry import BUILT_IN, runtime, runtimes
from semaforo.wire.block import expand
from semaforo.wire.payload import Array, Tensors

BYTES_IN = {"name": "text", "dtype": "BYTES"}
BYTES_OUT = {"name": "loud", "dtype": "BYTES"}


def hosted(source: str, inputs: Any = (BYTES_IN,), outputs: Any = (BYTES_OUT,), **fields: Any) -> Hosted:
    return load(
        ReplicaSpec(
            "r-1", "v", fields.pop("runtime", "python"), source, inputs=inputs, outputs=outputs, **fields
        )
    )


def text(*cells: Any, **fields: Any) -> Tensors:
    return Tensors({"text": np.array(cells, dtype=object)}, **fields)


def run(model: Hosted, *members: Tensors) -> list[Any]:
    assert model.executor is not None
    results = expand(model.executor.run(members)[0])
    return [
        (r.code, r.message) if isinstance(r, SemaforoError) else {k: v.tolist() for k, v in r.arrays.items()}
        for r in results
    ]


def test_each_member_gets_its_rows_back() -> None:
    model = hosted("python_models:shout")
    got = run(model, text("a"), text("b", "c"), text("d"))
    assert got == [{"loud": ["A"]}, {"loud": ["B", "C"]}, {"loud": ["D"]}]


def test_a_poison_member_fails_alone() -> None:
    model = hosted("python_models:shout")
    got = run(model, text("a"), text("poison"), text("bad"), text("d"))
    assert got == [
        {"loud": ["A"]},
        ("model_failed", "the model raised ValueError: cannot shout poison"),
        ("invalid_request", "'bad' is not to be shouted"),
        {"loud": ["D"]},
    ]


def test_only_a_batch_that_fails_throughout_by_the_models_fault_is_a_failure_of_the_model() -> None:
    poison, bad = ModelFailed("a"), InvalidRequest("b")
    assert wholly_failed([poison, poison]) is poison
    assert wholly_failed([poison, bad]) is None
    assert wholly_failed([bad]) is None
    assert wholly_failed([]) is None


def test_members_that_differ_are_not_mixed(tmp_path: Path) -> None:
    seen: list[tuple[int, Any]] = []

    class Echo:
        signature = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))

        def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
            seen.append((len(inputs["x"]), parameters.get("k")))
            return {"y": inputs["x"] * parameters.get("k", 1)}

        def memory_bytes(self) -> int:
            return 0

        def close(self) -> None: ...

    model = Echo()
    executor = Executor(model, plan([], [], model.signature))
    wide, narrow = np.ones((1, 3), "f4"), np.ones((2, 2), "f4")
    members = [
        Tensors({"x": wide}),
        Tensors({"x": wide}),
        Tensors({"x": narrow}),
        Tensors({"x": narrow}, {"k": 5}),
    ]
    results = [r.arrays["y"] for r in expand(executor.run(members)[0]) if isinstance(r, Tensors)]
    assert seen == [(2, None), (2, None), (2, 5)]
    assert [r.shape for r in results] == [(1, 3), (1, 3), (2, 2), (2, 2)]
    assert results[3].tolist() == [[5, 5]] * 2
    uneven = Tensors({"x": wide, "z": narrow})
    (error,) = executor.run([uneven])[0]
    assert isinstance(error, InvalidRequest)
    assert "'z' has not as many rows" in error.message


def test_one_member_is_not_copied(tmp_path: Path) -> None:
    spec = ReplicaSpec("r", "v", "onnx", str(models.linear(tmp_path / "a.onnx")))
    model = load(spec)
    assert model.executor is not None
    x = np.ones((3, 64), "f4")
    assert model.executor.bridge.inputs({"x": x}, 3)["x"] is x


def test_wanted_outputs_only(tmp_path: Path) -> None:
    model = hosted(str(models.index_model(tmp_path / "a.onnx")), (), (), runtime="onnx")
    x = np.zeros((1, 64), "f4")
    assert list(run(model, Tensors({"x": x}, outputs=("p",)))[0]) == ["p"]
    ((code, message),) = run(model, Tensors({"x": x}, outputs=("class",)))
    assert (code, message) == (
        "invalid_request", "there is no output 'class'. Did you mean 'class_id'? There are class_id, p",
    )  # fmt: skip


@pytest.mark.parametrize("source", ["unbatched", "one"])
def test_models_without_rows_run_row_by_row(source: str, tmp_path: Path) -> None:
    if source == "unbatched":
        model = hosted(str(models.unbatched(tmp_path / "a.onnx")), (), (), runtime="onnx")
        got = run(model, Tensors({"v": np.ones((2, 5), "f4")}), Tensors({"v": np.zeros((1, 5), "f4")}))
        assert got == [{"w": [[2.0] * 5] * 2}, {"w": [[0.0] * 5]}]
    else:
        outputs = ({"name": "n", "dtype": "INT32"},)
        assert run(hosted("python_models:length", (BYTES_IN,), outputs), text("a", b"bb")) == [{"n": [1, 2]}]


def test_a_model_that_returns_wrong_rows_is_named_for_every_member() -> None:
    model = hosted("python_models:wrong_rows")
    results = run(model, text("a"), text("b"))
    assert [code for code, _ in results] == ["model_failed"] * 2
    assert "returned 1 rows in 'loud' for the 2 it was given" in results[0][1]
    with pytest.raises(RuntimeLoadError, match="warming up: the model returned 1 rows in 'loud' for the 2"):
        warm(ReplicaSpec("r", "v", "python", "x", max_rows=4), model)


def test_a_model_that_returns_wrong_shapes_is_found_when_it_is_loaded() -> None:
    model = hosted("python_models:wrong_shape", (BYTES_IN,), ({"name": "y", "shape": [4]},))
    with pytest.raises(RuntimeLoadError, match=r"rows of shape \[3\] where y: fp32\[4\] is declared"):
        warm(ReplicaSpec("r", "v", "python", "x"), model)


def test_async_models_run_and_are_measured() -> None:
    outputs = ({"name": "n", "dtype": "INT32"},)
    model = hosted("python_models:length_later", (BYTES_IN,), outputs)
    spec = ReplicaSpec("r", "v", "python", "x", max_rows=4)

    async def go() -> list[Any]:
        await warm_awaited(spec, model)
        assert model.awaited is not None
        outcomes, seconds = await model.awaited.run([text("abc", parameters={"sleep": 0.01})])
        assert seconds >= 0.009
        return expand(outcomes)

    (result,) = asyncio.run(go())
    assert result.arrays["n"].tolist() == [3]
    assert isinstance(model.profile, BatchProfile)
    assert model.slots == 8


def test_a_chat_model_does_not_serve_tensors() -> None:
    with pytest.raises(RuntimeLoadError, match="streams chats, and the task '' wants tensors"):
        hosted("python_models:tokens")
    assert hosted("python_models:tokens", (), ()).chat is not None


def test_a_digest_is_verified(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "a.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load(ReplicaSpec("r", "v", "onnx", str(path), digest=f"sha256:{digest}"))
    with pytest.raises(ArtefactError, match="its sha256 is"):
        load(ReplicaSpec("r", "v", "onnx", str(path), digest="0" * 64))
    with pytest.raises(ArtefactError, match="is no file"):
        load(ReplicaSpec("r", "v", "onnx", str(tmp_path), digest=digest))


def test_runtimes_come_through_one_door() -> None:
    light = {"onnx", "python", "openai"}
    assert set(runtimes()) >= set(BUILT_IN) >= light | {"torch", "sklearn", "lightgbm", "xgboost"}
    assert {runtime(name).name for name in light} == light
    with pytest.raises(RuntimeLoadError, match=r"no runtime is named 'onx'\. Did you mean 'onnx'"):
        runtime("onx")


def test_the_fit_weighs_relative_errors_and_is_never_negative() -> None:
    line = [(r, 1e-3 + 2e-4 * r) for r in (1, 2, 4, 8, 16)]
    assert fit(line) == pytest.approx((1e-3, 2e-4))
    a, b = fit([(1, 1.0), (2, 2.0), (4, 4.1), (8, 8.4)])
    assert a == 0
    assert b == pytest.approx(1.02, rel=0.03)
    a, b = fit([(1, 1.0), (2, 0.9), (4, 0.8)])
    assert b == 0
    assert a == pytest.approx(0.9, rel=0.1)
    assert fit([(1, 3.0)]) == (0.0, 3.0)


def test_the_fit_is_the_best_nonnegative_one() -> None:
    rng = np.random.default_rng(5)
    grid = np.linspace(0, 3, 121)
    for _ in range(20):
        curve = [(r, float(t)) for r, t in zip((1, 2, 4, 8), rng.uniform(0.5, 3, 4), strict=True)]
        rows, seconds = np.array(curve).T

        def wrong(a: Any, b: Any, rows: Any = rows, seconds: Any = seconds) -> Any:
            return (((a + b * rows[:, None, None]) / seconds[:, None, None] - 1) ** 2).sum(axis=0)

        best = wrong(grid[:, None], grid[None, :]).min()
        a, b = fit(curve)
        assert min(a, b) >= 0
        assert wrong(np.array([[a]]), np.array([[b]]))[0, 0] <= best + 1e-9


def test_rungs_and_samples() -> None:
    assert rungs(1) == [1]
    assert rungs(16) == [1, 2, 4, 8, 16]
    assert rungs(20) == [1, 2, 4, 8, 16, 20]
    made = sample([TensorSpec("a", "INT8", (-1, 3)), TensorSpec("t", "BYTES", (), labels=("no",))], 2)
    assert made is not None
    assert made["a"].shape == (2, 1, 3)
    assert made["t"].tolist() == ["no", "no"]
    assert sample([TensorSpec("x", "")], 1) is None


def test_json_inputs_are_made_up_with_their_fields() -> None:
    bridge = plan(
        [TensorSpec("row", "BYTES")], [],
        Signature((TensorSpec("age", "INT64"), TensorSpec("at", "FP32", (2,))), (TensorSpec("y"),)),
        {"inputs": {"age": {"from": "row", "field": "who.age"}, "at": {"from": "row", "field": "at"}}},
    )  # fmt: skip
    columns = sample(bridge.signature.inputs, 3, bridge.fields)
    assert columns is not None
    made = bridge.inputs(columns, 3)
    assert made["age"].tolist() == [0, 0, 0]
    assert made["at"].shape == (3, 2)


def test_a_profile_keeps_to_its_budget_and_predicts(tmp_path: Path) -> None:
    spec = ReplicaSpec("r", "v", "onnx", str(models.heavy(tmp_path / "h.onnx", layers=4)), max_rows=16)
    model = load(spec)
    warm(spec, model)
    profile = model.profile
    assert isinstance(profile, BatchProfile)
    assert [rows for rows, _ in profile.curve] == [1, 2, 4, 8, 16]
    assert min(profile.base_s, profile.row_s) >= 0
    assert profile.p99_s >= profile.curve[0][1] > 0
    assert profile.seconds(1) == pytest.approx(profile.curve[0][1], rel=1.0)


def test_a_slow_model_is_measured_within_the_budget() -> None:
    calls: list[int] = []

    class Slow:
        signature = Signature((TensorSpec("x"),), (TensorSpec("y"),))

        def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
            calls.append(len(inputs["x"]))
            now[0] += 1.0
            return {"y": inputs["x"]}

        def memory_bytes(self) -> int:
            return 0

        def close(self) -> None: ...

    now = [0.0]
    model = Slow()
    executor = Executor(model, plan([], [], model.signature), clock=lambda: now[0])
    profile = measure(executor, 64, budget_s=0.5)
    assert calls == [1, 1]
    assert profile == BatchProfile(0.0, 1.0, 1.0, ((1, 1.0),))


def test_rows_that_fit_a_time() -> None:
    assert rows_within(BatchProfile(0.001, 0.0001), 0.002, 64) == 10
    assert rows_within(BatchProfile(0.001, 0.0001), 0.0005, 64) == 1
    assert rows_within(BatchProfile(0.001, 0.0), 0.002, 64) == 64
    assert rows_within(BatchProfile(0.0, 1e-9), 0.002, 64) == 64
