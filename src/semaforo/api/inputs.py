"""A program's values → the tensors of a task, and back.

Rules this module keeps:

1. A value that has the shape of one row is one row, and its answer is one row too.
2. A value is never cut: a number that does not fit its type is an error, not another number.
3. Every error names the input, what it got and what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semaforo.entities import DTYPES, Ref, TaskType, TensorSpec
from semaforo.entities.tensor import shape_key
from semaforo.errors import InvalidRequest, nearest
from semaforo.wire.payload import Array, Tensors


def tensors_of(task: TaskType, given: Mapping[str, Any]) -> tuple[Tensors, Ref, bool]:
    """Return the tensors of a request, what the scheduler sees of them, and whether it is one row.

    Raises:
        InvalidRequest: An input is unknown, missing, or does not fit.
    """
    specs = {spec.name: spec for spec in task.inputs}
    for name in given:
        if name not in specs:
            raise InvalidRequest(
                f"'{task.name}' takes no input '{name}'.{nearest(name, specs)} It takes {', '.join(specs)}"
            )
    missing = [str(spec) for spec in task.inputs if not spec.optional and spec.name not in given]
    if missing:
        raise InvalidRequest(f"'{task.name}' also takes {', '.join(missing)}")
    arrays: dict[str, Array] = {}
    single: dict[str, bool] = {}
    for name, value in given.items():
        arrays[name], single[name] = _rows(specs[name], value)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or len(set(single.values())) > 1:
        told = ", ".join(
            f"{name}: {'one row' if single[name] else f'{n} rows'}" for name, n in counts.items()
        )
        raise InvalidRequest(f"the inputs of '{task.name}' differ in rows ({told})")
    tensors = Tensors(arrays)
    key = shape_key([(name, specs[name].dtype, array.shape[1:]) for name, array in arrays.items()])
    size = sum(array.nbytes for array in arrays.values())
    return tensors, Ref(tensors.rows, size, key), all(single.values())


def outputs_of(result: Tensors, single: bool) -> dict[str, Any]:
    """Return outputs by name; of one row, its values (a number, a text, or an array)."""
    if not single:
        return dict(result.arrays)
    firsts = {name: array[0] for name, array in result.arrays.items()}
    return {name: first.item() if isinstance(first, np.generic) else first for name, first in firsts.items()}


def _rows(spec: TensorSpec, value: Any) -> tuple[Array, bool]:
    array = _texts(spec, value) if spec.dtype == "BYTES" else _numbers(spec, value)
    if array.ndim == len(spec.shape) and spec.accepts(array.shape):
        return np.ascontiguousarray(array[np.newaxis]), True
    if array.ndim == len(spec.shape) + 1 and spec.accepts(array.shape[1:]) and len(array):
        return np.ascontiguousarray(array), False
    raise InvalidRequest(
        f"input '{spec.name}' has shape {list(array.shape)}; one row of {spec} has shape "
        f"{['?' if d < 0 else d for d in spec.shape]}, and rows may come before it"
    )


def _texts(spec: TensorSpec, value: Any) -> Array:
    array = np.array(value, dtype=object)
    for item in array.flat:
        if not isinstance(item, str | bytes):
            raise InvalidRequest(f"input '{spec.name}' takes text or bytes, not {type(item).__name__}")
    return array


def _numbers(spec: TensorSpec, value: Any) -> Array:
    wanted = np.dtype(DTYPES[spec.dtype])
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidRequest(f"input '{spec.name}' is no array: {error}") from None
    if array.dtype == wanted:
        return array
    both_integers = array.dtype.kind in "iu" and wanted.kind in "iu"
    if both_integers and array.size:
        bounds = np.iinfo(wanted)
        low, high = array.min(), array.max()
        if low < bounds.min or high > bounds.max:
            raise InvalidRequest(
                f"input '{spec.name}' holds {int(low)} to {int(high)}; {spec.dtype.lower()} goes from "
                f"{bounds.min} to {bounds.max}"
            )
    elif not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InvalidRequest(f"input '{spec.name}' holds {array.dtype}; it takes {spec}")
    return array.astype(wanted)
