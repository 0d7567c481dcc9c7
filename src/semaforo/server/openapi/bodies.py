"""Bodies as the description shows them. Nothing is decoded by these types: they say what is taken and given.

Field names and forms are those of the Open Inference Protocol V2, of OpenAI's API and of the admin API.
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


def about(text: str) -> Meta:
    """Return the description of a field."""
    return Meta(description=text)


class Error(msgspec.Struct):
    """V2's error: what every route but OpenAI's answers with."""

    error: str


class OpenAIErrorDetail(msgspec.Struct):
    """What is wrong, and where."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """OpenAI's error."""

    error: OpenAIErrorDetail


# --- V2 ------------------------------------------------------------------------------------------------------


class InputTensor(msgspec.Struct):
    """One input."""

    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0)]], about("Rows first.")]
    datatype: Datatype
    data: Annotated[list[Any] | UnsetType, about("Nested or flat; left out where the tensor is binary.")] = (
        UNSET
    )
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


# --- OpenAI --------------------------------------------------------------------------------------------------


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | list[dict[str, Any]] | UnsetType | None = UNSET


class ChatRequest(msgspec.Struct):
    """OpenAI's chat request; further fields go to the model unchanged."""

    model: Annotated[str, about("A chat task, a model, an alias, or `auto`.")]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET
    stop: str | list[str] | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET


class Usage(msgspec.Struct):
    """Tokens, as well as they are known."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: Message
    finish_reason: str | None


class ChatCompletion(msgspec.Struct):
    """OpenAI's chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionRequest(msgspec.Struct):
    """OpenAI's completion request; further fields go to the model unchanged."""

    model: str
    prompt: str | list[str]
    stream: bool | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET


class CompletionChoice(msgspec.Struct):
    """One answer."""

    index: int
    text: str
    finish_reason: str | None


class Completion(msgspec.Struct):
    """OpenAI's completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class EmbeddingRequest(msgspec.Struct):
    """Texts to embed."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | UnsetType = UNSET
    dimensions: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class Embedding(msgspec.Struct):
    """One vector, as numbers or as base64 of little-endian 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(msgspec.Struct):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModerationRequest(msgspec.Struct):
    """Texts to judge."""

    model: Annotated[str | UnsetType, about("Left out, the fleet's only moderation task.")] = UNSET
    input: str | list[str] = ""


class ModerationResult(msgspec.Struct):
    """The judgement of one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class Moderation(msgspec.Struct):
    """OpenAI's moderation."""

    id: str
    model: str
    results: list[ModerationResult]


class TranscriptionRequest(msgspec.Struct):
    """A form with an audio file."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    model: str
    language: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt"] | UnsetType = UNSET
    temperature: float | UnsetType = UNSET


class Transcription(msgspec.Struct):
    """What was said."""

    text: str


class ModelObject(msgspec.Struct):
    """A name that may be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(msgspec.Struct):
    """All of them."""

    object: Literal["list"]
    data: list[ModelObject]


class FileUpload(msgspec.Struct):
    """A form with a file of requests, one JSON object a line."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    purpose: Literal["batch"]


class FileObject(msgspec.Struct):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str


class Deleted(msgspec.Struct):
    """What was deleted."""

    id: str
    object: str
    deleted: bool


class BatchRequest(msgspec.Struct):
    """A file of requests to one endpoint."""

    input_file_id: str
    endpoint: str
    completion_window: Annotated[str, about("A duration, for example `24h`.")]
    metadata: dict[str, str] | UnsetType | None = UNSET


class Batch(msgspec.Struct):
    """How a batch stands."""

    id: str
    object: Literal["batch"]
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: int
    request_counts: dict[str, int]
    output_file_id: str | UnsetType | None = UNSET
    error_file_id: str | UnsetType | None = UNSET


class Page(msgspec.Struct):
    """A page of a list, the newest first."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    has_more: bool


# --- Semaforo ------------------------------------------------------------------------------------------------


class Deferred(msgspec.Struct):
    """How a queued request stands."""

    id: str
    status: Literal["queued", "running", "done", "failed", "expired", "cancelled"]


class Scale(msgspec.Struct):
    """How many replicas a variant is to have."""

    replicas: Annotated[int, Meta(ge=0, le=1024)]


class Scaled(msgspec.Struct):
    """The variant's replicas now."""

    variant: str
    replicas: list[dict[str, Any]]


class Drained(msgspec.Struct):
    """A replica that gets no more work."""

    replica: str
    state: str


class Fleet(msgspec.Struct):
    """Everything that may be served, and what serves it now."""

    tasks: list[dict[str, Any]]
    aliases: dict[str, str]
    models: list[dict[str, Any]]


class Figures(msgspec.Struct):
    """Counters since the start, and what is going on now."""

    now_s: float
    uptime_s: float
    process: dict[str, Any]
    arrived: int
    outcomes: dict[str, int]
    moves: dict[str, int]
    latency_bounds_s: list[float]
    tasks: list[dict[str, Any]]
    variants: list[dict[str, Any]]
    replicas: list[dict[str, Any]]


class Decisions(msgspec.Struct):
    """The latest decisions, newest first."""

    decisions: list[dict[str, Any]]


class Decision(msgspec.Struct):
    """One decision, in full and as text."""

    id: str
    text: str


class Decided(msgspec.Struct):
    """What was considered, and what would be picked."""

    request: str
    task: str
    considered: list[dict[str, Any]]
    pick: str
    replica: str
    reason: str
