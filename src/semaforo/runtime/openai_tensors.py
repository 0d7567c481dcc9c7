"""Embeddings, moderations and transcriptions of an OpenAI-compatible server, as models of tensors.

Rules this module keeps:

1. A request's parameters go on as fields of the body; ``service_tier`` does not, as with chats.
2. A batch is one request to the server, and its rows are the list that the server takes; a file has a request
   of its own.
3. Cancelling the task closes the server's response at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from semaforo.entities import Signature
from semaforo.entities.interface import INTERFACES
from semaforo.errors import RuntimeLoadError
from semaforo.runtime.openai_options import Options
from semaforo.runtime.openai_upstream import JSON, Upstream, whole
from semaforo.runtime.python_values import text
from semaforo.wire.payload import Array
from semaforo.wire.upstream_tensors import parse_embeddings, parse_moderations, parse_transcription

_TIMED = ("verbose_json", "srt", "vtt")
_OURS = ("service_tier", "model", "encoding_format", "stream")


class TensorUpstream(Upstream, ABC):
    """What the models below share."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        agreed = INTERFACES[options.interface]
        outputs = [msgspec.structs.replace(s, shape=(-1,) * len(s.shape), labels=()) for s in
                   (agreed.output, *agreed.extras)]  # fmt: skip
        self.signature = Signature((agreed.input,), tuple(outputs))

    @abstractmethod
    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Ask for one batch; which fields `parameters` may hold is the server's affair."""

    async def _ask(self, path: str, **content: Any) -> bytes:
        async with self._response(path, **content) as response:
            return await whole(response)

    def _fields(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in parameters.items() if name not in _OURS}
        return {**kept, "model": self._options.model}


class EmbeddingUpstream(TensorUpstream):
    """Embeds texts."""

    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Embed one batch of texts."""
        texts = [text(cell) for cell in inputs["input"].tolist()]
        body = msgspec.json.encode({**self._fields(parameters), "input": texts})
        return parse_embeddings(await self._ask("embeddings", content=body, headers=JSON), texts)


class ModerationUpstream(TensorUpstream):
    """Scores texts by category."""

    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Score one batch of texts."""
        texts = [text(cell) for cell in inputs["input"].tolist()]
        body = msgspec.json.encode({**self._fields(parameters), "input": texts})
        answer = await self._ask("moderations", content=body, headers=JSON)
        return parse_moderations(answer, len(texts), self._options.labels)


class TranscriptionUpstream(TensorUpstream):
    """Writes down what is said in a file; ``filename`` and ``content_type`` among the parameters name its kind."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.signature = msgspec.structs.replace(self.signature, batched=False)

    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Write down one file."""
        fields = self._fields(parameters)
        cell = inputs["audio"].item()
        content = cell if isinstance(cell, bytes) else str(cell).encode()
        name, kind = (
            fields.pop("filename", "audio.wav"),
            fields.pop("content_type", "application/octet-stream"),
        )
        fields["response_format"] = "verbose_json" if fields.get("response_format") in _TIMED else "json"
        form = {key: value for key, value in fields.items() if value is not None}
        answer = await self._ask(
            "audio/transcriptions", files={"file": (str(name), content, str(kind))}, data=form
        )
        return parse_transcription(answer)


_MODELS: dict[str, type[TensorUpstream]] = {
    "embedding": EmbeddingUpstream,
    "moderation": ModerationUpstream,
    "transcription": TranscriptionUpstream,
}


def tensor_model(options: Options) -> TensorUpstream:
    """Return the model that an interface asks for.

    Raises:
        RuntimeLoadError: It scores categories that nobody named.
    """
    if options.interface == "moderation" and not options.labels:
        raise RuntimeLoadError("options.labels: name the categories that are scored, in the task's order")
    return _MODELS[options.interface](options)
