"""The messages of package ``inference``, in a descriptor pool of their own.

A process may hold another definition of the same package, such as that of a client's stubs: the default pool
refuses a second one, this pool knows of no other.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory

from semaforo.wire.inference_descriptor import DESCRIPTOR

SERVICE = "inference.GRPCInferenceService"

_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(DESCRIPTOR)


def message(name: str) -> Any:
    """Return the class of a message by its name inside the package."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


ModelInferRequest = message("ModelInferRequest")
ModelInferResponse = message("ModelInferResponse")
ModelStreamInferResponse = message("ModelStreamInferResponse")
InferTensorContents = message("InferTensorContents")
