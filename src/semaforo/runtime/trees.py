"""What the runtimes for gradient-boosted trees share: their options, their input, and what an objective gives.

| objective | outputs |
| --- | --- |
| classes, two or more | `label`: index of the class; `probabilities`: one for each; `margin`: before the link |
| a number, or several | `prediction`; `margin` |
| an order | `score` |

A missing value is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from semaforo.entities import Signature, TensorSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.runtime.table import Columns, Matrix
from semaforo.wire.payload import Array

Kind = Literal["classes", "number", "order"]


class TreeOptions(msgspec.Struct, frozen=True):
    """Options of gradient-boosted trees.

    Attributes:
        threads: Threads of one batch.
        labels: Names of the classes, in their order.
        columns: Whether it takes a tensor for each feature, by the names that it was trained with.
    """

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    labels: tuple[str, ...] = ()
    columns: bool = False


class Booster(msgspec.Struct, frozen=True):
    """A loaded ensemble, whichever library runs it.

    Attributes:
        predict: Rows → what the objective gives: probabilities (of the second class where there are two),
            numbers or scores.
        margin: Rows → the same before the link function.
        refused: What the library raises on input that it does not take.
        kind: What the objective is about.
        width: Values of `margin` for each row: classes, where there are more than two, or targets.
        features: Names of the features; empty = none are known.
        count: How many features a row has.
        dtype: V2 dtype in which it compares features with its thresholds.
        memory: Bytes of the file.
    """

    predict: Callable[[Array], Array]
    margin: Callable[[Array], Array]
    refused: type[Exception]
    kind: Kind
    width: int
    features: Sequence[str]
    count: int
    dtype: Literal["FP32", "FP64"]
    memory: int


class TreeModel:
    """A loaded ensemble; only outputs that are wanted are computed."""

    def __init__(self, booster: Booster, table: Matrix | Columns, labels: tuple[str, ...]) -> None:
        self._booster = booster
        self._table = table
        self.signature = Signature(table.inputs, _outputs(booster, labels))
        self._wanted: Sequence[str] = tuple(spec.name for spec in self.signature.outputs)

    def want(self, outputs: Sequence[str]) -> None:
        """Compute these outputs only."""
        self._wanted = outputs

    def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidRequest: The library refused its input.
        """
        rows = self._table.rows(inputs)
        found: dict[str, Array] = {}
        try:
            if set(self._wanted) - {"margin"}:
                found = _named(self._booster, self._booster.predict(rows))
            if "margin" in self._wanted:
                found["margin"] = self._booster.margin(rows)
        except self._booster.refused as error:
            raise InvalidRequest(f"the model refused its input: {error}") from None
        return {name: found[name] for name in self._wanted}

    def memory_bytes(self) -> int:
        """Return the bytes of the file, the best guess of what the ensemble holds."""
        return self._booster.memory

    def close(self) -> None:
        """Drop the ensemble."""
        del self._booster


def tree_model(path: Path, booster: Booster, options: TreeOptions) -> TreeModel:
    """Return a model that runs an ensemble.

    Raises:
        RuntimeLoadError: Labels do not count the classes, or columns have no names.
    """
    classes = max(2, booster.width)
    if options.labels and booster.kind != "classes":
        raise RuntimeLoadError(f"options.labels: {path.name} does not tell classes apart: leave it out")
    if options.labels and len(options.labels) != classes:
        raise RuntimeLoadError(f"options.labels: {len(options.labels)} labels for {classes} classes")
    if options.columns and not booster.features:
        raise RuntimeLoadError(f"options.columns: {path.name} knows no names of features: leave it out")
    table: Matrix | Columns = (
        Columns(booster.features, booster.dtype) if options.columns else Matrix(booster.count, booster.dtype)
    )
    return TreeModel(booster, table, options.labels)


def check_file(path: Path, device: str, library: str) -> None:
    """Check what can be checked before a library is asked.

    Raises:
        RuntimeLoadError: There is no such file, or the device is not the CPU.
    """
    if device != "cpu":
        raise RuntimeLoadError(f"device '{device}': {library} is run on the CPU: set device: cpu")
    if not path.is_file():
        raise RuntimeLoadError(f"{path}: no such file")


def _outputs(booster: Booster, labels: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    wide = (booster.width,) if booster.width > 1 else ()
    dtype = booster.dtype
    if booster.kind == "classes":
        return (
            TensorSpec("label", "INT64", (), labels=labels),
            TensorSpec("probabilities", dtype, (max(2, booster.width),), labels=labels),
            TensorSpec("margin", dtype, wide),
        )
    if booster.kind == "order":
        return (TensorSpec("score", dtype, wide),)
    return (TensorSpec("prediction", dtype, wide), TensorSpec("margin", dtype, wide))


def _named(booster: Booster, given: Array) -> dict[str, Array]:
    if booster.kind == "order":
        return {"score": given}
    if booster.kind == "number":
        return {"prediction": given}
    if given.ndim == 1:
        given = np.stack([1 - given, given], axis=1)
        return {"label": (given[:, 1] > 0.5).astype(np.int64), "probabilities": given}
    return {"label": given.argmax(axis=1).astype(np.int64), "probabilities": given}
