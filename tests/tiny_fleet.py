"""A small real fleet on disk: two ONNX models of one task, a Python function, and a chat in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLEET = """\
tasks:
  double:
    inputs:  {x: fp32[3]}
    outputs: {y: fp32[3]}
    prefer:  {maximise: quality}
  shout:
    inputs:  {text: bytes}
    outputs: {loud: bytes}
  chat: {kind: chat}
models:
  rough:
    task: double
    source: models/rough
    quality: 0.5
    isolation: inline
  exact:
    task: double
    source: models/exact
    quality: 0.9
    sees: [public]
    isolation: thread
  shouter:
    task: shout
    python: words.py:shout
    isolation: thread
  parrot:
    task: chat
    python: words.py:parrot
    isolation: thread
aliases: {best: exact}
journal: journal.bin
"""

WORDS = """\
def shout(text: list[str]) -> list[str]:
    return [word.upper() for word in text]


def parrot(messages):
    for word in messages[-1]["content"].split():
        yield word + " "
"""


def scaling_model(path: Path, factor: float, *, width: int = 3, name: str = "x", output: str = "y") -> None:
    """Write an ONNX model that multiplies its input by `factor`."""
    graph = helper.make_graph(
        [helper.make_node("Mul", [name, "factor"], [output])],
        "scaling",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_fleet(folder: Path, text: str = FLEET) -> Path:
    """Write models and fleet file; return the fleet file."""
    scaling_model(folder / "models/rough/1/model.onnx", 1.9)
    scaling_model(folder / "models/exact/1/model.onnx", 2.0)
    (folder / "words.py").write_text(WORDS)
    fleet = folder / "fleet.yaml"
    fleet.write_text(text)
    return fleet
