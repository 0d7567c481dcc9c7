"""Between NumPy arrays and torch tensors, without copies on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from semaforo.errors import RuntimeLoadError
from semaforo.runtime.adapter_flow import OutputMismatch
from semaforo.wire.payload import Array

DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "UINT8", torch.uint16: "UINT16", torch.uint32: "UINT32",
    torch.uint64: "UINT64", torch.int8: "INT8", torch.int16: "INT16", torch.int32: "INT32",
    torch.int64: "INT64", torch.float16: "FP16", torch.float32: "FP32", torch.float64: "FP64",
    torch.bfloat16: "BF16",
}  # fmt: skip
"""torch dtype → V2 dtype."""


class _Writable:
    """An array's memory, as one that may be written.

    torch warns of arrays that may not: it cannot keep a model from writing. What calls this knows that it won't.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def tensor_of(array: Array, name: str, *, bits: bool, copy: bool) -> torch.Tensor:
    """Return an array as a tensor of the host.

    Args:
        array: Not of texts.
        name: Of the input, for errors.
        bits: The array holds the bits of BF16.
        copy: The model may write to it.

    Raises:
        RuntimeLoadError: The array holds texts, which no model of torch takes.
    """
    if array.dtype.hasobject:
        raise RuntimeLoadError(f"the task gives text in '{name}', and a torch model takes numbers")
    if copy or not array.flags.c_contiguous:
        array = array.copy()
    elif not array.flags.writeable:
        array = np.asarray(_Writable(array))
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if bits else tensor


def array_of(tensor: torch.Tensor, *, bits: bool) -> Array:
    """Return a tensor of the host as an array; BF16 as its bits, or as FP32 where those are not wanted."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.contiguous().view(torch.uint16) if bits else tensor.float()
    array: Array = tensor.resolve_conj().resolve_neg().numpy()
    return array


def named(result: Any, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Name what a module returned.

    Args:
        result: A tensor, or tensors in a tuple, a mapping or a dataclass.
        names: Outputs in order; empty = named after fields or places.

    Raises:
        OutputMismatch: It does not match the names, or holds something else.
    """
    if isinstance(result, torch.Tensor):
        result = (result,)
    if isinstance(result, Mapping):
        found = dict(result)
    elif is_dataclass(result) and not isinstance(result, type):
        found = {field.name: getattr(result, field.name) for field in fields(result)}
    elif isinstance(result, Sequence) and not isinstance(result, str):
        own = getattr(result, "_fields", ())
        titles = own if own and set(names) <= set(own) else names or output_names(len(result))
        if len(titles) != len(result):
            raise OutputMismatch(
                f"the model returned {len(result)} tensors for the {len(titles)} outputs {', '.join(titles)}: "
                "name all of them in order as options.outputs, or return a dict"
            )
        found = dict(zip(titles, result, strict=True))
    else:
        raise OutputMismatch(f"the model returned a {type(result).__name__}: return tensors")
    for name in names:
        if name not in found:
            raise OutputMismatch(
                f"the model returned {', '.join(map(str, found)) or 'nothing'}; '{name}' is missing"
            )
    chosen = {name: found[name] for name in names or found}
    for name, value in chosen.items():
        if not isinstance(value, torch.Tensor):
            raise OutputMismatch(f"the model returned a {type(value).__name__} in '{name}': return tensors")
        if value.dtype not in DTYPES:
            raise OutputMismatch(f"the model returned {value.dtype} in '{name}', which no V2 datatype holds")
    return chosen


def output_names(count: int) -> tuple[str, ...]:
    """Return names for outputs that have none."""
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    """Return the bytes that tensors hold; what they share is counted once."""
    held = {(t.device, t.untyped_storage().data_ptr()): t.untyped_storage().nbytes() for t in tensors}
    return sum(held.values())
