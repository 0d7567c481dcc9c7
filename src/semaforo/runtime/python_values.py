"""Between arrays and what Python functions take and return: the annotation of a parameter decides.

| annotation | a batch arrives as |
| --- | --- |
| none, `np.ndarray`, `NDArray[…]`, `Any` | the array `(rows, …)` |
| `list[str]` | texts, decoded from UTF-8 |
| `list[bytes]`, `list[int]`, `list[float]`, `list[list[…]]`, `list` | `array.tolist()` |
| `list[np.ndarray]` | one array for each row |
| `list[dict]` | each row's JSON, decoded |
| `str`, `bytes`, `int`, `float`, `bool`, `dict` | one row at a time: the function is not batched |
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from semaforo.errors import InvalidRequest, ModelFailed, RuntimeLoadError
from semaforo.wire.payload import Array

Convert = Callable[[Array], Any]

PARAMETERS = "parameters"
"""A parameter of this name is given the request's parameters."""

_SCALARS = (str, bytes, int, float, bool, dict)


def text(cell: Any) -> str:
    """Return a cell of a BYTES tensor as text.

    Raises:
        InvalidRequest: It is not UTF-8.
    """
    if isinstance(cell, str):
        return cell
    try:
        return str(cell, "utf-8")
    except (TypeError, UnicodeDecodeError):
        raise InvalidRequest(f"{cell!r:.60} is not UTF-8 text") from None


def _texts(array: Array) -> Any:
    def deep(value: Any) -> Any:
        return [deep(v) for v in value] if isinstance(value, list) else text(value)

    return deep(array.tolist())


def _bytes(cell: Any) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _json(cell: Any) -> Any:
    try:
        return msgspec.json.decode(cell)
    except (msgspec.DecodeError, TypeError) as error:
        raise InvalidRequest(f"{cell!r:.60} is not JSON: {error}") from None


def _scalar(kind: type) -> Convert:
    special: dict[type, Callable[[Any], Any]] = {str: text, bytes: _bytes, dict: _json}
    convert = special.get(kind, kind)

    def one(row: Array) -> Any:
        if row.size != 1:
            raise InvalidRequest(
                f"one {kind.__name__} is wanted for each row, not an array of shape {row.shape}"
            )
        return convert(row.reshape(()).item())

    return one


def _leaf(annotation: Any) -> Any:
    while typing.get_origin(annotation) in (list, Sequence):
        annotation = (typing.get_args(annotation) or (Any,))[0]
    return annotation


def _is_array(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return origin is np.ndarray


def converter(name: str, annotation: Any) -> tuple[Convert | None, bool]:
    """Return what converts an array for a parameter (None = nothing to do), and whether it takes one row.

    Raises:
        RuntimeLoadError: The annotation says nothing known.
    """
    if annotation in (inspect.Parameter.empty, Any) or _is_array(annotation):
        return None, False
    if annotation in _SCALARS:
        return _scalar(annotation), True
    origin = typing.get_origin(annotation) or annotation
    if origin in (list, Sequence):
        leaf = _leaf(annotation)
        leaf = typing.get_origin(leaf) if typing.get_origin(leaf) is dict else leaf
        if leaf is str:
            return _texts, False
        if leaf is dict:
            return lambda array: [_json(cell) for cell in array.reshape(-1).tolist()], False
        if leaf is bytes:
            return lambda array: [_bytes(cell) for cell in array.reshape(-1).tolist()], False
        if _is_array(leaf):
            return list, False
        if leaf in (int, float, bool, Any, list):
            return lambda array: array.tolist(), False
    raise RuntimeLoadError(
        f"parameter '{name}' is annotated as {annotation}, which no tensor becomes: "
        "use np.ndarray, list[str], list[float], str, float …"
    )


def takes_text(annotation: Any) -> bool:
    """Tell whether a parameter takes one text for each row."""
    return annotation is str or annotation == list[str]


def as_array(value: Any, name: str) -> Array:
    """Return what a function gave for one output as an array; texts become an object array.

    Raises:
        ModelFailed: It is ragged, or nothing an array can be made of.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ModelFailed(f"the model returned rows of unequal shape for '{name}': {error}") from None
    if array.dtype.kind in "US":
        array = np.asarray(value, dtype=object)
    if array.dtype.hasobject:
        for cell in array.flat:
            if not isinstance(cell, (str, bytes)):
                raise ModelFailed(
                    f"the model returned a {type(cell).__name__} in '{name}': numbers, texts and arrays can be sent"
                )
    return array


def named_outputs(result: Any, names: Sequence[str]) -> dict[str, Array]:
    """Name what a function returned by the outputs that are declared.

    Raises:
        ModelFailed: It does not match them.
    """
    if isinstance(result, Mapping):
        missing = [name for name in names if name not in result]
        if missing:
            raise ModelFailed(
                f"the model returned {', '.join(map(repr, result)) or 'nothing'}; '{missing[0]}' is missing"
            )
        return {name: as_array(result[name], name) for name in names or result}
    if result is None:
        raise ModelFailed("the model returned None: return an array, a list, a dict or a tuple")
    if not names:
        return {"output": as_array(result, "output")}
    if len(names) == 1:
        if isinstance(result, tuple) and len(result) == 1:
            result = result[0]
        return {names[0]: as_array(result, names[0])}
    if isinstance(result, tuple) and len(result) == len(names):
        return {name: as_array(value, name) for name, value in zip(names, result, strict=True)}
    what = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"one {type(result).__name__}"
    raise ModelFailed(
        f"the model returned {what} for the {len(names)} outputs {', '.join(names)}: "
        "return a dict, or a tuple in that order"
    )
