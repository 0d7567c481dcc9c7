"""Functions under ``@semaforo.model`` in a Python file, found by reading it: nothing in the file is run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import msgspec

from semaforo.config.document import Node
from semaforo.config.forms import NAME, TENSOR
from semaforo.entities import Signature, TensorSpec
from semaforo.errors import ArtefactError, InvalidRequest

_DTYPES = {"str": "BYTES", "bytes": "BYTES", "float": "FP64", "int": "INT64", "bool": "BOOL"}
_ROWS = ("list", "List", "Sequence")


class _Hidden(Exception):
    """Something is known only when the file runs."""


class FoundFunction(msgspec.Struct, frozen=True):
    """A decorated function.

    Attributes:
        name: Name of the model.
        function: Name of the function.
        task: Task it serves.
        signature: What it takes and gives.
        quality, max_batch: As the decorator says; None = not said.
    """

    name: str
    function: str
    task: str
    signature: Signature
    quality: float | None = None
    max_batch: int | None = None


def functions_of(path: Path) -> tuple[list[FoundFunction], list[str]]:
    """Return the functions of a file that are models, and why others are left out.

    Raises:
        ArtefactError: The file is no Python, or cannot be imported as its decorators refuse a function.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise ArtefactError(f"{path} is no Python: {error}") from None
    found, left = [], []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [d for d in node.decorator_list if isinstance(d, ast.Call) and _is_model(d.func)]
        for call in calls[:1]:
            try:
                found.append(_function(node, call))
            except _Hidden as error:
                left.append(f"{node.name}: {error}")
            except (ValueError, InvalidRequest) as error:
                # The decorator refuses it, and with it the whole file.
                raise ArtefactError(f"{path}: {node.name}: {error}") from None
    return found, left


def _is_model(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return (
            function.attr == "model"
            and isinstance(function.value, ast.Name)
            and function.value.id == "semaforo"
        )
    return isinstance(function, ast.Name) and function.id == "model"


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call) -> FoundFunction:
    said: dict[str, Any] = {}
    for name, value in [("task", v) for v in call.args[:1]] + [(k.arg, k.value) for k in call.keywords]:
        if name in ("task", "name", "inputs", "outputs", "quality", "max_batch"):
            try:
                said[name] = ast.literal_eval(value)
            except ValueError:
                raise _Hidden(f"what it gives as `{name}` is known only when the file runs") from None
    task, title = said.get("task", ""), said.get("name", "") or node.name
    for word in (task, title):
        if not isinstance(word, str) or not NAME.fullmatch(word):
            raise ValueError(f"'{word}' is no name for a task or a model")
    arguments = [*node.args.args, *node.args.kwonlyargs]
    inputs = (
        _declared(said["inputs"])
        if "inputs" in said
        else tuple(_annotated(argument.arg, argument.annotation) for argument in arguments)
    )
    outputs = _declared(said["outputs"]) if "outputs" in said else (_annotated("output", node.returns),)
    return FoundFunction(
        title, node.name, task, Signature(inputs, outputs), said.get("quality"), said.get("max_batch")
    )


def _declared(tensors: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(tensors, dict):
        raise ValueError("its tensors are no mapping of name to type")
    return tuple(
        msgspec.structs.replace(TENSOR.read(Node(0, text, str(text))), name=str(name))
        for name, text in tensors.items()
    )


def _annotated(name: str, annotation: ast.expr | None) -> TensorSpec:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    depth, inner = 0, annotation
    while isinstance(inner, ast.Subscript) and isinstance(inner.value, ast.Name) and inner.value.id in _ROWS:
        depth, inner = depth + 1, inner.slice
    if not isinstance(inner, ast.Name) or inner.id not in _DTYPES:
        shown = ast.unparse(annotation) if annotation else "that is missing"
        raise ValueError(f"the annotation {shown} of '{name}' says no rows of a type, as list[str] does")
    return TensorSpec(name, _DTYPES[inner.id], (-1,) * max(depth - 1, 0))
