"""Adapters: four unlike models give equal answers to one task; every planted mismatch is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from semaforo.entities import ReplicaSpec, Signature, TensorSpec
from semaforo.errors import ConfigError, InvalidRequest, ModelFailed, SemaforoError
from semaforo.runtime.adapter import AdapterMismatch, Bridge, plan
from semaforo.runtime.adapter_casts import cast, lossless
from semaforo.runtime.host import load, warm
from semaforo.wire.block import expand
from semaforo.wire.payload import Tensors

T = TensorSpec
IMAGE = {"name": "image", "dtype": "FP32", "shape": [8, 8]}
LABEL = {"name": "label", "dtype": "BYTES", "labels": list(models.LABELS)}
SCORES = {"name": "probabilities", "dtype": "FP32", "shape": [4], "labels": list(models.LABELS)}

ADAPTERS: dict[str, dict[str, Any] | None] = {
    "nchw_fp32": {
        "inputs": {"pixels": {"from": "image", "layout": "NHW->NCHW"}},
        "outputs": {"label": {"from": "probabilities", "argmax": True}},
    },
    "nhwc_uint8": {
        "inputs": {"bytes": {"from": "image", "reshape": [8, 8, 1], "scale": 255, "dtype": "uint8"}},
        "outputs": {
            "label": {"from": "logits", "labels": list(models.SHUFFLED), "argmax": True},
            "probabilities": {"from": "logits", "softmax": True, "labels": list(models.SHUFFLED)},
        },
    },
    "index": {
        "inputs": {"x": {"from": "image", "reshape": [64]}},
        "outputs": {
            "label": {"from": "class_id", "labels": list(models.SHUFFLED)},
            "probabilities": {"from": "p", "labels": list(models.SHUFFLED)},
        },
    },
    "python": {
        "outputs": {
            "label": {"from": "kind"},
            "probabilities": {"from": "scores", "softmax": True},
        },
    },
}


def four_specs(folder: Path, adapters: dict[str, dict[str, Any] | None] = ADAPTERS) -> dict[str, ReplicaSpec]:
    sources = {
        "nchw_fp32": ("onnx", str(models.nchw_fp32(folder / "a.onnx"))),
        "nhwc_uint8": ("onnx", str(models.nhwc_uint8(folder / "b.onnx"))),
        "index": ("onnx", str(models.index_model(folder / "c.onnx"))),
        "python": ("python", "python_models:classify"),
    }
    return {
        name: ReplicaSpec(
            f"{name}-1", f"{name}/1/x", runtime, source, adapter=adapters.get(name), max_rows=8, task="patterns",
            inputs=(IMAGE,), outputs=(LABEL, SCORES),
        )
        for name, (runtime, source) in sources.items()
    }  # fmt: skip


def test_four_unlike_models_serve_one_task_alike(tmp_path: Path) -> None:
    pictures = models.pictures(40)
    scores = pictures.reshape(40, 64) @ models.weights()
    wanted = [models.LABELS[i] for i in scores.argmax(axis=1)]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    assert set(wanted) == set(models.LABELS)
    for name, spec in four_specs(tmp_path).items():
        hosted = load(spec)
        assert hosted.executor is not None
        warm(spec, hosted)
        assert hosted.profile is not None, name
        outcomes, _ = hosted.executor.run(
            [Tensors({"image": pictures[:7]}), Tensors({"image": pictures[7:]})]
        )
        first, rest = expand(outcomes)
        assert isinstance(first, Tensors), first
        assert isinstance(rest, Tensors), rest
        got = np.concatenate([first.arrays["label"], rest.arrays["label"]])
        assert got.tolist() == wanted, name
        assert first.arrays["probabilities"].dtype == np.float32
        np.testing.assert_allclose(
            np.concatenate([first.arrays["probabilities"], rest.arrays["probabilities"]]),
            shares,
            rtol=1e-5,
            atol=1e-7,
        )
        hosted.close()


def changed(name: str, side: str, tensor: str, **keys: Any) -> tuple[str, dict[str, Any]]:
    adapter = {s: {k: dict(v) for k, v in rules.items()} for s, rules in (ADAPTERS[name] or {}).items()}
    rule = adapter.setdefault(side, {}).setdefault(tensor, {})
    for key, value in keys.items():
        if value is None:
            rule.pop(key.rstrip("_"), None)
        else:
            rule[key.rstrip("_")] = value
    return name, adapter


PLANTED: dict[str, tuple[tuple[str, dict[str, Any] | None], str]] = {
    "shape": (
        changed("index", "inputs", "x", reshape=None),
        r"inputs\.x: shape mismatch: the task gives image: fp32\[8, 8\].*reshape: \[64\]",
    ),
    "dtype": (
        changed("nhwc_uint8", "inputs", "bytes", dtype=None, scale=None),
        r"inputs\.bytes: dtype mismatch: .*fp32\[8, 8\], the model takes bytes: uint8\[8, 8, 1\].*dtype: uint8",
    ),
    "declared dtype": (
        changed("nhwc_uint8", "inputs", "bytes", dtype="int8"),
        r"inputs\.bytes: dtype mismatch: the adapter declares INT8",
    ),
    "layout": (
        changed("nhwc_uint8", "inputs", "bytes", reshape=[1, 8, 8]),
        r"inputs\.bytes: shape mismatch: .*declare layout: NCHW->NHWC",
    ),
    "layout rank": (
        changed("nchw_fp32", "inputs", "pixels", layout="NHWC->NCHW"),
        r"inputs\.pixels: layout mismatch: 'NHWC' has 3 dimensions after the rows, .* has 2",
    ),
    "label count": (
        changed("index", "outputs", "label", labels=["circle", "cross", "dots"]),
        r"outputs\.label: label count mismatch: the adapter names 3 labels, the task has 4 ",
    ),
    "label name": (
        changed("index", "outputs", "probabilities", labels=["stripes", "circel", "dots", "cross"]),
        r"outputs\.probabilities: label 'circel' is none of the task's\. Did you mean 'circle'\?",
    ),
    "unknown source": (
        changed("index", "outputs", "label", from_="clas_id"),
        r"outputs\.label: unknown source: the model has no output 'clas_id'\. Did you mean 'class_id'\?",
    ),
    "unknown model input": (
        changed("index", "inputs", "xx", from_="image"),
        r"inputs\.xx: the model has no input 'xx'.*It has x",
    ),
    "missing output": (
        ("index", {"inputs": {"x": {"from": "image", "reshape": [64]}}}),
        r"outputs\.label: missing output: the task declares label: bytes\[\], the model gives class_id",
    ),
    "impossible cast": (
        changed("index", "outputs", "label", labels=None),
        r"outputs\.label: impossible cast: the model gives class_id: int64\[\], the task declares label: bytes\[\]",
    ),
    "json field": (
        changed("index", "outputs", "label", field="result.label"),
        r"outputs\.label: bad JSON field: 'result\.label' is read from a BYTES tensor",
    ),
    "reshape": (
        changed("index", "inputs", "x", reshape=[63]),
        r"inputs\.x: shape mismatch: \[8, 8\] cannot be reshaped to \[63\]",
    ),
    "column": (
        changed("index", "outputs", "probabilities", column=4),
        r"outputs\.probabilities: shape mismatch: column 4 of 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_mismatches_are_named(planted: str, tmp_path: Path) -> None:
    (name, adapter), words = PLANTED[planted]
    spec = four_specs(tmp_path, {name: adapter})[name]
    with pytest.raises(AdapterMismatch, match=words) as caught:
        load(spec)
    assert len(caught.value.problems) == (2 if planted == "missing output" else 1), caught.value


def test_a_fixed_batch_dimension_is_named(tmp_path: Path) -> None:
    path = models.nchw_fp32(tmp_path / "fixed.onnx", batch=8)
    spec = ReplicaSpec(
        "r", "v", "onnx", str(path), adapter=ADAPTERS["nchw_fp32"], inputs=(IMAGE,), outputs=(LABEL, SCORES)
    )
    with pytest.raises(AdapterMismatch, match="first dimension is fixed to 8, export it with a dynamic one"):
        load(spec)


def test_all_mismatches_are_named_at_once() -> None:
    with pytest.raises(AdapterMismatch) as caught:
        plan(
            [T("a", "FP32", (3,)), T("mask", "BOOL", (3,))],
            [T("y", "INT64"), T("z")],
            Signature((T("a", "INT8", (3,)), T("b", "BYTES")), (T("y", "FP32", (4,)),)),
        )
    assert [p.partition(":")[0] for p in caught.value.problems] == [
        "inputs.a",
        "inputs.b",
        "outputs.y",
        "outputs.z",
    ]


def test_an_input_the_model_does_without_must_be_ignored_by_name() -> None:
    task, model = [T("a"), T("mask", "BOOL")], Signature((T("a"),), (T("y"),))
    with pytest.raises(AdapterMismatch, match=r"inputs\.mask: extra input: .* adapter\.ignore"):
        plan(task, [T("y")], model)
    plan(task, [T("y")], model, {"ignore": ["mask"]})
    with pytest.raises(AdapterMismatch, match=r"no input 'mas'\. Did you mean 'mask'"):
        plan(task, [T("y")], model, {"ignore": ["mas", "mask"]})


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"input": {}}, r"adapter\.input: unknown key\. Did you mean 'inputs'"),
        ({"inputs": {"x": {"form": "a"}}}, r"adapter\.inputs\.x\.form: unknown key\. Did you mean 'from'"),
        ({"inputs": {"x": {"scale": "much"}}}, r"adapter\.inputs\.x\.scale: Expected `float"),
        ({"inputs": {"x": {"dtype": "flot32"}}}, r"adapter\.inputs\.x\.dtype: 'flot32' is no dtype"),
        ({"inputs": {"x": {"layout": "NHWC"}}}, "is no layout: write NHWC->NCHW"),
        ({"inputs": {"x": {"layout": "NHHC->NCHW"}}}, "a letter twice"),
        ({"inputs": {"x": {"reshape": [-1, -1]}}}, "is no shape"),
        ({"inputs": {"x": {"from": "a", "value": 3}}}, "'from' and 'value' exclude each other"),
        ({"outputs": {"x": {"value": 3}}}, "means something for inputs only"),
        ({"outputs": {"x": {"argmax": True, "column": 1}}}, "'argmax' and 'column' exclude each other"),
        ({"outputs": {"x": 3}}, "write a mapping such as"),
        ({"outputs": ["x"]}, "write a mapping of tensor to rule"),
        ({"ignore": "x"}, "write a list"),
    ],
)
def test_wrong_adapters_are_named(adapter: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan([T("x")], [T("x")], Signature((T("x"),), (T("x"),)), adapter)


def bridge(source: T, target: T, rule: dict[str, Any], *, outgoing: bool = False) -> Bridge:
    free = T("free")
    if outgoing:
        return plan([free], [target], Signature((free,), (source,)), {"outputs": {target.name: rule}})
    return plan([source], [free], Signature((target,), (free,)), {"inputs": {target.name: rule}})


def through(source: T, target: T, rule: dict[str, Any], array: Any) -> np.ndarray[Any, Any]:
    made = bridge(source, target, rule).inputs({source.name: np.asarray(array)}, len(array))
    return made[target.name]


def back(source: T, target: T, rule: dict[str, Any], array: Any) -> np.ndarray[Any, Any]:
    made = bridge(source, target, rule, outgoing=True).outputs({source.name: np.asarray(array)}, len(array))
    return made[target.name]


def texts(*cells: Any) -> np.ndarray[Any, Any]:
    return np.array(cells, dtype=object)


def test_layouts_and_channels() -> None:
    image = np.arange(24, dtype="f4").reshape(1, 2, 3, 4)
    moved = through(T("a", "FP32", (2, 3, 4)), T("b", "FP32", (4, 2, 3)), {"layout": "NHWC->NCHW"}, image)
    np.testing.assert_array_equal(moved, image.transpose(0, 3, 1, 2))
    assert moved.flags.c_contiguous
    grey = np.arange(6, dtype="f4").reshape(1, 2, 3)
    added = through(T("a", "FP32", (2, 3)), T("b", "FP32", (2, 3, 1)), {"layout": "NHW->NHWC"}, grey)
    np.testing.assert_array_equal(added, grey[..., None])
    dropped = through(
        T("a", "FP32", (1, 2, 3)), T("b", "FP32", (2, 3)), {"layout": "NCHW->NHW"}, grey[:, None]
    )
    np.testing.assert_array_equal(dropped, grey)
    with pytest.raises(AdapterMismatch, match="'C' is 3 and can be dropped only if it is 1"):
        bridge(T("a", "FP32", (3, 2, 3)), T("b", "FP32", (2, 3)), {"layout": "NCHW->NHW"})


def test_ranges_round_and_clip() -> None:
    rule = {"scale": 255, "dtype": "uint8"}
    got = through(T("a", "FP32", ()), T("b", "UINT8", ()), rule, np.array([0, 0.5, 1, 1.5, -1, np.nan], "f4"))
    assert got.tolist() == [0, 128, 255, 255, 0, 0]
    rule = {"scale": 1 / 255, "offset": -0.5}
    back_again = through(T("a", "UINT8", ()), T("b", "FP32", ()), rule, np.array([0, 255], "u1"))
    assert back_again.dtype == np.float32
    assert back_again.tolist() == [-0.5, 0.5]


def test_which_widenings_are_lossless() -> None:
    assert lossless("UINT8", "FP32")
    assert lossless("FP16", "FP64")
    assert lossless("BF16", "FP32")
    assert not lossless("INT64", "FP64")
    assert not lossless("INT32", "FP32")
    assert not lossless("FP64", "FP32")
    assert not lossless("BYTES", "INT8")


def test_casts_keep_what_the_target_can_hold() -> None:
    wide = np.array([-1, 0, 300, 2**40], "i8")
    assert cast("INT64", "UINT8")(wide).tolist() == [0, 0, 255, 255]
    assert cast("UINT64", "INT64")(np.array([2**64 - 1], "u8")).tolist() == [2**63 - 1]
    assert cast("FP64", "INT64")(np.array([1e30, -1e30])).tolist()[1] == -(2**63)
    assert cast("BOOL", "FP32")(np.array([True, False])).tolist() == [1.0, 0.0]
    numbers = np.array([1.0, -2.5, 3.14159, 1e30, np.inf], "f4")
    bits = cast("FP32", "BF16")(numbers)
    assert bits.dtype == np.uint16
    np.testing.assert_allclose(cast("BF16", "FP32")(bits), numbers, rtol=2**-8)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [(T("b", "INT64", labels=("no", "yes", "maybe")), [1, 0, 2]), (T("b", "BYTES"), ["yes", "no", "maybe"])],
)
def test_labels_translate_names_and_indices(target: T, wanted: list[Any]) -> None:
    named = {"labels": {"JA": "yes", "NEIN": "no", "VIELLEICHT": "maybe"}}
    assert back(T("a", "BYTES"), target, named, texts("JA", b"NEIN", "VIELLEICHT")).tolist() == wanted
    assert back(T("a", "INT32"), target, named, np.array([0, 1, 2], "i4")).tolist() == wanted
    with pytest.raises(ModelFailed, match=r"'NEI' is none of the 3 labels\. Did you mean 'NEIN'"):
        back(T("a", "BYTES"), target, named, texts("NEI"))
    with pytest.raises(ModelFailed, match="class 3 is out of range"):
        back(T("a", "INT32"), target, named, np.array([3], "i4"))


def test_labels_go_the_other_way_for_inputs() -> None:
    source = T("a", "BYTES", labels=("no", "yes"))
    rule = {"labels": {"Y": "yes", "N": "no"}}
    assert through(source, T("b", "INT64"), rule, texts("no", "yes")).tolist() == [1, 0]
    assert through(source, T("b", "BYTES"), rule, texts("no", b"yes")).tolist() == ["N", "Y"]
    with pytest.raises(InvalidRequest, match="'on' is none of the 2 labels"):
        through(source, T("b", "INT64"), rule, texts("on"))


def test_columns_and_softmax() -> None:
    logits = np.array([[0.0, np.log(3)], [1000.0, 1000.0]], "f4")
    rule = {"softmax": True, "labels": ["no", "yes"], "column": "yes"}
    got = back(T("a", "FP32", (2,)), T("score", "FP32"), rule, logits)
    np.testing.assert_allclose(got, [0.75, 0.5])
    with pytest.raises(AdapterMismatch, match="column 'maybe' is no label"):
        bridge(T("a", "FP32", (2,)), T("s", "FP32"), {**rule, "column": "maybe"}, outgoing=True)


def test_json_out_of_a_model_and_into_one() -> None:
    rule = {"from": "a", "field": "result.score"}
    cells = texts('{"result": {"score": 0.5}}', b'{"result": {"score": 1}}')
    got = back(T("a", "BYTES"), T("s", "FP32"), rule, cells)
    assert (got.dtype, got.tolist()) == (np.dtype("float32"), [0.5, 1.0])
    with pytest.raises(ModelFailed, match=r"bad JSON field 'result\.score': there is no 'score'"):
        back(T("a", "BYTES"), T("s", "FP32"), rule, texts('{"result": {}}'))
    with pytest.raises(ModelFailed, match="is not JSON"):
        back(T("a", "BYTES"), T("s", "FP32"), rule, texts("{"))
    with pytest.raises(ModelFailed, match="'s' holds text"):
        back(T("a", "BYTES"), T("s", "FP32"), rule, texts('{"result": {"score": "high"}}'))
    both = plan(
        [T("age", "INT64"), T("name", "BYTES")], [T("y")],
        Signature((T("row", "BYTES"),), (T("y"),)), {"inputs": {"row": {"json": {"years": "age", "who": "name"}}}},
    )  # fmt: skip
    made = both.inputs({"age": np.array([3]), "name": texts(b"Ada")}, 1)
    assert made["row"].tolist() == ['{"years":3,"who":"Ada"}']


def test_constants_and_defaults() -> None:
    model = Signature((T("x", shape=(2,)), T("rate", "INT64"), T("on", "BOOL", (2,))), (T("y"),))
    made = plan(
        [T("x", shape=(2,)), T("on", "BOOL", (2,), optional=True)], [T("y")], model,
        {"inputs": {"rate": {"value": 16000}, "on": {"default": [True, False]}}}, rowless=frozenset({"rate"}),
    )  # fmt: skip
    x = np.zeros((3, 2), "f4")
    got = made.inputs({"x": x}, 3)
    assert got["rate"].shape == ()
    assert got["rate"] == 16000
    assert got["on"].tolist() == [[True, False]] * 3
    assert made.inputs({"x": x, "on": np.ones((3, 2), bool)}, 3)["on"].all()
    with pytest.raises(InvalidRequest, match="'x' is missing"):
        made.inputs({"on": np.ones((3, 2), bool)}, 3)
    with pytest.raises(AdapterMismatch, match="give it a constant"):
        plan([T("x", shape=(2,))], [T("y")], model, rowless=frozenset({"rate"}))


def test_a_task_that_fits_costs_nothing() -> None:
    same = Signature((T("x", shape=(3,)),), (T("y"),))
    made = plan([T("x", shape=(3,))], [T("y")], same)
    columns = {"x": np.zeros((1, 3), "f4")}
    assert made.inputs(columns, 1) is columns
    assert made.outputs(columns, 1) is columns
    assert plan([], [], same).signature == same


def test_open_outputs_are_checked_when_they_come() -> None:
    made = plan([T("x")], [T("y", "UINT8", (2,))], Signature((T("x", ""),), ()))
    assert made.outputs({"y": np.array([[1, 255]])}, 1)["y"].dtype == np.uint8
    for wrong, words in (
        (np.array([[1, 256]]), "holds int64"),
        (np.array([[0.5, 1]]), "holds float64"),
        (np.array([[1, 2, 3]]), r"rows of shape \[3\]"),
    ):
        with pytest.raises(SemaforoError, match=words):
            made.outputs({"y": wrong}, 1)
