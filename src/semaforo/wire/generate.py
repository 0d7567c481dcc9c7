"""V2's generate extension for tensor tasks: one row as named JSON values, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from semaforo.entities import TaskType, TensorSpec
from semaforo.entities.tensor import shape_key
from semaforo.errors import InvalidRequest, nearest
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.v2_dtypes import datatype_of, from_json, to_json


def one_row(task: TaskType, fields: Mapping[str, Any]) -> tuple[Tensors, str]:
    """Return the tensors of one row, and their shape key.

    Args:
        task: A tensor task.
        fields: Each input under its name: a number or text where one row is a single element, else a list,
            flat or nested.

    Raises:
        InvalidRequest: A field is no input, an input is missing, or a value does not fit.
    """
    specs = {spec.name: spec for spec in task.inputs}
    for name in fields:
        if name not in specs:
            raise InvalidRequest(f"task '{task.name}' takes no field '{name}'.{nearest(name, specs)}")
    missing = [spec.name for spec in task.inputs if not spec.optional and spec.name not in fields]
    if missing:
        raise InvalidRequest(f"task '{task.name}' also takes the field {', '.join(missing)}")
    arrays: dict[str, Array] = {}
    for name, value in fields.items():
        spec = specs[name]
        shape = _shape(spec, value)
        data = value if isinstance(value, list) else [value]
        if isinstance(value, list) and value and isinstance(value[0], list):
            data = [value]
        arrays[name] = from_json(name, spec.dtype, [1, *shape], msgspec.Raw(msgspec.json.encode(data)))
    key = shape_key([(name, specs[name].dtype, array.shape[1:]) for name, array in arrays.items()])
    return Tensors(arrays), key


def plain(task: TaskType, result: Tensors) -> dict[str, Any]:
    """Return the outputs of one row: a list, or the element itself where a row has one."""
    specs = {spec.name: spec for spec in task.outputs}
    values: dict[str, Any] = {}
    for name, array in result.arrays.items():
        spec = specs.get(name)
        flat = to_json(name, datatype_of(array, spec.dtype if spec else ""), array)
        single = len(flat) == 1 and (spec is None or spec.shape in ((), (1,)))
        values[name] = flat[0] if single else flat
    return values


def _shape(spec: TensorSpec, value: Any) -> tuple[int, ...]:
    """Return the shape of one row; a dimension that may be any is taken from the value."""
    if -1 not in spec.shape:
        return spec.shape
    found: list[int] = []
    level = value
    for _ in spec.shape:
        if not isinstance(level, list):
            raise InvalidRequest(f"field '{spec.name}' is nested as {spec} says, the row itself left out")
        found.append(len(level))
        level = level[0] if level else None
    if not spec.accepts(found):
        raise InvalidRequest(f"field '{spec.name}' has shape {found}; it takes {spec}")
    return tuple(found)
