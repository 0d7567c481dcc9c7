"""Rows of features: one tensor of them all, or a tensor for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semaforo.entities import DTYPES, TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.runtime.adapter_flow import OPEN
from semaforo.runtime.python_values import text
from semaforo.wire.payload import Array

MATRIX = "features"
"""Name of the one tensor."""
TEXT = "text"
"""Name of the one tensor where rows are texts."""


class Matrix:
    """Features as one array ``(rows, width)``.

    Args:
        width: How many features a row has; -1 = any number.
        dtype: V2 dtype that the model takes.
    """

    def __init__(self, width: int, dtype: str) -> None:
        self.inputs = (TensorSpec(MATRIX, dtype, (width,)),)

    def rows(self, inputs: Mapping[str, Array]) -> Any:
        """Return the array."""
        return inputs[MATRIX]


class Columns:
    """Features as a tensor for each, joined to one array of numbers.

    Args:
        names: Of the features, in the model's order.
        dtype: V2 dtype that the model takes.
    """

    def __init__(self, names: Sequence[str], dtype: str) -> None:
        self.inputs = tuple(TensorSpec(name, dtype, ()) for name in names)
        self._dtype = DTYPES[dtype]

    def rows(self, inputs: Mapping[str, Array]) -> Any:
        """Return the columns side by side."""
        return np.stack([inputs[spec.name] for spec in self.inputs], axis=1).astype(self._dtype, copy=False)


class Frame:
    """Features as a tensor for each, joined to a data frame of what the task gives: numbers or texts.

    Args:
        names: Of the features, in the model's order.
        make: The data frame's class.
    """

    def __init__(self, names: Sequence[str], make: Any) -> None:
        self.inputs = tuple(TensorSpec(name, OPEN, ()) for name in names)
        self._make = make

    def rows(self, inputs: Mapping[str, Array]) -> Any:
        """Return a data frame.

        Raises:
            InvalidRequest: A text is not UTF-8, or a cell holds more than one value.
        """
        return self._make({spec.name: _cells(inputs[spec.name], spec.name) for spec in self.inputs})


class Texts:
    """One text for each row."""

    inputs = (TensorSpec(TEXT, "BYTES", ()),)

    def rows(self, inputs: Mapping[str, Array]) -> Any:
        """Return the texts.

        Raises:
            InvalidRequest: One is not UTF-8.
        """
        return _cells(inputs[TEXT], TEXT)


Table = Matrix | Columns | Frame | Texts


def _cells(array: Array, name: str) -> Any:
    if array.ndim != 1:
        raise InvalidRequest(f"input '{name}': one value is wanted for each row, not {array.shape[1:]}")
    if not array.dtype.hasobject:
        return array
    try:
        return [text(cell) for cell in array.tolist()]
    except InvalidRequest as error:
        raise InvalidRequest(f"input '{name}': {error.message}") from None
