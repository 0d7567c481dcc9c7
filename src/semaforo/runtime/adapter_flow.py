"""One tensor on its way through a bridge: each step is checked when it is planned, and knows what it gives.

A flow whose dtype is "" is *open*: what a Python function returns, or takes, is only known when it runs; then
the steps check what comes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from semaforo.entities import DTYPES, TensorSpec
from semaforo.errors import InvalidRequest, ModelFailed
from semaforo.runtime.adapter_casts import Step, cast, is_float, lossless
from semaforo.runtime.adapter_labels import LabelMap, label_map
from semaforo.runtime.adapter_rules import Rule
from semaforo.wire.payload import Array

OPEN = ""


class Mismatch(Exception):
    """A step cannot follow what comes before it; the message says why, without saying where."""


class OutputMismatch(ModelFailed):
    """What a model returned is not what it declared: the model is at fault on every input."""


class Flow:
    """What is known of a tensor so far, and the steps that make it."""

    def __init__(self, spec: TensorSpec, target: TensorSpec, *, incoming: bool) -> None:
        self.dtype = spec.dtype
        self.shape = spec.shape
        self.steps: list[Step] = []
        self._source = spec
        self._target = target
        self._incoming = incoming
        self._labels: LabelMap | None = None
        self._indexed = False

    @property
    def _open(self) -> bool:
        return self.dtype == OPEN

    def apply(self, rule: Rule) -> None:
        """Plan all that a rule states, in the order that `Rule` documents.

        Raises:
            Mismatch: A step cannot follow.
        """
        if rule.field:
            self._field(rule.field)
        if rule.reshape is not None and self._incoming:
            self._reshape(rule.reshape)
        if rule.layout:
            self._layout(rule.layout)
        if rule.reshape is not None and not self._incoming:
            self._reshape(rule.reshape)
        if rule.scale is not None or rule.offset is not None:
            self._scale(1.0 if rule.scale is None else rule.scale, rule.offset or 0.0)
        if rule.softmax:
            self._softmax()
        if rule.labels is not None:
            self._relabel(rule.labels, scores=rule.argmax or rule.softmax or rule.column is not None)
        if rule.argmax:
            self._argmax()
        if rule.column is not None:
            self._column(rule.column)

    def finish(self, declared: str) -> None:
        """Plan the cast and the check of the shape.

        Raises:
            Mismatch: The dtype or the shape is not the target's.
        """
        target = self._target
        if target.dtype == OPEN:
            return
        if declared and declared != target.dtype:
            raise Mismatch(f"dtype mismatch: the adapter declares {declared}, {self._wants()}")
        if self._open:
            self.steps.append(checked(target, self._incoming))
            return
        if self.dtype != target.dtype:
            self._cast(declared)
        self._shapes()

    def _wants(self) -> str:
        return f"the {'model takes' if self._incoming else 'task declares'} {self._target}"

    def _gives(self) -> str:
        return f"the {'task gives' if self._incoming else 'model gives'} {self._source}"

    def _cast(self, declared: str) -> None:
        target = self._target.dtype
        if "BYTES" in (self.dtype, target):
            raise Mismatch(
                f"impossible cast: {self._gives()}, {self._wants()}; text and numbers are bridged by 'labels', "
                "by a JSON 'field', or by 'json'"
            )
        index = self._indexed and not is_float(target) and target != "BOOL"
        if not (declared or index or lossless(self.dtype, target)):
            if (
                is_float(self.dtype)
                and not is_float(target)
                and self.shape[:-1] == self._target.shape != self.shape
            ):
                raise Mismatch(
                    f"dtype mismatch: {self._gives()}, {self._wants()}; where those are scores, declare "
                    "argmax: true"
                )
            raise Mismatch(
                f"dtype mismatch: {self._gives()}, {self._wants()}; where the cast is meant, declare "
                f"dtype: {target.lower()} (with scale and offset if the ranges differ)"
            )
        self.steps.append(cast(self.dtype, target))
        self.dtype = target

    def _shapes(self) -> None:
        have, want = self.shape, self._target.shape
        loose = len(have) == len(want) and all(
            w in (-1, h) or h == -1 for h, w in zip(have, want, strict=True)
        )
        strict = loose and all(w in (-1, h) for h, w in zip(have, want, strict=True))
        if strict:
            return
        if loose and not self._incoming:
            self.steps.append(checked(self._target, False))
            return
        raise Mismatch(
            f"shape mismatch: {self._gives()}{self._so_far()}, {self._wants()}{self._hint(have, want)}"
        )

    def _so_far(self) -> str:
        return f", which the adapter makes {list(self.shape)}" if self.shape != self._source.shape else ""

    def _hint(self, have: tuple[int, ...], want: tuple[int, ...]) -> str:
        if len(want) == len(have) + 1 and want[1:] == have:
            return (
                (
                    f"; wrong batch dimension: the model's first dimension is fixed to {want[0]}, "
                    "export it with a dynamic one"
                )
                if self._incoming
                else "; wrong batch dimension: the model is not batched as the task is"
            )
        if len(have) == len(want) == 3 and sorted(have) == sorted(want):
            order = ("NHWC->NCHW", "NCHW->NHWC")[have[0] == min(have)]
            return f"; layout mismatch: declare layout: {order}"
        if -1 not in have and -1 not in want and math.prod(have) == math.prod(want):
            return f"; declare reshape: {list(want)}"
        return ""

    def _field(self, path: str) -> None:
        if not self._open and (self.dtype != "BYTES" or self.shape not in ((), (1,))):
            raise Mismatch(
                f"bad JSON field: '{path}' is read from a BYTES tensor of one text a row, and {self._gives()}"
            )
        keys = path.split(".")
        incoming = self._incoming

        def extract(array: Array) -> Array:
            values = [_dig(cell, keys, path, incoming) for cell in array.reshape(-1).tolist()]
            try:
                out = np.asarray(values)
            except ValueError as error:
                raise _fault(incoming)(
                    f"bad JSON field '{path}': its rows differ in shape: {error}"
                ) from None
            return out.astype(object) if out.dtype.kind == "U" else out

        self.steps.append(extract)
        self.dtype, self.shape = OPEN, ()

    def _reshape(self, wanted: list[int]) -> None:
        shape = tuple(wanted)
        if not self._open and -1 not in self.shape:
            size, known = math.prod(self.shape), math.prod(d for d in shape if d > 0)
            if (size != known) if -1 not in shape else (known == 0 or size % known):
                raise Mismatch(
                    f"shape mismatch: {list(self.shape)} cannot be reshaped to {wanted}; {self._gives()}"
                )
            shape = tuple(size // known if d == -1 else d for d in shape)
        fault = _fault(self._incoming)

        def reshape(array: Array) -> Array:
            # -1 is resolved here, since reshape cannot do it for no rows.
            rows = len(array)
            try:
                return array.reshape((rows, *shape)) if rows or -1 not in shape else array[:0]
            except ValueError as error:
                raise fault(
                    f"a row of shape {array.shape[1:]} cannot be reshaped to {wanted}: {error}"
                ) from None

        self.steps.append(reshape)
        self.shape = shape

    def _layout(self, layout: str) -> None:
        before, _, after = layout.partition("->")
        dropped = [i for i, letter in enumerate(before) if letter not in after]
        added = [i for i, letter in enumerate(after) if letter not in before]
        kept = [letter for letter in before if letter in after]
        order = [kept.index(letter) for letter in after if letter in kept]
        if not self._open:
            if len(self.shape) + 1 != len(before):
                raise Mismatch(
                    f"layout mismatch: '{before}' has {len(before) - 1} dimensions after the rows, {self._gives()} "
                    f"has {len(self.shape)}"
                )
            dims = (-1, *self.shape)
            for index in dropped:
                if dims[index] != 1:
                    raise Mismatch(
                        f"layout mismatch: '{before[index]}' is {dims[index]} and can be dropped only if it is 1"
                    )
            rest = [dims[i] for i, letter in enumerate(before) if letter in after]
            moved = [rest[i] for i in order]
            for index in added:
                moved.insert(index, 1)
            self.shape = tuple(moved[1:])
        fault = _fault(self._incoming)

        def move(array: Array) -> Array:
            try:
                array = array.squeeze(tuple(dropped)) if dropped else array
                array = array.transpose(order)
            except ValueError as error:
                raise fault(f"a tensor of shape {array.shape} has not the layout {before}: {error}") from None
            return np.ascontiguousarray(np.expand_dims(array, tuple(added)) if added else array)

        self.steps.append(move)

    def _numeric(self, what: str) -> None:
        if self.dtype == "BYTES":
            raise Mismatch(f"impossible cast: {what} is for numbers, and {self._gives()}")
        if self.dtype == "BF16":
            self.steps.append(cast("BF16", "FP32"))
            self.dtype = "FP32"

    def _scale(self, scale: float, offset: float) -> None:
        self._numeric("'scale'")
        wide = self.dtype in ("FP64", "INT64", "UINT64", "INT32", "UINT32")
        # A Python float keeps the array's own precision.
        kind = np.dtype(np.float64 if wide else np.float32)
        self.steps.append(lambda array: array.astype(kind) * float(scale) + float(offset))
        if not self._open:
            self.dtype = "FP64" if wide else "FP32"
            if wide and self._target.dtype == "FP32":
                self.steps.append(cast("FP64", "FP32"))
                self.dtype = "FP32"

    def _softmax(self) -> None:
        self._numeric("'softmax'")
        self._last("'softmax'")

        def softmax(array: Array) -> Array:
            array = (
                array if array.dtype.kind == "f" and array.dtype != np.float16 else array.astype(np.float32)
            )
            power = np.exp(array - array.max(axis=-1, keepdims=True))
            shares: Array = power / power.sum(axis=-1, keepdims=True)
            return shares

        self.steps.append(softmax)
        if not self._open:
            self.dtype = "FP64" if self.dtype == "FP64" else "FP32"

    def _last(self, what: str) -> None:
        if not self._open and not self.shape:
            raise Mismatch(f"shape mismatch: {what} needs a dimension of classes, and {self._gives()}")

    def _relabel(self, declared: list[str] | dict[str, str], *, scores: bool) -> None:
        task = self._source if self._incoming else self._target
        try:
            labels = label_map(declared, task.labels, incoming=self._incoming)
        except ValueError as error:
            raise Mismatch(str(error)) from None
        self._labels = labels
        names = self._target.dtype == "BYTES"
        if self._open:
            self.steps.append(_relabel_open(labels, names, scores))
            return
        if self.dtype == "BYTES":
            self.steps.append(labels.names(names=names))
        elif scores or is_float(self.dtype):
            self._last("'labels'")
            if self.shape[-1] not in (-1, len(labels.source)):
                raise Mismatch(
                    f"label count mismatch: {self._gives()}, so {self.shape[-1]} classes, "
                    f"and there are {len(labels.source)} labels"
                )
            self.steps.append(labels.scores())
            return
        else:
            self.steps.append(labels.indices(names=names))
        self.dtype = "BYTES" if names else "INT64"
        self._indexed = not names

    def _argmax(self) -> None:
        self._numeric("'argmax'")
        self._last("'argmax'")
        self.steps.append(lambda array: np.asarray(array.argmax(axis=-1)))
        names = self._labels.target if self._labels else self._target.labels
        if self._target.dtype == "BYTES" and names:
            table = np.array(names, dtype=object)
            self.steps.append(lambda array: table[array])
            self.dtype = OPEN if self._open else "BYTES"
        elif not self._open:
            self.dtype = "INT64"
        self._indexed = True
        self.shape = self.shape[:-1]

    def _column(self, column: int | str) -> None:
        self._last("'column'")
        if isinstance(column, str):
            names = self._labels.target if self._labels else self._target.labels
            if column not in names:
                raise Mismatch(
                    f"column '{column}' is no label: declare 'labels', or give the index of the column"
                )
            column = names.index(column)
        if not self._open and self.shape[-1] >= 0 and not -self.shape[-1] <= column < self.shape[-1]:
            raise Mismatch(f"shape mismatch: column {column} of {self.shape[-1]}; {self._gives()}")
        index = column
        fault = _fault(self._incoming)

        def select(array: Array) -> Array:
            if not -array.shape[-1] <= index < array.shape[-1]:
                raise fault(f"column {index} was asked for, and there are {array.shape[-1]}")
            return np.ascontiguousarray(array[..., index])

        self.steps.append(select)
        self.shape = self.shape[:-1]


def _fault(incoming: bool) -> type[InvalidRequest] | type[OutputMismatch]:
    return InvalidRequest if incoming else OutputMismatch


def _relabel_open(labels: LabelMap, names: bool, scores: bool) -> Step:
    by_name, by_index, by_score = labels.names(names=names), labels.indices(names=names), labels.scores()

    def relabel(array: Array) -> Array:
        if array.dtype.hasobject:
            return by_name(array)
        if scores or array.dtype.kind == "f":
            if array.shape[-1] != len(labels.source):
                raise OutputMismatch(
                    f"the model scored {array.shape[-1]} classes, there are {len(labels.source)} labels"
                )
            return by_score(array)
        return by_index(array)

    return relabel


def _dig(cell: bytes | str, keys: list[str], path: str, incoming: bool) -> object:
    try:
        value: object = msgspec.json.decode(cell)
    except msgspec.DecodeError as error:
        raise _fault(incoming)(f"bad JSON field '{path}': {cell!r:.60} is not JSON: {error}") from None
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise _fault(incoming)(f"bad JSON field '{path}': there is no '{key}' in {cell!r:.60}")
        value = value[key]
    return value


def checked(target: TensorSpec, incoming: bool) -> Step:
    """Return what converts an array of unknown dtype and shape to the target's, or says why it cannot."""
    wanted = np.dtype(DTYPES[target.dtype])
    fault = _fault(incoming)

    def check(array: Array) -> Array:
        if not target.accepts(array.shape[1:]):
            raise fault(
                f"'{target.name}' has rows of shape {list(array.shape[1:])} where {target} is declared"
            )
        if array.dtype == wanted:
            return array
        if array.dtype.hasobject or wanted.hasobject or not _fits(array, wanted):
            shown = "text" if array.dtype.hasobject else str(array.dtype)
            raise fault(f"'{target.name}' holds {shown} where {target} is declared")
        return array.astype(wanted)

    return check


def _fits(array: Array, wanted: np.dtype[Any]) -> bool:
    if wanted.kind in "iu" and array.dtype.kind in "iu":
        info = np.iinfo(wanted)
        return not array.size or (int(array.min()) >= info.min and int(array.max()) <= info.max)
    return np.can_cast(array.dtype, wanted, "same_kind")
