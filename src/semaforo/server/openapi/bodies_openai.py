"""Bodies of OpenAI's API, as the description shows them.

Nothing is decoded by these types: they say what is taken and given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


class OpenAIErrorDetail(msgspec.Struct):
    """What is wrong, and where."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """OpenAI's error."""

    error: OpenAIErrorDetail


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | list[dict[str, Any]] | UnsetType | None = UNSET


class ChatRequest(msgspec.Struct):
    """OpenAI's chat request; further fields go to the model unchanged."""

    model: Annotated[str, Meta(description="A chat task, a model, an alias, or `auto`.")]
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

    model: Annotated[str | UnsetType, Meta(description="Left out, the fleet's only moderation task.")] = UNSET
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
    completion_window: Annotated[str, Meta(description="A duration, for example `24h`.")]
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
