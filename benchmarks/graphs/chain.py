"""The graph that is timed: five models of some microseconds, each of which takes what the one before it gives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import session
from benchmarks.serving.forms import Case

STEPS = 5
WIDTH = 64


class Chain(msgspec.Struct, frozen=True):
    """Files of the graph.

    Attributes:
        step: The model of a step, ``x: fp32[64]`` → ``y: fp32[64]``.
        fleet: Fleet file with five models of that file, and the graphs ``chain`` and ``diamond``.
        case: What is asked and what five steps answer.
    """

    step: Path
    fleet: Path
    case: Case


def write(folder: Path) -> Chain:
    """Write the files into a folder."""
    step, whole = folder / "step.onnx", folder / "whole.onnx"
    _save(step, 1)
    _save(whole, STEPS)
    names = range(STEPS)
    models = [f"  m{n}: {{task: step, source: step.onnx, isolation: inline, max_batch: 32}}" for n in names]
    chain = [
        f"        s{n}: {{ask: m{n}, inputs: {{x: {f's{n - 1}.y' if n else 'input.x'}}}}}" for n in names
    ]
    diamond = [
        "        a: {ask: m0}",
        *(f"        b{n}: {{ask: m{n}, inputs: {{x: a.y}}}}" for n in (1, 2, 3)),
        "        best: {fuse: mean, of: [b1, b2, b3]}",
        "        last: {ask: m4, inputs: {x: best.y}}",
    ]
    lines = [
        "tasks:",
        f'  step: {{inputs: {{x: "fp32[{WIDTH}]"}}, outputs: {{y: "fp32[{WIDTH}]"}}}}',
        "models:",
        *models,
        "  chain:\n    task: step\n    graph:\n      steps:",
        *chain,
        "  diamond:\n    task: step\n    graph:\n      steps:",
        *diamond,
    ]
    fleet = folder / "fleet.yaml"
    fleet.write_text("\n".join(lines) + "\n")
    drawn = np.round(np.random.default_rng(0).random((1, WIDTH)), 4).astype(np.float32)
    return Chain(step, fleet, Case(whole, drawn, session(whole).run(None, {"x": drawn})[0]))


def _save(path: Path, steps: int) -> None:
    weights = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32) / 8
    ends = ["x", *(f"h{n}" for n in range(1, steps)), "y"]
    nodes = [helper.make_node("MatMul", [ends[n], "w"], [ends[n + 1]]) for n in range(steps)]
    graph = helper.make_graph(
        nodes, "steps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
