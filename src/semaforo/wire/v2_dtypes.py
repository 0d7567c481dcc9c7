"""Elements of V2 tensors: JSON lists, binary blobs and NumPy arrays.

Rules this module keeps (Open Inference Protocol V2 and its binary tensor extension):

1. JSON data is flat or nested as the shape says, and typed: no number is read from text or from a boolean,
   none is rounded to an integer, none overflows in silence. `null` stands for NaN, which JSON cannot write.
2. A blob is little-endian and row-major; a BYTES element is its length as a 32-bit integer, then its bytes.
3. FP16 and BF16 travel only as binary.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from semaforo.entities import DTYPES
from semaforo.errors import InvalidRequest, nearest
from semaforo.wire.not_json import NOT_JSON
from semaforo.wire.payload import Array

_MOST_FP32 = 3.4028235677973366e38


def _ints(low: int | None, high: int | None) -> Any:
    return Annotated[int, msgspec.Meta(ge=low, le=high)]


_ELEMENT: dict[str, Any] = {
    "BOOL": bool,
    "UINT8": _ints(0, 2**8 - 1), "UINT16": _ints(0, 2**16 - 1), "UINT32": _ints(0, 2**32 - 1),
    "INT8": _ints(-(2**7), 2**7 - 1), "INT16": _ints(-(2**15), 2**15 - 1),
    "INT32": _ints(-(2**31), 2**31 - 1),
    # msgspec bounds integers by 64 signed bits; NumPy refuses what is left of the two widest types.
    "UINT64": _ints(0, None), "INT64": int,
    "FP32": Annotated[float, msgspec.Meta(ge=-_MOST_FP32, le=_MOST_FP32)], "FP64": float,
    "BYTES": str,
}  # fmt: skip
_LIST: dict[str, Any] = {name: list[element] for name, element in _ELEMENT.items()}  # type: ignore[valid-type]
_LIST_OR_NULL: dict[str, Any] = {name: list[_ELEMENT[name] | None] for name in ("FP32", "FP64")}  # type: ignore[valid-type]
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _LIST.items()}
_NUMPY = {name: np.dtype(dtype).newbyteorder("<") for name, dtype in DTYPES.items()}
_V2 = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}
_BINARY_ONLY = frozenset({"FP16", "BF16"})
_LENGTH = struct.Struct("<I")


def from_json(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw) -> Array:
    """Return the array that a JSON tensor holds.

    Args:
        name: Name of the tensor, for messages.
        datatype: A key of `DTYPES`.
        shape: Shape the caller stated.
        data: Its ``data``: a flat list in row-major order, or a list nested as `shape` says.

    Raises:
        InvalidRequest: Data and shape disagree, or an element is not of the datatype.
    """
    decoder = _DECODERS.get(datatype)
    if decoder is None:
        raise InvalidRequest(
            f"input '{name}': {datatype} travels only as binary: send its bytes and 'binary_data_size'"
        )
    try:
        flat: list[Any] = decoder.decode(data)
    except NOT_JSON:
        flat = _nested(name, datatype, shape, data)
    if len(flat) != math.prod(shape):
        raise InvalidRequest(
            f"input '{name}': shape {list(shape)} needs {math.prod(shape)} elements, data has {len(flat)}"
        )
    try:
        array = np.array(flat, _NUMPY[datatype])
    except OverflowError:
        raise InvalidRequest(f"input '{name}': an element of data is out of range for {datatype}") from None
    return array if len(shape) == 1 else array.reshape(shape)


def _nested(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw) -> list[Any]:
    try:
        flat = msgspec.json.decode(data)
    except NOT_JSON as error:
        raise InvalidRequest(f"input '{name}': data is not valid JSON: {error}") from None
    if not isinstance(flat, list):
        raise InvalidRequest(f"input '{name}': data is a list, flat or nested as its shape says")
    if flat and isinstance(flat[0], list):
        for inner in shape[1:]:
            if not all(isinstance(x, list) and len(x) == inner for x in flat):
                raise InvalidRequest(f"input '{name}': data is not nested as its shape {list(shape)} says")
            flat = list(chain.from_iterable(flat))
    try:
        if datatype in ("FP32", "FP64"):
            known: list[float | None] = msgspec.convert(flat, _LIST_OR_NULL[datatype])
            return [math.nan if x is None else x for x in known]
        return list(msgspec.convert(flat, _LIST[datatype]))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"input '{name}': data is not all {datatype}: {error}") from None


def from_blob(name: str, datatype: str, shape: Sequence[int], blob: memoryview) -> Array:
    """Return the array that a blob holds; but for BOOL and BYTES it shares the blob's memory, read-only.

    Raises:
        InvalidRequest: The blob's size does not fit the shape, or a BYTES element is cut short.
    """
    if datatype == "BYTES":
        return _from_strings(name, shape, blob)
    dtype = _NUMPY[datatype]
    needed = math.prod(shape) * dtype.itemsize
    if len(blob) != needed:
        raise InvalidRequest(
            f"input '{name}': {datatype} with shape {list(shape)} needs {needed} bytes, "
            f"binary_data_size is {len(blob)}"
        )
    if datatype == "BOOL":
        # A byte other than 0 and 1 would be an invalid NumPy boolean.
        return np.not_equal(np.frombuffer(blob, np.uint8), 0).reshape(shape)
    return np.frombuffer(blob, dtype).reshape(shape)


def _from_strings(name: str, shape: Sequence[int], blob: memoryview) -> Array:
    count = math.prod(shape)
    if count * 4 > len(blob):
        raise InvalidRequest(
            f"input '{name}': BYTES with shape {list(shape)} needs at least {count * 4} bytes, "
            f"binary_data_size is {len(blob)}"
        )
    array = np.empty(count, object)
    at = 0
    for index in range(count):
        start = at + 4
        if start > len(blob):
            break
        (size,) = _LENGTH.unpack_from(blob, at)
        at = start + size
        if at > len(blob):
            break
        array[index] = bytes(blob[start:at])
    else:
        if at == len(blob):
            return array.reshape(shape)
    raise InvalidRequest(
        f"input '{name}': its {len(blob)} bytes do not hold {count} BYTES elements, "
        "each a 32-bit length and its bytes"
    )


def to_json(name: str, datatype: str, array: Array) -> list[Any]:
    """Return an output's elements as a flat list in row-major order.

    Raises:
        InvalidRequest: The datatype travels only as binary, or BYTES are not UTF-8.
    """
    if datatype in _BINARY_ONLY:
        raise binary_only(name, datatype)
    flat: list[Any] = array.ravel().tolist()
    if datatype != "BYTES":
        return flat
    try:
        return [x.decode() if isinstance(x, bytes) else str(x) for x in flat]
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"output '{name}' holds bytes that are not UTF-8: ask for it with 'binary_data': true"
        ) from None


def to_blob(datatype: str, array: Array) -> bytes:
    """Return an output's elements as a little-endian blob."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, _NUMPY[datatype]).tobytes()
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        data = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def datatype_of(array: Array, wanted: str = "") -> str:
    """Return the V2 datatype of an array; `wanted` tells BF16, whose bits travel as uint16, from UINT16."""
    if wanted == "BF16" and array.dtype == np.uint16:
        return wanted
    return _V2.get(array.dtype, "BYTES")


def check_datatype(name: str, datatype: str) -> None:
    """Refuse what is no V2 datatype.

    Raises:
        InvalidRequest: It is not a key of `DTYPES`; the message names the nearest.
    """
    if datatype not in DTYPES:
        raise InvalidRequest(
            f"input '{name}': '{datatype}' is no V2 datatype.{nearest(datatype.upper(), DTYPES)}"
        )


def binary_only(name: str, datatype: str) -> InvalidRequest:
    """Return the error for an output that was asked for as JSON and cannot be."""
    return InvalidRequest(
        f"output '{name}' is {datatype}, which travels only as binary: ask for it with 'binary_data': true"
    )
