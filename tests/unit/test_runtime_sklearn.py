"""The scikit-learn runtime: what estimators take and give, and what is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.runtime.adapter import plan
from semaforo.runtime.execute import Executor
from semaforo.wire.payload import Tensors

pytest.importorskip("sklearn")
skops = pytest.importorskip("skops.io")

import joblib  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.pipeline import FeatureUnion, make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler  # noqa: E402
from sklearn.svm import SVC, LinearSVC  # noqa: E402

from semaforo.runtime.sklearn import SklearnModel, SklearnRuntime  # noqa: E402

RNG = np.random.default_rng(4)
X = RNG.standard_normal((80, 3))
KIND = np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])
WORDS = np.array(["low", "middle", "high"])[KIND]


def saved(path: Path, estimator: Any) -> Path:
    skops.dump(estimator, path) if path.suffix == ".skops" else joblib.dump(estimator, path)
    return path


def load(path: Path, device: str = "cpu", **options: Any) -> SklearnModel:
    return SklearnRuntime().load(str(path), options, device)


def shown(model: SklearnModel) -> tuple[list[str], list[str]]:
    sides = model.signature.inputs, model.signature.outputs
    return tuple([f"{s.name}:{s.dtype or '?'}{list(s.shape)}" for s in side] for side in sides)  # type: ignore[return-value]


def test_a_pipeline_that_tells_classes_apart(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, KIND)
    model = load(saved(tmp_path / "a.skops", pipeline))
    assert shown(model) == (["features:FP64[3]"], ["label:?[]", "probabilities:?[3]", "decision:?[-1]"])
    got = model.run({"features": X}, {})
    np.testing.assert_array_equal(got["label"], pipeline.predict(X))
    np.testing.assert_array_equal(got["probabilities"], pipeline.predict_proba(X))
    np.testing.assert_array_equal(got["decision"], pipeline.decision_function(X))
    model.want(("label",))
    assert set(model.run({"features": X[:2]}, {})) == {"label"}
    assert model.memory_bytes() == (tmp_path / "a.skops").stat().st_size
    model.close()


def test_classes_with_names_fit_a_task_in_any_order(tmp_path: Path) -> None:
    forest = RandomForestClassifier(5, random_state=1, n_jobs=7).fit(X, WORDS)
    path = saved(tmp_path / "a.skops", forest)
    model = load(path, threads=2, trusted=["sklearn.tree._tree.Tree"])
    label, probabilities = model.signature.outputs
    assert (label.dtype, label.labels, probabilities.labels) == (
        "BYTES",
        ("high", "low", "middle"),
        label.labels,
    )
    order = ("low", "middle", "high")
    for wanted in ("BYTES", "INT64"):
        task = (
            TensorSpec("label", wanted, labels=order),
            TensorSpec("probabilities", "FP32", (3,), labels=order),
        )
        bridge = plan((TensorSpec("x", "FP32", (3,)),), task, model.signature)
        model.want(bridge.model_outputs)
        rows = X.astype("f4")
        (answer,), _ = Executor(model, bridge).run([Tensors({"x": rows})])
        want = forest.predict_proba(rows.astype("f8"))[:, [1, 2, 0]]
        np.testing.assert_array_equal(answer.columns["probabilities"], want.astype("f4"))
        names = forest.predict(rows)
        if wanted == "INT64":
            names = np.array([order.index(name) for name in names])
        np.testing.assert_array_equal(answer.columns["label"].astype(names.dtype), names)


@pytest.mark.parametrize(
    ("estimator", "outputs"),
    [
        (LinearRegression().fit(X, X[:, 0] * 2), ["prediction:?[]"]),
        (LinearRegression().fit(X, X[:, :2]), ["prediction:?[]"]),
        (StandardScaler().fit(X), ["features:?[-1]"]),
        (KMeans(2, n_init=1, random_state=1).fit(X), ["label:?[]", "features:?[-1]"]),
        (SVC().fit(X, KIND > 0), ["label:?[]", "decision:?[]"]),
        (LinearSVC().fit(X, KIND), ["label:?[]", "decision:?[-1]"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_estimator_can_do(estimator: Any, outputs: list[str], tmp_path: Path) -> None:
    model = load(saved(tmp_path / "a.joblib", estimator), allow_pickle=True)
    assert shown(model)[1] == outputs
    by = {
        "prediction": "predict",
        "label": "predict",
        "features": "transform",
        "decision": "decision_function",
    }
    for name, array in model.run({"features": X}, {}).items():
        np.testing.assert_array_equal(array, getattr(estimator, by[name])(X))


def test_texts(tmp_path: Path) -> None:
    texts = ["play a song", "what is the weather", "song please", "rain or weather tomorrow", "né song"]
    kinds = ["music", "weather", "music", "weather", "music"]
    for first in (TfidfVectorizer(), make_pipeline(TfidfVectorizer())):
        pipeline = make_pipeline(first, LogisticRegression()).fit(texts, kinds)
        model = load(saved(tmp_path / "a.skops", pipeline))
        assert shown(model) == (["text:BYTES[]"], ["label:BYTES[]", "probabilities:?[2]", "decision:?[]"])
        got = model.run({"text": np.array([text.encode() for text in texts], dtype=object)}, {})
        assert got["label"].tolist() == kinds
        np.testing.assert_array_equal(got["probabilities"], pipeline.predict_proba(texts))
    with pytest.raises(InvalidRequest, match=r"input 'text': .* is not UTF-8"):
        model.run({"text": np.array([b"\xff"], dtype=object)}, {})


def test_columns_of_a_data_frame(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"town": ["Rom", "Bonn", "Rom", "Oslo"] * 5, "age": [20.0, 31, 44, 52] * 5, "size": range(20)}
    )
    columns = ColumnTransformer(
        [("town", OneHotEncoder(), ["town"]), ("age", StandardScaler(), ["age", "size"])]
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 0, 1] * 5)
    model = load(saved(tmp_path / "a.skops", pipeline))
    assert shown(model)[0] == ["town:?[]", "age:?[]", "size:?[]"]
    given = {
        "size": np.arange(3), "age": np.array([20, 31, 60], "f4"),
        "town": np.array([b"Oslo", "Bonn", b"Rom"], dtype=object),
    }  # fmt: skip
    want = pandas.DataFrame({"town": ["Oslo", "Bonn", "Rom"], "age": [20.0, 31, 60], "size": range(3)})
    np.testing.assert_allclose(model.run(given, {})["probabilities"], pipeline.predict_proba(want), rtol=1e-6)
    with pytest.raises(InvalidRequest, match="unknown categories"):
        model.run({**given, "town": np.array([b"Atlantis"] * 3, dtype=object)}, {})
    with pytest.raises(InvalidRequest, match="input 'age': one value is wanted"):
        model.run({**given, "age": np.ones((3, 2))}, {})
    with pytest.raises(RuntimeLoadError, match=r"options\.columns: a\.skops picks columns by name"):
        load(tmp_path / "a.skops", columns=False)


def test_numbers_may_come_as_columns_or_as_one_tensor(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    estimator = LogisticRegression().fit(frame, KIND)
    path = saved(tmp_path / "a.skops", estimator)
    whole = load(path).run({"features": X}, {})["probabilities"]
    np.testing.assert_array_equal(whole, estimator.predict_proba(frame))
    apart = load(path, columns=True)
    assert shown(apart)[0] == ["a:FP64[]", "b:FP64[]", "c:FP64[]"]
    given = {name: X[:, index] for index, name in enumerate("abc")}
    np.testing.assert_array_equal(apart.run(given, {})["probabilities"], whole)
    with pytest.raises(RuntimeLoadError, match=r"options\.columns: b\.skops knows no names of columns"):
        load(saved(tmp_path / "b.skops", LogisticRegression().fit(X, KIND)), columns=True)


def test_input_that_an_estimator_refuses_is_an_invalid_request(tmp_path: Path) -> None:
    model = load(saved(tmp_path / "a.skops", LogisticRegression().fit(X, KIND)))
    with pytest.raises(InvalidRequest, match="refused its input: Input X contains NaN"):
        model.run({"features": np.full((2, 3), np.nan)}, {})


def test_threads_reach_every_estimator(tmp_path: Path) -> None:
    union = FeatureUnion([("scale", StandardScaler())])
    pipeline = make_pipeline(union, RandomForestClassifier(2)).fit(X, KIND)
    pipeline.set_params(featureunion__n_jobs=5, randomforestclassifier__n_jobs=7)
    path = saved(tmp_path / "a.joblib", pipeline)
    model = load(path, threads=1, allow_pickle=True)
    estimator = model._methods["label"].__self__  # type: ignore[attr-defined]  # a bound method
    jobs = {name: value for name, value in estimator.get_params().items() if name.endswith("n_jobs")}
    assert set(jobs.values()) == {1}
    assert len(jobs) == 2


def double(rows: Any) -> Any:
    return rows * 2


def test_types_that_are_not_known_are_listed_and_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.skops", make_pipeline(FunctionTransformer(double), StandardScaler()).fit(X))
    name = f"{double.__module__}.double"
    with pytest.raises(
        RuntimeLoadError, match=rf"not know to be safe: {name}\. List those you trust as options\.trusted"
    ):
        load(path)
    model = load(path, trusted=[name])
    assert model.run({"features": X}, {})["features"].shape == X.shape


class _Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", ["joblib", "pkl", "pickle"])
def test_nothing_is_unpickled_unless_allowed(suffix: str, tmp_path: Path) -> None:
    joblib.dump(_Trap(tmp_path / "sprung"), tmp_path / f"trap.{suffix}")
    with pytest.raises(RuntimeLoadError, match=r"is a pickle.*allow_pickle: true"):
        load(tmp_path / f"trap.{suffix}")
    assert not (tmp_path / "sprung").exists()
    path = saved(tmp_path / f"a.{suffix}", StandardScaler().fit(X))
    assert load(path, allow_pickle=True).run({"features": X}, {})["features"].shape == X.shape


def test_another_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.skops", "a.joblib"):
        with monkeypatch.context() as past:
            past.setattr("sklearn.base.__version__", "1.0.1")
            path = saved(tmp_path / name, StandardScaler().fit(X))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load(path, allow_pickle=True)
        assert "1.0.1" in caplog.text
        assert name in caplog.text


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.skops", StandardScaler().fit(X))
    (tmp_path / "bad.skops").write_bytes(b"nothing")
    (tmp_path / "bad.pkl").write_bytes(b"nothing")
    (tmp_path / "a.txt").write_bytes(b"nothing")
    joblib.dump({"a": 1}, tmp_path / "dict.pkl")
    for name, options, words in (
        ("a.skops", {"thread": 2}, r"options\.thread: unknown option.*Did you mean 'threads'"),
        ("a.skops", {"trusted": "all"}, r"options\.trusted: "),
        ("none.skops", {}, "no such file"),
        ("bad.skops", {}, "is no skops file"),
        ("bad.pkl", {"allow_pickle": True}, "cannot be loaded: "),
        ("a.txt", {}, r"scikit-learn's files end in \.skops"),
        ("dict.pkl", {"allow_pickle": True}, "holds a dict, which is no fitted estimator"),
    ):
        with pytest.raises(RuntimeLoadError, match=words):
            load(tmp_path / name, **options)
    with pytest.raises(RuntimeLoadError, match="runs on the CPU: set device: cpu"):
        load(path, "cuda:0")
