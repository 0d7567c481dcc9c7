"""Open Inference Protocol V2, inference: bytes → tensors of a task, and an answer → bytes.

Rules this module keeps:

1. Whether a body holds binary tensors is told by ``Inference-Header-Content-Length`` alone, never by a
   content type; blobs follow the JSON in the order of the tensors.
2. Tensors keep the task's names, and are checked as `semaforo.wire.v2_task` says.
3. `id` is echoed; of the outputs those that were asked for are sent, in the order they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from semaforo.errors import InvalidRequest
from semaforo.wire.not_json import NOT_JSON, told
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.v2_dtypes import from_blob, from_json, to_blob, to_json
from semaforo.wire.v2_task import NO_PARAMETERS, Call, V2Task, Wanted, Wish

__all__ = ["Call", "V2Codec", "Wanted"]

_NO_DATA = msgspec.Raw(b"")
_Dim = Annotated[int, msgspec.Meta(ge=0)]


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[_Dim]
    datatype: str
    data: msgspec.Raw = _NO_DATA
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Wish] | None = None


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


_BODY = msgspec.json.Decoder(_Body)
_ENCODER = msgspec.json.Encoder()


class V2Codec(V2Task):
    """Inference of one task type over HTTP."""

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
        except NOT_JSON as error:
            raise InvalidRequest(f"not a V2 inference request: {told(error)}") from None
        arrays: dict[str, Array] = {}
        rows = -1
        size = at = 0
        for tensor in asked.inputs:
            name = tensor.name
            shape = tensor.shape
            rows = self.check(name, tensor.datatype, shape, arrays, rows)
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
        return self.call(arrays, rows, size, asked.id or "", asked.parameters, asked.outputs or ())

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
        if not call.outputs and not call.binary:
            for name, array in result.arrays.items():
                datatype = self.datatype(name, array)
                outputs.append(_Output(name, datatype, array.shape, to_json(name, datatype, array)))
            return _ENCODER.encode(_Answer(model, version, outputs, call.id)), None
        for wanted, datatype, array in self.chosen(call, result, model):
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
        return self.call({spec.name: array}, array.shape[0], len(body), binary=True)


def _blob_length(tensor: _Input) -> int | None:
    """Return the bytes of a tensor's blob, or None where its data is in the JSON."""
    parameters = tensor.parameters or NO_PARAMETERS
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
