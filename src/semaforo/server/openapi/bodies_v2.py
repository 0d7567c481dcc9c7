"""Bodies of the Open Inference Protocol V2, as the description shows them.

Nothing is decoded by these types: they say what is taken and given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
Parameters = dict[str, str | int | float | bool]


class Error(msgspec.Struct):
    """V2's error: what every route but OpenAI's answers with."""

    error: str


class InputTensor(msgspec.Struct):
    """One input."""

    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(description="Rows first.")]
    datatype: Datatype
    data: Annotated[
        list[Any] | UnsetType, Meta(description="Nested or flat; left out where the tensor is binary.")
    ] = UNSET
    parameters: Parameters | UnsetType = UNSET


class WantedOutput(msgspec.Struct):
    """One output that is wanted; `classification` in its parameters asks for that many best classes."""

    name: str
    parameters: Parameters | UnsetType = UNSET


class InferRequest(msgspec.Struct):
    """Tensors in the task's names; `parameters` may hold the contract (`semaforo_deadline_ms` …)."""

    inputs: list[InputTensor]
    id: str | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET
    outputs: list[WantedOutput] | UnsetType = UNSET


class OutputTensor(msgspec.Struct):
    """One output."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any] | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class InferResponse(msgspec.Struct):
    """Tensors, and the model that gave them."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET


class Live(msgspec.Struct):
    """The server answers."""

    live: bool


class ServerMetadata(msgspec.Struct):
    """Who serves."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """A tensor; -1 stands for any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """What a task, model or alias takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class RepositoryEntry(msgspec.Struct):
    """One version of one model."""

    name: str
    version: str
    state: State
    reason: str


class Statistics(msgspec.Struct):
    """Counts and nanoseconds by model."""

    model_stats: list[dict[str, Any]]


class GenerateRequest(msgspec.Struct):
    """A chat task takes `text_input` and OpenAI's fields; a tensor task takes its inputs by name, one row."""

    text_input: str | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class GenerateResponse(msgspec.Struct):
    """A chat task gives `text_output`; a tensor task its outputs by name."""

    model_name: str
    model_version: str
    text_output: str | UnsetType = UNSET
