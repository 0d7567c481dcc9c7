"""Real models made for the tests: small ONNX graphs and Python functions that agree on one task.

The task is to tell which of four patterns an 8 × 8 picture is nearest to: pixels fp32 0…1, labels and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

LABELS = ("circle", "cross", "dots", "stripes")
SHUFFLED = ("stripes", "circle", "dots", "cross")
_KINDS = {np.dtype("float32"): T.FLOAT, np.dtype("uint8"): T.UINT8, np.dtype("int64"): T.INT64}


def weights() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the weights (64, 4) of the classifier; multiples of 1/1024 keep every sum exact in fp32."""
    rng = np.random.default_rng(7)
    return (rng.integers(-2048, 2049, size=(64, 4)) / 1024).astype(np.float32)


def pictures(rows: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return pictures (rows, 8, 8) whose pixels are 0 or 1, which uint8 0…255 carries without loss."""
    return np.random.default_rng(seed).integers(0, 2, size=(rows, 8, 8)).astype(np.float32)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[Any]]],
    outputs: Sequence[tuple[str, int, Sequence[Any]]],
    constants: dict[str, Any] | None = None,
) -> Path:
    """Write an ONNX model of these nodes, checked."""
    graph = h.make_graph(
        list(nodes),
        path.stem,
        [h.make_tensor_value_info(*entry) for entry in inputs],
        [h.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def nchw_fp32(path: Path, *, batch: Any = "N") -> Path:
    """A convolution over NCHW fp32 pixels 0…1 that gives softmax ``probabilities`` in the order of LABELS."""
    kernel = weights().T.reshape(4, 1, 8, 8)
    return save(
        path,
        [
            h.make_node("Conv", ["pixels", "kernel"], ["map"]),
            h.make_node("Flatten", ["map"], ["scores"], axis=1),
            h.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        [("pixels", T.FLOAT, [batch, 1, 8, 8])],
        [("probabilities", T.FLOAT, [batch, 4])],
        {"kernel": kernel},
    )


def nhwc_uint8(path: Path) -> Path:
    """A linear layer over NHWC uint8 pixels 0…255 that gives raw ``logits`` in the order of SHUFFLED."""
    order = [LABELS.index(name) for name in SHUFFLED]
    return save(
        path,
        [
            h.make_node("Cast", ["bytes"], ["floats"], to=T.FLOAT),
            h.make_node("Div", ["floats", "top"], ["unit"]),
            h.make_node("Flatten", ["unit"], ["flat"], axis=1),
            h.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        [("bytes", T.UINT8, ["N", 8, 8, 1])],
        [("logits", T.FLOAT, ["N", 4])],
        {"top": np.float32(255), "w": weights()[:, order]},
    )


def index_model(path: Path) -> Path:
    """A linear layer under other names that gives a ``class_id`` in the order of SHUFFLED, and ``p``."""
    order = [LABELS.index(name) for name in SHUFFLED]
    return save(
        path,
        [
            h.make_node("MatMul", ["x", "w"], ["z"]),
            h.make_node("Softmax", ["z"], ["p"], axis=1),
            h.make_node("ArgMax", ["z"], ["class_id"], axis=1, keepdims=0),
        ],
        [("x", T.FLOAT, ["N", 64])],
        [("class_id", T.INT64, ["N"]), ("p", T.FLOAT, ["N", 4])],
        {"w": weights()[:, order]},
    )


def linear(path: Path, *, inputs: int = 64, outputs: int = 10, batch: Any = "N") -> Path:
    """``y = x · w``, as small as models get."""
    w = np.random.default_rng(3).standard_normal((inputs, outputs)).astype(np.float32)
    return save(
        path,
        [h.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", T.FLOAT, [batch, inputs])],
        [("y", T.FLOAT, [batch, outputs])],
        {"w": w},
    )


def heavy(path: Path, *, width: int = 512, layers: int = 8) -> Path:
    """A stack of matrix products that takes milliseconds on one core."""
    w = (np.random.default_rng(3).standard_normal((width, width)) / width**0.5).astype(np.float32)
    grow = np.zeros((64, width), dtype=np.float32)
    names = ["grown", *(f"h{i}" for i in range(layers - 1)), "y"]
    nodes = [h.make_node("MatMul", ["x", "grow"], ["grown"])]
    nodes += [h.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(layers)]
    return save(
        path,
        nodes,
        [("x", T.FLOAT, ["N", 64])],
        [("y", T.FLOAT, ["N", width])],
        {"w": w, "grow": grow},
    )


def texts(path: Path) -> Path:
    """Gives BYTES back as they came."""
    return save(
        path,
        [h.make_node("Identity", ["text"], ["echo"])],
        [("text", T.STRING, ["N"])],
        [("echo", T.STRING, ["N"])],
    )


def unbatched(path: Path) -> Path:
    """Scales one vector of five; it knows no rows."""
    return save(
        path,
        [h.make_node("Mul", ["v", "two"], ["w"])],
        [("v", T.FLOAT, [5])],
        [("w", T.FLOAT, [5])],
        {"two": np.float32(2)},
    )


def gather(path: Path) -> Path:
    """Looks ids 0…9 up; any other id is an error of onnxruntime."""
    return save(
        path,
        [h.make_node("Gather", ["table", "ids"], ["found"], axis=0)],
        [("ids", T.INT64, ["N"])],
        [("found", T.FLOAT, ["N"])],
        {"table": np.arange(10, dtype=np.float32) / 2},
    )
