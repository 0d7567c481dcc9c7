"""Inference of one task type as V2 speaks it, whatever carries it: what both codecs check and choose.

Rules this module keeps:

1. A request is checked against the task's signature, input by input, before any of its data is read.
2. All inputs have as many rows; none is missing, unknown or given twice.
3. What cannot be sent back (FP16 or BF16 as text, an unknown output) is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from semaforo.entities import Ref, TaskType, TensorSpec
from semaforo.entities.tensor import shape_key
from semaforo.errors import InvalidRequest, nearest
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.v2_classes import classify
from semaforo.wire.v2_dtypes import binary_only, check_datatype, datatype_of

NO_PARAMETERS: dict[str, Any] = {}


class Wish(msgspec.Struct, gc=False):
    """An output that the caller named, as it was sent.

    Attributes:
        name: Its name.
        parameters: ``binary_data``, ``classification`` and whatever else was said about it.
    """

    name: str
    parameters: dict[str, Any] | None = None


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """How one output is wanted.

    Attributes:
        name: Its name.
        binary: As a blob, outside the message that describes it.
        classes: Number of best classes, as ``value:index[:label]``; 0 = the tensor itself.
    """

    name: str
    binary: bool = False
    classes: int = 0


class Call(msgspec.Struct, gc=False):
    """A decoded inference request.

    Attributes:
        tensors: Payload for the engine.
        ref: Rows, bytes and shape key of the payload.
        id: The caller's own id, echoed.
        parameters: The caller's parameters, contract included.
        outputs: Outputs the caller named; empty = all.
        binary: Whether outputs that were not named are wanted as blobs.
    """

    tensors: Tensors
    ref: Ref
    id: str
    parameters: dict[str, Any]
    outputs: tuple[Wanted, ...]
    binary: bool


class V2Task:
    """One task type, with all that does not change from request to request worked out."""

    def __init__(self, task: TaskType) -> None:
        self.task = task
        self._inputs = {spec.name: (spec, list(spec.shape), len(spec.shape) + 1) for spec in task.inputs}
        self._outputs = {spec.name: spec for spec in task.outputs}
        self._required = frozenset(spec.name for spec in task.inputs if not spec.optional)
        self.binary_only = tuple(s.name for s in task.outputs if s.dtype in ("FP16", "BF16"))
        fixed = not any(spec.optional or -1 in spec.shape for spec in task.inputs)
        self._key = shape_key([(s.name, s.dtype, s.shape) for s in task.inputs]) if fixed else None

    @property
    def shape(self) -> str:
        """Shape key of the task's inputs where it is fixed, else ""."""
        return self._key or ""

    def check(self, name: str, datatype: str, shape: list[int], seen: dict[str, Array], rows: int) -> int:
        """Check what is said of one input.

        Args:
            name, datatype, shape: As sent.
            seen: Inputs before it.
            rows: Rows of those; -1 where it is the first.

        Returns:
            Its rows.

        Raises:
            InvalidRequest: The task does not take it.
        """
        known = self._inputs.get(name)
        if known is None:
            names = ", ".join(str(spec) for spec in self.task.inputs)
            raise InvalidRequest(
                f"task '{self.task.name}' takes no input '{name}'."
                f"{nearest(name, self._inputs)} It takes {names}"
            )
        spec, dims, rank = known
        if datatype != spec.dtype:
            check_datatype(name, datatype)
            raise InvalidRequest(f"input '{name}' is {datatype}; task '{self.task.name}' takes {spec.dtype}")
        if len(shape) != rank or (shape[1:] != dims and not spec.accepts(shape[1:])):
            raise InvalidRequest(f"input '{name}' has shape {shape}; it takes {_with_rows(spec)}")
        if shape[0] == 0:
            raise InvalidRequest(f"input '{name}' has no rows")
        if name in seen:
            raise InvalidRequest(f"input '{name}' is given twice")
        if rows not in (-1, shape[0]):
            first = next(iter(seen))
            raise InvalidRequest(
                f"inputs '{first}' and '{name}' have {rows} and {shape[0]} rows; all inputs have as many"
            )
        return shape[0]

    def call(
        self,
        arrays: dict[str, Array],
        rows: int,
        size: int,
        id: str = "",
        parameters: dict[str, Any] | None = None,
        wishes: Sequence[Wish] = (),
        binary: bool = False,
    ) -> Call:
        """Put a request together from inputs that were checked.

        Args:
            arrays: Inputs by name.
            rows: Rows of each.
            size: Bytes of all.
            id: The caller's own id.
            parameters: Parameters of the request.
            wishes: Outputs that are named.
            binary: Whether outputs go as blobs where nothing is said.

        Raises:
            InvalidRequest: An input is missing, or an output cannot be given.
        """
        if len(arrays) < len(self._inputs) and not arrays.keys() >= self._required:
            missing = ", ".join(sorted(self._required - arrays.keys()))
            raise InvalidRequest(f"task '{self.task.name}' also takes the input {missing}")
        parameters = parameters or NO_PARAMETERS
        if parameters:
            binary = _flag(parameters, "binary_data_output", binary)
        outputs = tuple([self._wanted(w, binary) for w in wishes]) if wishes else ()
        if self.binary_only and not outputs and not binary:
            name = self.binary_only[0]
            raise binary_only(name, self._outputs[name].dtype)
        key = self._key
        if key is None:
            specs = self._inputs
            key = shape_key([(n, specs[n][0].dtype, a.shape[1:]) for n, a in arrays.items()])
        return Call(
            Tensors(arrays, NO_PARAMETERS, tuple([w.name for w in outputs]) if outputs else ()),
            Ref(max(rows, 1), size, key),
            id,
            parameters,
            outputs,
            binary,
        )

    def chosen(self, call: Call, result: Tensors, model: str) -> list[tuple[Wanted, str, Array]]:
        """Return what to send back, in the order it was asked for: how, datatype, elements.

        Raises:
            InvalidRequest: The model, named for the message, does not give an output.
        """
        arrays = result.arrays
        found: list[tuple[Wanted, str, Array]] = []
        for wanted in call.outputs or [Wanted(name, call.binary) for name in arrays]:
            name = wanted.name
            array = arrays.get(name)
            if array is None:
                raise InvalidRequest(f"'{model}' gives no output '{name}'.{nearest(name, arrays)}")
            if wanted.classes:
                spec = self._outputs.get(name)
                labels = spec.labels if spec else ()
                found.append((wanted, "BYTES", classify(name, array, wanted.classes, labels)))
            else:
                found.append((wanted, self.datatype(name, array), array))
        return found

    def datatype(self, name: str, array: Array) -> str:
        """Return the V2 datatype of an output."""
        spec = self._outputs.get(name)
        return datatype_of(array, spec.dtype if spec is not None else "")

    def _wanted(self, wish: Wish, binary: bool) -> Wanted:
        spec = self._outputs.get(wish.name)
        if spec is None and self._outputs:
            raise InvalidRequest(
                f"task '{self.task.name}' gives no output '{wish.name}'.{nearest(wish.name, self._outputs)}"
            )
        parameters = wish.parameters or NO_PARAMETERS
        binary = _flag(parameters, "binary_data", binary)
        classes = parameters.get("classification", 0)
        if "shared_memory_region" in parameters:
            raise InvalidRequest(
                f"output '{wish.name}': shared memory is not served; leave its parameters out"
            )
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
            raise InvalidRequest(f"output '{wish.name}': classification is a number of classes, 1 or more")
        if spec is not None and spec.dtype in ("FP16", "BF16") and not binary and not classes:
            raise binary_only(wish.name, spec.dtype)
        if spec is not None and classes and spec.dtype in ("BYTES", "BOOL", "BF16"):
            raise InvalidRequest(f"output '{wish.name}' is {spec.dtype}, of which no classes can be made")
        return Wanted(wish.name, binary, classes)


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter {name} is true or false")
    return value


def _with_rows(spec: TensorSpec) -> str:
    dims = ", ".join(["rows", *("any" if d < 0 else str(d) for d in spec.shape)])
    return f"[{dims}]"
