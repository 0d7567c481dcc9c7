"""Elements of V2 tensors in the typed fields of ``InferTensorContents``, both ways.

Rules this module keeps:

1. Each datatype has one field, which is the only one that may hold anything. FP16 and BF16 have none.
2. No number is cut to fit: one that the datatype cannot hold is refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from semaforo.entities import DTYPES
from semaforo.errors import InvalidRequest
from semaforo.wire.payload import Array
from semaforo.wire.v2_dtypes import binary_only

FIELDS: dict[str, str] = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Datatype → the field that holds its elements."""

_NARROW = frozenset({"INT8", "INT16", "UINT8", "UINT16"})


def from_contents(name: str, datatype: str, shape: list[int], contents: Any) -> Array:
    """Return the array that an ``InferTensorContents`` holds.

    Raises:
        InvalidRequest: It is in another datatype's field, does not fit the shape, or a number is out of range.
    """
    field = FIELDS.get(datatype)
    if field is None:
        raise InvalidRequest(
            f"input '{name}': {datatype} travels only as binary: send its bytes in raw_input_contents"
        )
    for other, _ in contents.ListFields():
        if other.name != field:
            raise InvalidRequest(f"input '{name}': {datatype} goes in {field}, and {other.name} is given")
    elements = list(getattr(contents, field))
    if len(elements) != math.prod(shape):
        raise InvalidRequest(
            f"input '{name}': shape {shape} needs {math.prod(shape)} elements, data has {len(elements)}"
        )
    if datatype in _NARROW:
        limits = np.iinfo(DTYPES[datatype])
        if elements and not limits.min <= min(elements) <= max(elements) <= limits.max:
            raise InvalidRequest(
                f"input '{name}': data is not all {datatype}, which goes from {limits.min} to {limits.max}"
            )
    return np.array(elements, DTYPES[datatype]).reshape(shape)


def to_contents(name: str, datatype: str, array: Array, contents: Any) -> None:
    """Put an output's elements into an ``InferTensorContents``.

    Raises:
        InvalidRequest: The datatype travels only as binary.
    """
    field = FIELDS.get(datatype)
    if field is None:
        raise binary_only(name, datatype)
    flat: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        flat = [x if isinstance(x, bytes) else str(x).encode() for x in flat]
    getattr(contents, field).extend(flat)
