"""``config.pbtxt``: what a Triton repository says of a model, as far as it matters for serving it here.

The file is protobuf's text format. Only the fields below are known; all others are passed over, as they say how
Triton runs a model and not what the model is.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec

from semaforo.entities import TensorSpec
from semaforo.errors import ArtefactError

FILE = "config.pbtxt"
_DTYPES = {
    "TYPE_BOOL": "BOOL", "TYPE_UINT8": "UINT8", "TYPE_UINT16": "UINT16", "TYPE_UINT32": "UINT32",
    "TYPE_UINT64": "UINT64", "TYPE_INT8": "INT8", "TYPE_INT16": "INT16", "TYPE_INT32": "INT32",
    "TYPE_INT64": "INT64", "TYPE_FP16": "FP16", "TYPE_FP32": "FP32", "TYPE_FP64": "FP64",
    "TYPE_STRING": "BYTES", "TYPE_BF16": "BF16",
}  # fmt: skip
_TYPES = ("TYPE_INVALID", *_DTYPES)
_KINDS = ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL")
_MOST_LABELS = 10_000


class TritonConfig(msgspec.Struct, frozen=True):
    """What a ``config.pbtxt`` says.

    Attributes:
        name: Name of the model, or "".
        platform: Its platform or backend, or "".
        max_batch: ``max_batch_size``: most rows in one batch; 0 = rows are not batched.
        inputs, outputs: Its tensors, the batch dimension left out where there is one, with their labels.
        file: File name of the model inside a version's folder, or "".
        copies: Instances on a CPU that are asked for; 0 = nothing is said.
        gpu: Whether instances on a GPU are asked for.
    """

    name: str = ""
    platform: str = ""
    max_batch: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    file: str = ""
    copies: int = 0
    gpu: bool = False


def read_config(folder: Path) -> TritonConfig | None:
    """Read the ``config.pbtxt`` in a model's folder.

    Returns:
        None where there is none, or where protobuf is not installed (the extra ``grpc`` brings it).

    Raises:
        ArtefactError: It cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        from google.protobuf import text_format
    except ImportError:
        return None
    message = _message()()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), message, allow_unknown_field=True)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from None
    found: Any = message
    copies = dict.fromkeys(_KINDS, 0)
    for group in found.instance_group:
        copies[_KINDS[group.kind]] += group.count or 1
    return TritonConfig(
        name=found.name,
        platform=found.platform or found.backend,
        max_batch=found.max_batch_size,
        inputs=tuple(_spec(folder, tensor) for tensor in found.input),
        outputs=tuple(_spec(folder, tensor) for tensor in found.output),
        file=found.default_model_filename,
        copies=copies["KIND_CPU"],
        gpu=copies["KIND_GPU"] > 0,
    )


def _spec(folder: Path, tensor: Any) -> TensorSpec:
    labels = _labels(folder, tensor.label_filename)
    dims = tuple(int(d) for d in tensor.dims)
    return TensorSpec(tensor.name, _DTYPES.get(_TYPES[tensor.data_type], ""), dims, labels=labels)


def _labels(folder: Path, name: str) -> tuple[str, ...]:
    path = folder / name
    inside = name and path.is_file() and path.resolve().is_relative_to(folder.resolve())
    if not inside:
        return ()
    try:
        with path.open(encoding="utf-8") as stream:
            lines = [line.strip() for line, _ in zip(stream, range(_MOST_LABELS), strict=False)]
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(line for line in lines if line)


@functools.cache
def _message() -> Any:
    """Return the class of messages that hold these fields; in the text format names matter, numbers do not."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="semaforo/triton.proto", package="semaforo.triton", syntax="proto2"
    )
    types = descriptor_pb2.FieldDescriptorProto
    words = {"DataType": _TYPES, "Kind": _KINDS}
    for name, values in words.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)

    def add(owner: Any, fields: dict[str, Any], **many: bool) -> None:
        for number, (name, kind) in enumerate(fields.items(), 1):
            repeated = many.get(name, False)
            label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
            if isinstance(kind, str):
                wanted = types.TYPE_ENUM if kind in words else types.TYPE_MESSAGE
                owner.field.add(
                    name=name, number=number, label=label, type=wanted, type_name=f".semaforo.triton.{kind}"
                )
            else:
                owner.field.add(name=name, number=number, label=label, type=kind)

    text, whole = types.TYPE_STRING, types.TYPE_INT64
    tensor = file.message_type.add(name="Tensor")
    add(tensor, {"name": text, "data_type": "DataType", "dims": whole, "label_filename": text}, dims=True)
    group = file.message_type.add(name="Group")
    add(group, {"count": whole, "kind": "Kind"})
    model = file.message_type.add(name="Model")
    fields = {
        "name": text, "platform": text, "backend": text, "max_batch_size": whole, "input": "Tensor",
        "output": "Tensor", "default_model_filename": text, "instance_group": "Group",
    }  # fmt: skip
    add(model, fields, input=True, output=True, instance_group=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("semaforo.triton.Model"))
