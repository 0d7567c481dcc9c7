"""Open Inference Protocol V2, inference over gRPC: messages → tensors of a task, and an answer → a message.

Rules this module keeps:

1. ``raw_input_contents`` holds a blob for each input, or there is none and each input has typed contents.
2. Who sends blobs gets blobs. Who sends typed contents gets typed contents, unless an output of the task has
   none (FP16, BF16); the parameter ``binary_data_output`` says otherwise. An answer is all one or all the other.
3. `id` is echoed; of the outputs those that were asked for are sent, in the order they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from semaforo.errors import InvalidRequest
from semaforo.wire.inference_messages import ModelInferResponse
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.v2_contents import from_contents, to_contents
from semaforo.wire.v2_dtypes import from_blob, to_blob
from semaforo.wire.v2_task import NO_PARAMETERS, Call, V2Task, Wish


def parsed(message: Any, body: bytes) -> Any:
    """Parse a message of this class.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        return message.FromString(body)
    except (DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"the message is no {message.DESCRIPTOR.full_name}") from None


class GrpcCodec(V2Task):
    """Inference of one task type over gRPC."""

    def decode(self, request: Any) -> Call:
        """Check a ``ModelInferRequest`` and take its tensors; but for BOOL and BYTES, blobs are not copied.

        Raises:
            InvalidRequest: Not one that the task takes; the message says where.
        """
        arrays: dict[str, Array] = {}
        blobs = list(request.raw_input_contents)
        inputs = request.inputs
        if blobs and len(blobs) != len(inputs):
            raise InvalidRequest(
                f"raw_input_contents has {len(blobs)} entries for {len(inputs)} inputs; it has one for each"
            )
        rows = -1
        size = 0
        for at, tensor in enumerate(inputs):
            name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
            if "shared_memory_region" in tensor.parameters:
                raise InvalidRequest(f"input '{name}': shared memory is not served; send the data itself")
            if min(shape, default=0) < 0:
                raise InvalidRequest(f"input '{name}' has shape {shape}; dimensions are 0 or more")
            rows = self.check(name, datatype, shape, arrays, rows)
            if blobs:
                if tensor.HasField("contents"):
                    raise InvalidRequest(
                        f"input '{name}' has contents, and there is raw_input_contents; give one of them"
                    )
                array = from_blob(name, datatype, shape, memoryview(blobs[at]))
                size += len(blobs[at])
            else:
                array = from_contents(name, datatype, shape, tensor.contents)
                size += array.nbytes
            arrays[name] = array
        wishes = [Wish(w.name, read_parameters(w.parameters)) for w in request.outputs]
        parameters = read_parameters(request.parameters)
        binary = bool(blobs) or not arrays or bool(self.binary_only)
        return self.call(arrays, rows, size, request.id, parameters, wishes, binary)

    def encode(self, call: Call, result: Tensors, model: str, version: str) -> Any:
        """Return the ``ModelInferResponse`` of an answer.

        Raises:
            InvalidRequest: An output cannot be sent in the way it was asked for.
        """
        response = ModelInferResponse(model_name=model, model_version=version, id=call.id)
        outputs = response.outputs
        binary = any(w.binary for w in call.outputs) if call.outputs else call.binary
        if binary:
            blobs = response.raw_output_contents
            for wanted, datatype, array in self.chosen(call, result, model):
                outputs.add(name=wanted.name, datatype=datatype, shape=array.shape)
                blobs.append(to_blob(datatype, array))
        else:
            for wanted, datatype, array in self.chosen(call, result, model):
                output = outputs.add(name=wanted.name, datatype=datatype, shape=array.shape)
                to_contents(wanted.name, datatype, array, output.contents)
        return response


def read_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map of ``InferParameter`` as plain values.

    Raises:
        InvalidRequest: One holds no value.
    """
    if not parameters:
        return NO_PARAMETERS
    plain: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"parameter {name} has no value")
        plain[name] = getattr(parameter, choice)
    return plain
