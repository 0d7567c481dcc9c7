"""Gradient-boosted trees: what their objectives give, as the library gives it, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.runtime.adapter import AdapterMismatch, plan
from semaforo.runtime.execute import Executor
from semaforo.runtime.registry import runtime
from semaforo.wire.payload import Tensors

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

RNG = np.random.default_rng(5)
X = RNG.standard_normal((300, 4))
CLASSES = {
    "two": (X[:, 0] + X[:, 1] > 0).astype(int),
    "three": np.digitize(X[:, 0] - X[:, 2], [-0.7, 0.7]),
}
NUMBER = X[:, 0] * 2 + X[:, 3]
GROUPS = [30] * 10
HOLES = np.where(RNG.random((40, 4)) < 0.2, np.nan, RNG.standard_normal((40, 4)))


def light(path: Path, objective: str, target: Any, names: Any = "auto", **more: Any) -> Any:
    """Train and save a booster of LightGBM."""
    group = GROUPS if objective == "lambdarank" else None
    data = lightgbm.Dataset(X, target, group=group, feature_name=names, params={"verbosity": -1})
    params = {"objective": objective, "verbosity": -1, "num_threads": 1, "seed": 1, **more}
    booster = lightgbm.train(params, data, num_boost_round=6)
    booster.save_model(path)
    return booster


def extreme(path: Path, objective: str, target: Any, names: Any = None, **more: Any) -> Any:
    """Train and save a booster of XGBoost."""
    data = xgboost.DMatrix(X, target, feature_names=names)
    if objective.startswith("rank"):
        data.set_group(GROUPS)
    booster = xgboost.train(
        {"objective": objective, "nthread": 1, "seed": 1, **more}, data, num_boost_round=6
    )
    booster.save_model(path)
    return booster


def load(name: str, path: Path, device: str = "cpu", **options: Any) -> Any:
    return runtime(name).load(str(path), options, device)


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_tells_classes_apart(classes: int, tmp_path: Path) -> None:
    more = {"num_class": 3} if classes == 3 else {}
    target = CLASSES["three" if classes == 3 else "two"]
    booster = light(tmp_path / "a.txt", "multiclass" if classes == 3 else "binary", target, **more)
    model = load("lightgbm", tmp_path / "a.txt")
    assert model.signature.inputs == (TensorSpec("features", "FP64", (4,)),)
    assert [str(spec) for spec in model.signature.outputs] == [
        "label: int64[]", f"probabilities: fp64[{classes}]", f"margin: fp64[{'3' if classes == 3 else ''}]"
    ]  # fmt: skip
    got = model.run({"features": HOLES}, {})
    want = booster.predict(HOLES)
    np.testing.assert_array_equal(got["probabilities"] if classes == 3 else got["probabilities"][:, 1], want)
    np.testing.assert_array_equal(got["margin"], booster.predict(HOLES, raw_score=True))
    np.testing.assert_array_equal(got["label"], want.argmax(1) if classes == 3 else want > 0.5)
    np.testing.assert_allclose(got["probabilities"].sum(1), 1)
    assert model.memory_bytes() == (tmp_path / "a.txt").stat().st_size
    assert model.run({"features": HOLES[:0]}, {})["probabilities"].shape == (0, classes)
    model.close()


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize(
    "objective", ["binary:logistic", "binary:logitraw", "multi:softprob", "multi:softmax"]
)
def test_xgboost_tells_classes_apart(objective: str, suffix: str, tmp_path: Path) -> None:
    several = objective.startswith("multi")
    path = tmp_path / f"a.{suffix}"
    booster = extreme(
        path, objective, CLASSES["three" if several else "two"], **({"num_class": 3} if several else {})
    )
    model = load("xgboost", path)
    holes = HOLES.astype("f4")
    assert model.signature.inputs == (TensorSpec("features", "FP32", (4,)),)
    got = model.run({"features": holes}, {})
    margin = booster.predict(xgboost.DMatrix(holes), output_margin=True)
    np.testing.assert_array_equal(got["margin"], margin)
    if several:
        power = np.exp(margin)
        want = power / power.sum(1, keepdims=True)
        np.testing.assert_array_equal(got["label"], margin.argmax(1))
    else:
        ones = 1 / (1 + np.exp(-margin))
        want = np.stack([1 - ones, ones], 1)
        np.testing.assert_array_equal(got["label"], margin > 0)
    np.testing.assert_allclose(got["probabilities"], want, rtol=1e-5, atol=1e-6)
    model.want(("label",))
    assert set(model.run({"features": holes}, {})) == {"label"}
    assert model.run({"features": holes[:0]}, {})["label"].shape == (0,)


def test_hinge_knows_no_doubt(tmp_path: Path) -> None:
    booster = extreme(tmp_path / "a.json", "binary:hinge", CLASSES["two"])
    got = load("xgboost", tmp_path / "a.json").run({"features": X.astype("f4")}, {})
    np.testing.assert_array_equal(got["label"], booster.predict(xgboost.DMatrix(X)))


@pytest.mark.parametrize(
    ("name", "objective", "output"),
    [
        ("lightgbm", "regression", "prediction"),
        ("lightgbm", "poisson", "prediction"),
        ("lightgbm", "lambdarank", "score"),
        ("xgboost", "reg:squarederror", "prediction"),
        ("xgboost", "count:poisson", "prediction"),
        ("xgboost", "rank:ndcg", "score"),
    ],
)
def test_numbers_and_orders(name: str, objective: str, output: str, tmp_path: Path) -> None:
    target = np.abs(NUMBER) if "poisson" in objective else CLASSES["three"] if output == "score" else NUMBER
    path = tmp_path / ("a.txt" if name == "lightgbm" else "a.json")
    booster = (light if name == "lightgbm" else extreme)(path, objective, target)
    rows = X.astype("f8" if name == "lightgbm" else "f4")
    want = booster.predict(rows if name == "lightgbm" else xgboost.DMatrix(rows))
    model = load(name, path)
    assert model.signature.outputs[0].name == output
    np.testing.assert_allclose(model.run({"features": rows}, {})[output], want, rtol=1e-6)


def test_rounds_after_the_best_are_left_out(tmp_path: Path) -> None:
    booster = extreme(tmp_path / "a.json", "reg:squarederror", NUMBER)
    booster.set_attr(best_iteration="2")
    booster.save_model(tmp_path / "a.json")
    want = booster.predict(xgboost.DMatrix(X), iteration_range=(0, 3))
    got = load("xgboost", tmp_path / "a.json").run({"features": X.astype("f4")}, {})["prediction"]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert not np.allclose(got, booster.predict(xgboost.DMatrix(X), iteration_range=(0, 6)))


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_columns_by_name(name: str, tmp_path: Path) -> None:
    names = ["age", "height", "weight", "pulse"]
    path = tmp_path / ("a.txt" if name == "lightgbm" else "a.ubj")
    (light if name == "lightgbm" else extreme)(
        path, "regression" if name == "lightgbm" else "reg:squarederror", NUMBER, names
    )
    model = load(name, path, columns=True)
    assert [(spec.name, spec.shape) for spec in model.signature.inputs] == [(title, ()) for title in names]
    dtype = "f8" if name == "lightgbm" else "f4"
    columns = {title: X[:, index].astype(dtype) for index, title in enumerate(names)}
    whole = load(name, path).run({"features": X.astype(dtype)}, {})["prediction"]
    np.testing.assert_array_equal(model.run(columns, {})["prediction"], whole)


def test_labels_are_put_in_the_tasks_order(tmp_path: Path) -> None:
    booster = light(tmp_path / "a.txt", "multiclass", CLASSES["three"], num_class=3)
    model = load("lightgbm", tmp_path / "a.txt", labels=["low", "middle", "high"])
    task = (
        TensorSpec("label", "BYTES"),
        TensorSpec("probabilities", "FP64", (3,), labels=("high", "low", "middle")),
    )
    named = (TensorSpec("label", "BYTES", labels=("high", "low", "middle")), task[1])
    bridge = plan((TensorSpec("features", "FP64", (4,)),), named, model.signature)
    model.want(bridge.model_outputs)
    (answer,), _ = Executor(model, bridge).run([Tensors({"features": X})])
    want = booster.predict(X)
    np.testing.assert_array_equal(answer.columns["probabilities"], want[:, [2, 0, 1]])
    words = np.array(["low", "middle", "high"], dtype=object)
    np.testing.assert_array_equal(answer.columns["label"], words[want.argmax(1)])
    other = (TensorSpec("probabilities", "FP64", (3,), labels=("a", "b", "c")),)
    with pytest.raises(
        AdapterMismatch,
        match=r"label mismatch: the model's classes are low, middle, high, the task's a, b, c",
    ):
        plan((TensorSpec("features", "FP64", (4,)),), other, model.signature)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_what_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.txt" if name == "lightgbm" else "a.json")
    (light if name == "lightgbm" else extreme)(
        path, "binary" if name == "lightgbm" else "binary:logistic", CLASSES["two"]
    )
    number = tmp_path / ("n.txt" if name == "lightgbm" else "n.json")
    (light if name == "lightgbm" else extreme)(
        number, "regression" if name == "lightgbm" else "reg:squarederror", NUMBER
    )
    bad = tmp_path / f"bad{path.suffix}"
    bad.write_bytes(path.read_bytes()[:200])
    for options, where, words in (
        ({"thread": 2}, path, r"options\.thread: unknown option.*Did you mean 'threads'"),
        ({"threads": 0}, path, r"options\.threads: "),
        ({"labels": ["a"]}, path, r"options\.labels: 1 labels for 2 classes"),
        ({"labels": ["a", "b"]}, number, r"options\.labels: .* does not tell classes apart"),
        ({"columns": True}, path, r"options\.columns: .* knows no names"),
        ({}, tmp_path / "none.json", "no such file"),
        ({}, bad, r"bad\..*cannot load it: "),
    ):
        with pytest.raises(RuntimeLoadError, match=words):
            load(name, where, **options)
    with pytest.raises(RuntimeLoadError, match="is run on the CPU: set device: cpu"):
        load(name, path, "cuda:0")
    with pytest.raises(InvalidRequest, match="refused its input"):
        load(name, path).run({"features": np.ones((2, 9), "f4")}, {})
