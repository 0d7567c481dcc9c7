"""``/v1/embeddings``, ``/v1/moderations`` and ``/v1/audio/transcriptions``: tensor tasks with an interface.

What happens to a request, in order:

1. Its body is checked, its `model` becomes a target, its contract is read from headers and ``service_tier``.
2. With an idempotency key it joins, or is answered like, an earlier request with the same key.
3. Its texts, or its file, are the rows of one request, batched with others as with V2.
4. The rows of the answer are written in OpenAI's form.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np

from semaforo.entities import TaskType
from semaforo.entities.interface import Roles, roles
from semaforo.errors import ModelFailed
from semaforo.features import text_tokens
from semaforo.server.http import JSON, HttpRequest, HttpResponse, Response
from semaforo.server.openai.door import Door, decode
from semaforo.server.openai.names import EMBEDDING, MODERATION, TRANSCRIPTION, find
from semaforo.wire.contract import Asked
from semaforo.wire.multipart import parse_form
from semaforo.wire.openai_fields import InvalidField
from semaforo.wire.openai_inputs import TextsCall, parse_embedding, parse_moderation
from semaforo.wire.openai_rows import embeddings_object, moderations_object
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.transcript import AudioCall, parse_audio, transcript

_IN_THREAD = 1_000_000
_NUMBERS_IN_THREAD = 16_384


class TensorRoutes:
    """Answers what tensor tasks with an interface are for."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def embeddings(self, request: HttpRequest) -> Response:
        """``POST /v1/embeddings``."""
        body = await request.body()
        call = parse_embedding(decode(body))
        target, task = find(self._door.catalog, call.model, EMBEDDING)
        (width,) = roles(task).output.shape
        if call.dimensions and width not in (-1, call.dimensions):
            raise InvalidField("dimensions", f"'{target}' gives embeddings of {width}, not {call.dimensions}")
        asked = self._door.asked(request, call.priority)
        return await self._door.once(
            request, asked, body, lambda hear: self._embed(request, call, asked, target, task, hear)
        )

    async def moderations(self, request: HttpRequest) -> Response:
        """``POST /v1/moderations``."""
        body = await request.body()
        call = parse_moderation(decode(body))
        target, task = find(self._door.catalog, call.model, MODERATION)
        asked = self._door.asked(request, call.priority)
        return await self._door.once(
            request, asked, body, lambda hear: self._moderate(request, call, asked, target, task, hear)
        )

    async def transcriptions(self, request: HttpRequest) -> Response:
        """``POST /v1/audio/transcriptions``."""
        body = await request.body()
        kind = request.header("content-type") or ""
        parts = (
            await asyncio.to_thread(parse_form, kind, body)
            if len(body) > _IN_THREAD
            else parse_form(kind, body)
        )
        call = parse_audio(parts)
        target, task = find(self._door.catalog, call.model, TRANSCRIPTION)
        if call.timed and "details" not in roles(task).extras:
            raise InvalidField(
                call.timed, f"'{target}' gives a text and no segments: leave it out, or ask for json or text"
            )
        asked = self._door.asked(request, call.priority)
        return await self._door.once(
            request, asked, body, lambda hear: self._transcribe(request, call, asked, target, task, hear)
        )

    async def _embed(
        self, request: HttpRequest, call: TextsCall, asked: Asked, target: str, task: TaskType, hear: bool
    ) -> HttpResponse:
        estimate = sum(map(text_tokens, call.texts))
        answer, result = await self._door.rows(
            request, asked, target, task, call.texts, call.parameters,
            field="input", prompt_tokens=estimate, hear=hear,
        )  # fmt: skip
        parts = roles(task)
        rows = result.arrays[parts.output.name]
        if call.dimensions and rows.shape[1] != call.dimensions:
            raise InvalidField(
                "dimensions", f"'{answer.model}' gives embeddings of {rows.shape[1]}, not {call.dimensions}"
            )
        tokens = int(result.arrays["tokens"].sum()) if "tokens" in parts.extras else estimate
        headers = (JSON, *self._door.inference.served.of(answer, request.id))
        if rows.size > _NUMBERS_IN_THREAD:
            written = await asyncio.to_thread(_written, rows, answer.model, tokens, call)
        else:
            written = _written(rows, answer.model, tokens, call)
        return HttpResponse(200, headers, written)

    async def _moderate(
        self, request: HttpRequest, call: TextsCall, asked: Asked, target: str, task: TaskType, hear: bool
    ) -> HttpResponse:
        answer, result = await self._door.rows(
            request, asked, target, task, call.texts, call.parameters,
            field="input", prompt_tokens=sum(map(text_tokens, call.texts)), hear=hear,
        )  # fmt: skip
        value = moderations_object(result, roles(task), request.id, answer.model)
        headers = (JSON, *self._door.inference.served.of(answer, request.id))
        return HttpResponse(200, headers, msgspec.json.encode(value))

    async def _transcribe(
        self, request: HttpRequest, call: AudioCall, asked: Asked, target: str, task: TaskType, hear: bool
    ) -> HttpResponse:
        answer, result = await self._door.rows(
            request, asked, target, task, (call.audio,), call.parameters, field="file", hear=hear
        )
        parts = roles(task)
        text = _text(result.arrays[parts.output.name])
        kind, written = transcript(call, text, _details(result, parts, answer.model))
        headers = ((b"content-type", kind.encode()), *self._door.inference.served.of(answer, request.id))
        return HttpResponse(200, headers, written)


def _written(rows: Array, model: str, tokens: int, call: TextsCall) -> bytes:
    return msgspec.json.encode(embeddings_object(rows, model, tokens, call.encoding))


def _text(column: Array) -> str:
    cell = np.asarray(column).reshape(-1)[0]
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)


def _details(result: Tensors, parts: Roles, model: str) -> dict[str, Any]:
    said = _text(result.arrays["details"]) if "details" in parts.extras else ""
    try:
        details = msgspec.json.decode(said) if said else {}
    except msgspec.DecodeError:
        details = None
    if not isinstance(details, dict):
        raise ModelFailed(f"'{model}' gave details that are no JSON object")
    return details
