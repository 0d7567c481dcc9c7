"""What members of a classification or a regression share: the field that is fused, and the labels that follow it.

Members give, for example, ``{label: int64, probabilities: fp32[10]}``. One field is fused; every whole number that
all members have becomes the index of its largest value; all else is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest, nearest
from semaforo.graph.fusion.method import Member, Options

Array = NDArray[Any]
Specs = Mapping[str, tuple[TensorSpec, ...]]
_FLOATS = ("FP16", "FP32", "FP64")
_WHOLE = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")


class Layout(msgspec.Struct, frozen=True):
    """What is fused, and what follows from it.

    Attributes:
        field: The tensor that is fused.
        labels: Tensors that are the index of its largest value; empty where it is no vector.
    """

    field: TensorSpec
    labels: tuple[TensorSpec, ...] = ()

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All that the fused answer holds."""
        return (*self.labels, self.field)


def check_options(options: Options, known: Sequence[str]) -> None:
    """Check that every option is one of the method's.

    Raises:
        InvalidRequest: One is not.
    """
    allowed = (*known, "weights", "fitted")
    for name in options:
        if name not in allowed:
            told = f" There are {', '.join(known)}" if known else ""
            raise InvalidRequest(f"the method has no option '{name}'.{nearest(name, allowed)}{told}")


def layout(members: Specs, options: Options, *, vector: bool = True) -> Layout:
    """Return what is fused of members.

    Args:
        members: What they give.
        options: ``field`` names the tensor; where it is left out, there must be one choice.
        vector: Whether the field has one number for each class.

    Raises:
        InvalidRequest: They have nothing of that kind in common, or it differs between them.
    """
    shared = _shared(members)
    chosen = options.get("field")
    if chosen is not None:
        if chosen not in shared:
            hint = nearest(str(chosen), shared)
            raise InvalidRequest(f"not all of {', '.join(members)} give '{chosen}'.{hint}")
        field = shared[str(chosen)]
    else:
        fits = [s for s in shared.values() if s.dtype in _FLOATS and (len(s.shape) == 1 or not vector)]
        if len(fits) != 1:
            have = f"they share {', '.join(map(str, shared.values()))}" if shared else "they share no output"
            raise InvalidRequest(f"name what is fused by options: {{field: …}}; {have}")
        (field,) = fits
    for name, specs in members.items():
        own = next(s for s in specs if s.name == field.name)
        if own.shape != field.shape and -1 not in (*own.shape, *field.shape):
            raise InvalidRequest(f"'{name}' gives {own}, and the others {field}")
    if vector and len(field.shape) != 1:
        raise InvalidRequest(f"{field} has not one number for each class")
    labels = tuple(s for s in shared.values() if s is not field and not s.shape and _counts(s))
    return Layout(field, labels if len(field.shape) == 1 else ())


def _shared(members: Specs) -> dict[str, TensorSpec]:
    first, *others = members.values()
    known = [{spec.name: spec for spec in specs} for specs in others]
    return {
        spec.name: spec
        for spec in first
        if all(
            spec.name in specs
            and len(specs[spec.name].shape) == len(spec.shape)
            and (specs[spec.name].dtype == spec.dtype or {specs[spec.name].dtype, spec.dtype} <= {*_FLOATS})
            for specs in known
        )
    }


def _counts(spec: TensorSpec) -> bool:
    return spec.dtype in _WHOLE


def layout_of(
    members: Sequence[Member], options: Options
) -> tuple[str, tuple[tuple[str, np.dtype[Any]], ...]]:
    """Return, of the arrays at hand, the name of the field, and name and dtype of each label."""
    arrays = {
        name: array for name, array in members[0].arrays.items() if all(name in m.arrays for m in members)
    }
    chosen = options.get("field")
    if chosen is None:
        chosen = next((n for n, a in arrays.items() if a.dtype.kind == "f" and a.ndim == 2), None)
    if chosen is None:
        chosen = next(n for n, a in arrays.items() if a.dtype.kind == "f")
    field = str(chosen)
    if arrays[field].ndim != 2:
        return field, ()
    labels = tuple(
        (name, array.dtype) for name, array in arrays.items() if array.ndim == 1 and array.dtype.kind in "iu"
    )
    return field, labels


def with_labels(field: str, labels: Sequence[tuple[str, Any]], fused: Array, like: Array) -> dict[str, Array]:
    """Return a fused field, in the dtype of what was fused, with the labels that follow from it."""
    outputs: dict[str, Array] = {}
    if labels:
        best = fused.argmax(axis=-1)
        for name, dtype in labels:
            outputs[name] = best.astype(dtype, copy=False)
    outputs[field] = fused.astype(like.dtype, copy=False)
    return outputs


def same(votes: Array) -> Array:
    """Return the size of the largest group of equal values in each column of ``(members, rows)``."""
    return np.asarray((votes[:, None, :] == votes[None, :, :]).sum(axis=1).max(axis=0))
