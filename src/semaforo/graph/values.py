"""The values of one run, and what a step gets of them.

Rules this module keeps:

1. An array is handed on as it is; only a choice of rows, or a cast that the types ask for, makes another. What
   several read, none may write into.
2. What a step is given are the rows that all its inputs have, and for which its condition holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import DTYPES, TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.condition import Condition, Rows
from semaforo.graph.graph import INPUT, SESSION

Array = NDArray[Any]


class Given(msgspec.Struct):
    """What a step runs on.

    Attributes:
        arrays: Own input → ``(rows, …)``.
        rows: Numbers of the request's rows that these are; None = all.
        count: How many.
    """

    arrays: dict[str, Array]
    rows: Array | None
    count: int


class Edge(msgspec.Struct, frozen=True):
    """How one input of a step comes from a reference.

    Attributes:
        name: Own input.
        source: ``step.output``, ``input.name`` or ``session.name``.
        dtype: NumPy dtype to cast to, "" = as it is.
        shape: Shape of one row to take, None = as it is.
        shared: Whether something else reads the same array, so that the step must not write into it.
    """

    name: str
    source: str
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    shared: bool = False


def edge(name: str, source: str, given: TensorSpec, wanted: TensorSpec | None) -> Edge:
    """Return the edge from one tensor to another that it fits (`check.misfit`)."""
    if wanted is None:
        return Edge(name, source)
    dtype = DTYPES[wanted.dtype] if given.dtype != wanted.dtype else ""
    alike = len(given.shape) == len(wanted.shape)
    return Edge(name, source, dtype, None if alike else wanted.shape)


class Values:
    """What is known so far, by reference; a step's own name stands for the rows it has run for.

    Args:
        rows: Rows of the request.
        inputs: What it gave.
        session: What its session remembers.
    """

    def __init__(self, rows: int, inputs: Mapping[str, Array], session: Mapping[str, Array]) -> None:
        self.rows = rows
        self._known: dict[str, Rows] = {f"{INPUT}.{name}": Rows(array) for name, array in inputs.items()}
        for name, array in session.items():
            self._known[f"{SESSION}.{name}"] = Rows(array)

    def get(self, reference: str) -> Rows | None:
        """Return a value, None where no row has it."""
        return self._known.get(reference)

    def put(self, step: str, arrays: Mapping[str, Array], rows: Array | None) -> None:
        """Keep what a step gave for some rows; None = all."""
        first: Rows | None = None
        for name, array in arrays.items():
            value = self._known[f"{step}.{name}"] = Rows(array, rows)
            first = first or value
        if first is not None:
            # A reference that names no output is to the only one; in `missing()` any will do.
            self._known[step] = first

    def outputs(self, step: str) -> dict[str, Rows]:
        """Return all that a step gave, by output."""
        head = step + "."
        return {name[len(head) :]: value for name, value in self._known.items() if name.startswith(head)}

    def given(self, edges: Sequence[Edge], condition: Condition | None) -> Given | None:
        """Return what a step runs on; None where there is no row for it.

        Raises:
            InvalidRequest: Its condition cannot be worked out, or an input is not there for any row.
        """
        rows: Array | None = None
        found: list[Rows] = []
        for one in edges:
            value = self._known.get(one.source)
            if value is None:
                raise InvalidRequest(f"'{one.source}' is not there for any row")
            found.append(value)
            if value.rows is not None:
                rows = value.rows if rows is None else np.intersect1d(rows, value.rows, assume_unique=True)
        if condition is not None:
            holds = condition.holds({name: self.get(name) for name in condition.names}, self.rows)
            if not holds.all():
                chosen = np.flatnonzero(holds)
                rows = chosen if rows is None else np.intersect1d(rows, chosen, assume_unique=True)
        count = self.rows if rows is None else len(rows)
        if not count:
            return None
        arrays = {one.name: _cut(one, value, rows) for one, value in zip(edges, found, strict=True)}
        return Given(arrays, rows, count)


def _cut(one: Edge, value: Rows, rows: Array | None) -> Array:
    array = value.array
    if rows is not None and value.rows is not rows:
        at = rows if value.rows is None else np.searchsorted(value.rows, rows)
        if value.rows is None or len(at) != len(value.rows):
            array = array[at]
    if one.dtype:
        array = array.astype(one.dtype)
    if one.shape is not None:
        array = array.reshape(len(array), *one.shape)
    if one.shared and array.flags.writeable and np.may_share_memory(array, value.array):
        array = array.view()
        array.flags.writeable = False
    return array


def whole(value: Rows | None, rows: int, reference: str) -> Array:
    """Return a value that is there for every row.

    Raises:
        InvalidRequest: It is not; the message names the first row without it.
    """
    if value is not None and (value.rows is None or len(value.rows) == rows):
        return value.array
    have = np.arange(0) if value is None or value.rows is None else value.rows
    lost = int(np.setdiff1d(np.arange(rows), have)[0])
    raise InvalidRequest(f"the graph gave no '{reference}' for row {lost}")
