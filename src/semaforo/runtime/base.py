"""What a runtime is: the adapter between a model format and everything else.

A runtime is found by name through the entry-point group ``semaforo.runtimes``; the built-in ones come through
the same door. It runs inside a worker (or inline), knows nothing of scheduling, and speaks the model's own
names and dtypes: bridging to the task is the adapter's work (`semaforo.runtime.adapter`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, runtime_checkable

from semaforo.entities import Signature
from semaforo.wire.payload import Array, Chat, ChatChunk


@runtime_checkable
class Model(Protocol):
    """A loaded model that answers batches of tensors, synchronously."""

    @property
    def signature(self) -> Signature:
        """Names, dtypes and shapes, in the model's own terms."""
        ...

    def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Run one batch; arrays are ``(rows, …)`` on the way in and out.

        Raises:
            InvalidRequest: The input is at fault; the batch's members are then tried one by one.
        """
        ...

    def memory_bytes(self) -> int:
        """Return the bytes the model holds, as well as the runtime knows."""
        ...

    def close(self) -> None:
        """Free everything; the model is not used afterwards."""
        ...


@runtime_checkable
class AsyncModel(Protocol):
    """A loaded model whose batches are awaited (an async function, a remote server)."""

    @property
    def signature(self) -> Signature:
        """Names, dtypes and shapes, in the model's own terms."""
        ...

    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Like `Model.run`, awaited; cancelling the task stops the work."""
        ...

    def memory_bytes(self) -> int: ...  # noqa: D102 — as Model
    def close(self) -> None: ...  # noqa: D102 — as Model


@runtime_checkable
class ChatModel(Protocol):
    """A loaded model that answers chats as a stream of chunks."""

    def chat(self, request: Chat) -> AsyncIterator[ChatChunk]:
        """Stream the answer; closing the iterator stops the work.

        Raises:
            Refused: The upstream is over its limit (`retry_after_s` says how long).
            InvalidRequest: The request is at fault.
            ModelFailed: The upstream failed.
        """
        ...

    def memory_bytes(self) -> int: ...  # noqa: D102 — as Model
    def close(self) -> None: ...  # noqa: D102 — as Model


Loaded = Model | AsyncModel | ChatModel


class Runtime(Protocol):
    """Loads models of one format. `load` may take seconds; it is called in the worker or a thread."""

    name: str

    def load(self, source: str, options: Mapping[str, Any], device: str) -> Loaded:
        """Load a model.

        Args:
            source: Path, import string or url.
            options: The runtime's own options; an unknown one is an error.
            device: ``cpu``, ``cuda:0`` …

        Raises:
            RuntimeLoadError: What is wrong with the model or the options, and what to do.
        """
        ...
