"""The ONNX runtime: what it says of models, what it refuses, what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

import models
from semaforo.entities import Signature, TensorSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.runtime.onnx import OnnxOptions, OnnxRuntime, pick_providers, weights_bytes


def load(path: Path, **options: Any) -> Any:
    return OnnxRuntime().load(str(path), options, "cpu")


def test_signature_leaves_the_rows_out(tmp_path: Path) -> None:
    model = load(models.linear(tmp_path / "a.onnx"))
    assert model.signature == Signature(
        (TensorSpec("x", "FP32", (64,)),), (TensorSpec("y", "FP32", (10,)),), batched=True
    )
    x = np.random.default_rng(1).standard_normal((5, 64)).astype("f4")
    five = model.run({"x": x}, {})["y"]
    one = model.run({"x": x[:1]}, {})["y"]
    np.testing.assert_allclose(five[:1], one, rtol=1e-5)
    assert model.memory_bytes() == weights_bytes(tmp_path / "a.onnx") > 64 * 10 * 4
    model.close()


def test_a_first_dimension_of_one_is_run_row_by_row(tmp_path: Path) -> None:
    model = load(models.linear(tmp_path / "a.onnx", batch=1))
    assert not model.signature.batched
    assert model.signature.inputs[0].shape == (64,)
    assert model.run({"x": np.ones(64, "f4")}, {})["y"].shape == (10,)


def test_a_model_without_rows(tmp_path: Path) -> None:
    model = load(models.unbatched(tmp_path / "a.onnx"))
    assert model.signature == Signature(
        (TensorSpec("v", "FP32", (5,)),), (TensorSpec("w", "FP32", (5,)),), batched=False
    )
    assert model.run({"v": np.arange(5, dtype="f4")}, {})["w"].tolist() == [0, 2, 4, 6, 8]


def test_batched_can_be_stated(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "a.onnx", batch=8)
    assert not load(path).signature.batched
    stated = load(path, batched=True)
    assert stated.signature.inputs[0].shape == (64,)


def test_texts_go_in_as_bytes_or_str_and_come_out_as_str(tmp_path: Path) -> None:
    model = load(models.texts(tmp_path / "a.onnx"))
    got = model.run({"text": np.array([b"a", "b", "né".encode()], dtype=object)}, {})["echo"]
    assert got.tolist() == ["a", "b", "né"]
    with pytest.raises(InvalidRequest, match="input 'text' is not UTF-8"):
        model.run({"text": np.array([b"\xff"], dtype=object)}, {})


def test_scalars_beside_rows_are_told_apart(tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "a.onnx",
        [h.make_node("Mul", ["x", "gain"], ["y"])],
        [("x", T.FLOAT, ["N", 2]), ("gain", T.FLOAT, [])],
        [("y", T.FLOAT, ["N", 2])],
    )
    model = load(path)
    assert model.signature.batched
    assert model.rowless == {"gain"}


def test_only_wanted_outputs_are_computed(tmp_path: Path) -> None:
    model = load(models.index_model(tmp_path / "a.onnx"))
    x = np.zeros((2, 64), "f4")
    assert set(model.run({"x": x}, {})) == {"class_id", "p"}
    model.want(("p",))
    assert set(model.run({"x": x}, {})) == {"p"}


def test_input_that_a_node_refuses_is_an_invalid_request(tmp_path: Path) -> None:
    model = load(models.gather(tmp_path / "a.onnx"))
    assert model.run({"ids": np.array([3])}, {})["found"].tolist() == [1.5]
    with pytest.raises(InvalidRequest, match="out of data bounds"):
        model.run({"ids": np.array([11])}, {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thread": 2}, r"options\.thread: unknown option of the runtime 'onnx'\. Did you mean 'threads'"),
        ({"threads": "two"}, r"options\.threads: .*'two'"),
        ({"threads": -1}, r"options\.threads: "),
        ({"optimisation": "most"}, r"options\.optimisation: "),
        (
            {"providers": ["CPUExecutionProvidr"]},
            "no 'CPUExecutionProvidr'.*Did you mean 'CPUExecutionProvider'",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeLoadError, match=words):
        load(models.linear(tmp_path / "a.onnx"), **options)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeLoadError, match="no such file or folder"):
        load(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(RuntimeLoadError, match=r"bad\.onnx: onnxruntime cannot load it"):
        load(tmp_path / "bad.onnx")
    models.linear(tmp_path / "other.onnx")
    with pytest.raises(RuntimeLoadError, match=r"holds no model\.onnx.*bad\.onnx, other\.onnx"):
        load(tmp_path)
    models.linear(tmp_path / "model.onnx")
    assert load(tmp_path).signature.batched


def test_providers_follow_the_device() -> None:
    every = [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "AzureExecutionProvider",
        "CPUExecutionProvider",
    ]
    plain = OnnxOptions()
    assert [name for name, _ in pick_providers("cpu", plain, every)] == ["CPUExecutionProvider"]
    chosen = pick_providers("cuda:1", plain, every)
    assert [name for name, _ in chosen] == [every[0], every[1], every[3]]
    assert [extra.get("device_id") for _, extra in chosen] == [1, 1, None]
    only = OnnxOptions(
        providers=("CUDAExecutionProvider",), provider_options={"CUDAExecutionProvider": {"device_id": 0}}
    )
    assert pick_providers("cuda:1", only, every) == [("CUDAExecutionProvider", {"device_id": 0})]
    with pytest.raises(RuntimeLoadError, match="has only CPUExecutionProvider: install the build"):
        pick_providers("cuda:0", plain, ["CPUExecutionProvider"])
    with pytest.raises(RuntimeLoadError, match=r"device 'cude': unknown kind\. Did you mean 'cuda'"):
        pick_providers("cude", plain, every)
    with pytest.raises(RuntimeLoadError, match="write the number"):
        pick_providers("cuda:x", plain, every)
    with pytest.raises(RuntimeLoadError, match="one device, not on cuda:0, cuda:1"):
        pick_providers("cuda:0+cuda:1", plain, every)
