"""Real ONNX models for the benchmarks, made on the spot: a small classifier, and work of a chosen length.

The long one answers something exact: `answer(number)` for the row that `row(number)` encodes, so that a wrong or
swapped answer is seen at once, and its convolutions cost what they cost whatever the batch (a batch is worth a few
per cent only), so that capacity is counted in rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FEATURES = 64
CLASSES = 10
IMAGE = (3, 32, 32)
MOST_NUMBERS = 1 << 20
_DIGITS = 5
_CHANNELS = 64
_SIDE = 32


def row(number: int) -> NDArray[np.float32]:
    """Return the row ``(64,)`` that stands for a number below `MOST_NUMBERS`."""
    encoded = np.zeros(FEATURES, np.float32)
    for k in range(_DIGITS):
        encoded[k] = number >> (4 * k) & 15
    return encoded


def answer(number: int) -> float:
    """Return what the long model answers to `row(number)`, exactly."""
    return float(3 * number + 7)


def classifier(path: Path) -> None:
    """Write a perceptron 64 → 64 → 10 with random weights: input ``x``, output ``probabilities``."""
    drawn = np.random.default_rng(0)
    hidden = (drawn.standard_normal((FEATURES, 64)) / 8).astype(np.float32)
    last = (drawn.standard_normal((64, CLASSES)) / 8).astype(np.float32)
    weights = {
        "w1": hidden, "b1": np.zeros(64, np.float32), "w2": last, "b2": np.zeros(CLASSES, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    _save(path, nodes, weights, "probabilities", CLASSES)


def convolution(path: Path) -> None:
    """Write five convolutions 3×32×32 → 10 (about 40 MFLOP a row) with random weights: ``x`` → ``scores``."""
    drawn = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {}
    nodes = []
    last, channels = "x", IMAGE[0]
    for k, (made, stride) in enumerate(((32, 1), (48, 2), (64, 1), (96, 2), (96, 1))):
        scale = (2 / (9 * channels)) ** 0.5
        weights[f"w{k}"] = (drawn.standard_normal((made, channels, 3, 3)) * scale).astype(np.float32)
        sides = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        nodes += [
            helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], **sides),
            helper.make_node("Relu", [f"c{k}"], [f"r{k}"]),
        ]
        last, channels = f"r{k}", made
    weights["head"] = (drawn.standard_normal((channels, CLASSES)) / 10).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
    ]
    _save(path, nodes, weights, "scores", CLASSES, IMAGE)


def work(path: Path, seconds: float) -> float:
    """Write a model that takes about `seconds` for a row on one thread; return the seconds it takes here."""
    _work(path, 4)
    short = _time(path)
    _work(path, 8)
    layer = max((_time(path) - short) / 4, 1e-6)
    layers = max(1, round(4 + (seconds - short) / layer))
    _work(path, layers)
    return _time(path)


def _work(path: Path, layers: int) -> None:
    drawn = np.random.default_rng(0)
    exact = np.zeros((FEATURES, 1), np.float32)
    for k in range(_DIGITS):
        exact[k] = 3 * 16**k
    weights: dict[str, NDArray[Any]] = {
        "exact": exact,
        "bias": np.full(1, answer(0), np.float32),
        "as_image": np.array([-1, FEATURES, 1, 1], np.int64),
        "size": np.array([1, 1, _SIDE, _SIDE], np.int64),
        # Small enough to vanish beside the exact answer, and not zero, so that nothing is optimised away.
        "tiny": np.full(1, 1e-30, np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "exact", "bias"], ["number"]),
        helper.make_node("Reshape", ["x", "as_image"], ["image"]),
        helper.make_node("Expand", ["image", "size"], ["l0"]),
    ]
    for k in range(layers):
        scale = (2 / (9 * _CHANNELS)) ** 0.5
        weights[f"w{k}"] = (drawn.standard_normal((_CHANNELS, _CHANNELS, 3, 3)) * scale).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [f"l{k}", f"w{k}"], [f"c{k}"], kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", [f"c{k}"], [f"l{k + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"l{layers}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "tiny"], ["nothing"]),
        helper.make_node("Add", ["number", "nothing"], ["y"]),
    ]
    _save(path, nodes, weights, "y", 1)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, NDArray[Any]],
    output: str,
    width: int,
    given: tuple[int, ...] = (FEATURES,),
) -> None:
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *given])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def session(path: Path) -> ort.InferenceSession:
    """Load a model on one thread of the CPU."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])


def _time(path: Path) -> float:
    loaded = session(path)
    given = {"x": row(12345)[None]}
    times = []
    for _ in range(12):
        start = time.perf_counter()
        loaded.run(None, given)
        times.append(time.perf_counter() - start)
    return statistics.median(sorted(times)[:8])
