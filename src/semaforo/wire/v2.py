"""Open Inference Protocol V2, inference: bytes → tensors of a task, and an answer → bytes.

Rules this module keeps:

1. Whether a body holds binary tensors is told by ``Inference-Header-Content-Length`` alone, never by a
   content type; blobs follow the JSON in the order of the tensors.
2. Tensors keep the task's names; a request is checked against the task's signature before it is scheduled.
3. What cannot be sent (FP16 or BF16 as JSON, an unknown output) is refused before anything runs.
4. `id` is echoed; of the outputs those that were asked for are sent, in the order they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from semaforo.entities import Ref, TaskType, TensorSpec
from semaforo.entities.tensor import shape_key
from semaforo.errors import InvalidRequest, nearest
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.v2_classes import classify
from semaforo.wire.v2_dtypes import (
    binary_only,
    check_datatype,
    datatype_of,
    from_blob,
    from_json,
    to_blob,
    to_json,
)

_NO_DATA = msgspec.Raw(b"")
_Dim = Annotated[int, msgspec.Meta(ge=0)]


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[_Dim]
    datatype: str
    data: msgspec.Raw = _NO_DATA
    parameters: dict[str, Any] | None = None


class _Wish(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Wish] | None = None


class _Output(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    datatype: str
    shape: Sequence[int]
    data: list[Any] | None = None
    parameters: dict[str, int] | None = None


class _Answer(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str = ""


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """How one output is wanted.

    Attributes:
        name: Its name.
        binary: As a blob behind the JSON.
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


_BODY = msgspec.json.Decoder(_Body)
_ENCODER = msgspec.json.Encoder()
_NO_PARAMETERS: dict[str, Any] = {}


class V2Codec:
    """Inference of one task type, with all that does not change from request to request worked out."""

    def __init__(self, task: TaskType) -> None:
        self.task = task
        self._inputs = {spec.name: (spec, list(spec.shape), len(spec.shape) + 1) for spec in task.inputs}
        self._outputs = {spec.name: spec for spec in task.outputs}
        self._required = frozenset(spec.name for spec in task.inputs if not spec.optional)
        self._binary_only = tuple(s.name for s in task.outputs if s.dtype in ("FP16", "BF16"))
        fixed = not any(spec.optional or -1 in spec.shape for spec in task.inputs)
        self._key = shape_key([(s.name, s.dtype, s.shape) for s in task.inputs]) if fixed else None

    @property
    def shape(self) -> str:
        """Shape key of the task's inputs where it is fixed, else ""."""
        return self._key or ""

    def decode(self, body: bytes, header_length: int | None = None) -> Call:
        """Decode and check one request.

        Args:
            body: The whole body.
            header_length: Value of ``Inference-Header-Content-Length``: bytes of JSON before the blobs. 0 is
                a raw request: the body is the blob of the only input. None: all of it is JSON.

        Raises:
            InvalidRequest: Not a V2 request, or not one that the task takes; the message says where.
        """
        if header_length == 0:
            return self._raw(body)
        blobs = None
        if header_length is not None:
            if not 0 < header_length <= len(body):
                raise InvalidRequest(
                    f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes"
                )
            blobs = memoryview(body)[header_length:]
            body = body[:header_length]
        try:
            asked = _BODY.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"not a V2 inference request: {error}") from None
        except RecursionError:
            raise InvalidRequest("not a V2 inference request: it is nested too deeply") from None
        arrays: dict[str, Array] = {}
        rows = -1
        size = at = 0
        for tensor in asked.inputs:
            name = tensor.name
            shape = tensor.shape
            self._check(tensor, arrays)
            if rows < 0:
                rows = shape[0]
            elif rows != shape[0]:
                first = next(iter(arrays))
                raise InvalidRequest(
                    f"inputs '{first}' and '{name}' have {rows} and {shape[0]} rows; all inputs have as many"
                )
            if tensor.parameters is None and tensor.data is not _NO_DATA:
                array = from_json(name, tensor.datatype, shape, tensor.data)
                size += array.nbytes
            else:
                length = _blob_length(tensor)
                if length is None:
                    array = from_json(name, tensor.datatype, shape, tensor.data)
                    size += array.nbytes
                else:
                    if blobs is None or at + length > len(blobs):
                        raise InvalidRequest(
                            f"input '{name}': binary_data_size is {length}, "
                            f"{len(blobs or b'') - at} bytes are left behind the JSON; "
                            "Inference-Header-Content-Length tells where it ends"
                        )
                    array = from_blob(name, tensor.datatype, shape, blobs[at : at + length])
                    at += length
                    size += length
            arrays[name] = array
        if blobs is not None and at != len(blobs):
            raise InvalidRequest(f"{len(blobs) - at} bytes behind the last input belong to no input")
        if len(arrays) < len(self._inputs) and not arrays.keys() >= self._required:
            missing = ", ".join(sorted(self._required - arrays.keys()))
            raise InvalidRequest(f"task '{self.task.name}' also takes the input {missing}")
        return self._call(asked, arrays, max(rows, 1), size)

    def encode(self, call: Call, result: Tensors, model: str, version: str) -> tuple[bytes, int | None]:
        """Encode an answer.

        Args:
            call: What was asked.
            result: Outputs by name.
            model: Name of the model that served it.
            version: Its version.

        Returns:
            The body, and the length of its JSON where blobs follow (else None).

        Raises:
            InvalidRequest: An output cannot be sent in the way it was asked for.
        """
        outputs: list[_Output] = []
        blobs: list[bytes] = []
        arrays = result.arrays
        if not call.outputs and not call.binary:
            for name, array in arrays.items():
                datatype = self._datatype(name, array)
                outputs.append(_Output(name, datatype, array.shape, to_json(name, datatype, array)))
            return _ENCODER.encode(_Answer(model, version, outputs, call.id)), None
        for wanted in call.outputs or [Wanted(name, call.binary) for name in arrays]:
            found = arrays.get(wanted.name)
            if found is None:
                raise InvalidRequest(
                    f"'{model}' gives no output '{wanted.name}'.{nearest(wanted.name, arrays)}"
                )
            if wanted.classes:
                spec = self._outputs.get(wanted.name)
                array = classify(wanted.name, found, wanted.classes, spec.labels if spec else ())
                datatype = "BYTES"
            else:
                array = found
                datatype = self._datatype(wanted.name, array)
            output = _Output(wanted.name, datatype, array.shape)
            if wanted.binary:
                blob = to_blob(datatype, array)
                blobs.append(blob)
                output.parameters = {"binary_data_size": len(blob)}
            else:
                output.data = to_json(wanted.name, datatype, array)
            outputs.append(output)
        head = _ENCODER.encode(_Answer(model, version, outputs, call.id))
        if blobs:
            return b"".join((head, *blobs)), len(head)
        return head, None

    def _check(self, tensor: _Input, seen: dict[str, Array]) -> None:
        known = self._inputs.get(tensor.name)
        if known is None:
            names = ", ".join(str(spec) for spec in self.task.inputs)
            raise InvalidRequest(
                f"task '{self.task.name}' takes no input '{tensor.name}'."
                f"{nearest(tensor.name, self._inputs)} It takes {names}"
            )
        spec, dims, rank = known
        if tensor.datatype != spec.dtype:
            check_datatype(tensor.name, tensor.datatype)
            raise InvalidRequest(
                f"input '{tensor.name}' is {tensor.datatype}; task '{self.task.name}' takes {spec.dtype}"
            )
        shape = tensor.shape
        if len(shape) != rank or (shape[1:] != dims and not spec.accepts(shape[1:])):
            raise InvalidRequest(f"input '{tensor.name}' has shape {shape}; it takes {_with_rows(spec)}")
        if shape[0] == 0:
            raise InvalidRequest(f"input '{tensor.name}' has no rows")
        if tensor.name in seen:
            raise InvalidRequest(f"input '{tensor.name}' is given twice")

    def _raw(self, body: bytes) -> Call:
        """Take the whole body as the only input's blob (Triton's raw binary request)."""
        required = [spec for spec in self.task.inputs if not spec.optional]
        if len(required) != 1 or -1 in required[0].shape:
            raise InvalidRequest(
                f"a raw request needs a task with one input of fixed shape; '{self.task.name}' takes "
                + ", ".join(str(spec) for spec in self.task.inputs)
            )
        spec = required[0]
        if spec.dtype == "BYTES":
            array = from_blob(
                spec.name, "BYTES", [1, *spec.shape], memoryview(len(body).to_bytes(4, "little") + body)
            )
        else:
            one_row = from_blob(spec.name, spec.dtype, [0, *spec.shape], memoryview(b""))
            row_bytes = one_row.itemsize
            for dim in spec.shape:
                row_bytes *= dim
            if not body or row_bytes == 0 or len(body) % row_bytes:
                raise InvalidRequest(
                    f"input '{spec.name}': one row is {row_bytes} bytes, the raw body has {len(body)}"
                )
            rows = len(body) // row_bytes
            array = from_blob(spec.name, spec.dtype, [rows, *spec.shape], memoryview(body))
        return self._call(_Body([]), {spec.name: array}, array.shape[0], len(body), binary=True)

    def _call(
        self, asked: _Body, arrays: dict[str, Array], rows: int, size: int, binary: bool = False
    ) -> Call:
        parameters = asked.parameters or _NO_PARAMETERS
        if parameters:
            binary = _flag(parameters, "binary_data_output", binary)
        outputs = tuple([self._wanted(w, binary) for w in asked.outputs]) if asked.outputs else ()
        if self._binary_only and not outputs and not binary:
            name = self._binary_only[0]
            raise binary_only(name, self._outputs[name].dtype)
        key = self._key
        if key is None:
            specs = self._inputs
            key = shape_key([(n, specs[n][0].dtype, a.shape[1:]) for n, a in arrays.items()])
        return Call(
            Tensors(arrays, _NO_PARAMETERS, tuple([w.name for w in outputs]) if outputs else ()),
            Ref(rows, size, key),
            asked.id or "",
            parameters,
            outputs,
            binary,
        )

    def _wanted(self, wish: _Wish, binary: bool) -> Wanted:
        spec = self._outputs.get(wish.name)
        if spec is None and self._outputs:
            raise InvalidRequest(
                f"task '{self.task.name}' gives no output '{wish.name}'.{nearest(wish.name, self._outputs)}"
            )
        parameters = wish.parameters or _NO_PARAMETERS
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

    def _datatype(self, name: str, array: Array) -> str:
        spec = self._outputs.get(name)
        return datatype_of(array, spec.dtype if spec is not None else "")


def _blob_length(tensor: _Input) -> int | None:
    """Return the bytes of a tensor's blob, or None where its data is in the JSON."""
    parameters = tensor.parameters or _NO_PARAMETERS
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"input '{tensor.name}': shared memory is not served; send the data itself")
    length = parameters.get("binary_data_size")
    if length is None:
        if tensor.data is _NO_DATA:
            raise InvalidRequest(f"input '{tensor.name}' has neither data nor the parameter binary_data_size")
        return None
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise InvalidRequest(f"input '{tensor.name}': binary_data_size is a number of bytes")
    if tensor.data is not _NO_DATA:
        raise InvalidRequest(f"input '{tensor.name}' has data and binary_data_size; give one of them")
    return length


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter {name} is true or false")
    return value


def _with_rows(spec: TensorSpec) -> str:
    dims = ", ".join(["rows", *("any" if d < 0 else str(d) for d in spec.shape)])
    return f"[{dims}]"
