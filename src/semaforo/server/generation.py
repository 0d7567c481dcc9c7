"""V2's generate extension: named JSON fields in, named JSON fields out, at once or as server-sent events.

A chat task takes ``text_input`` and gives ``text_output``; its other fields, and ``parameters``, go into the
chat's body (``max_tokens``, ``temperature`` …). A tensor task takes one row, each input under its own name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.entities import Ref, Request, TaskType
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.live.answer import Answer
from semaforo.live.stream import Stream
from semaforo.server.http import SSE, HttpRequest, HttpResponse, Response, StreamResponse, json_response
from semaforo.server.inference import Inference
from semaforo.server.prompt import chat_of, text_of
from semaforo.wire.generate import one_row, plain
from semaforo.wire.payload import Chat, Tensors
from semaforo.wire.sse import encode

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


class Generation:
    """Answers generate requests."""

    def __init__(self, engine: Engine, inference: Inference) -> None:
        self._engine = engine
        self._inference = inference

    async def generate(self, request: HttpRequest) -> Response:
        """``POST /v2/models/{model}[/versions/{version}]/generate``."""
        task, fields, parameters = await self._read(request)
        if task.kind == "tensor":
            answer, value = await self._tensors(request, task, fields, parameters)
            return json_response(value, headers=self._inference.served.of(answer, request.id))
        work, chat = self._chat(request, fields, parameters)
        stream = self._engine.stream(work, chat)
        request.when_gone(stream.close)
        parts = [text_of(chunk.delta) async for chunk in stream]
        answer = _ended(stream)
        value = _named(fields, answer) | {"text_output": "".join(parts)}
        return json_response(value, headers=self._inference.served.of(answer, request.id))

    async def generate_stream(self, request: HttpRequest) -> Response:
        """``POST /v2/models/{model}[/versions/{version}]/generate_stream``."""
        task, fields, parameters = await self._read(request)
        if task.kind == "tensor":
            answer, value = await self._tensors(request, task, fields, parameters)
            headers = (*SSE, *self._inference.served.of(answer, request.id))
            return HttpResponse(200, headers, encode(msgspec.json.encode(value)))
        work, chat = self._chat(request, fields, parameters)
        stream = self._engine.stream(work, chat)
        request.when_gone(stream.close)
        # What fails before the first chunk fails with a status of its own.
        await stream.first()
        return StreamResponse(
            _events(stream, fields), headers=(*SSE, (b"semaforo-request-id", request.id.encode()))
        )

    async def _read(self, request: HttpRequest) -> tuple[TaskType, dict[str, Any], dict[str, Any]]:
        target = request.params["model"]
        catalog = self._engine.catalog
        task = catalog.task_of(target)
        catalog.resolve(target, request.params.get("version", ""))
        fields = await request.json()
        if not isinstance(fields, dict):
            raise InvalidRequest("the body is an object of named inputs")
        parameters = fields.pop("parameters", None) or {}
        if not isinstance(parameters, dict):
            raise InvalidRequest("parameters is an object")
        return task, fields, parameters

    async def _tensors(
        self, request: HttpRequest, task: TaskType, fields: dict[str, Any], parameters: dict[str, Any]
    ) -> tuple[Answer, dict[str, Any]]:
        echoed = (
            {"id": fields.pop("id")} if isinstance(fields.get("id"), str) and _no_input(task, "id") else {}
        )
        tensors, key = one_row(task, fields)
        asked = self._inference.ask(request, parameters)
        tensors.parameters = asked.parameters
        size = sum(array.nbytes for array in tensors.arrays.values())
        work = Request(
            request.id,
            request.params["model"],
            request.params.get("version", ""),
            asked.variant,
            asked.contract,
            ref=Ref(1, size, key),
            affinity=asked.session,
            traceparent=asked.traceparent,
        )
        answer = await self._inference.run(request, work, tensors)
        if not isinstance(answer.result, Tensors):
            raise SemaforoError(f"request {request.id} ended well without a result")
        value = {"model_name": answer.model, "model_version": answer.version}
        return answer, echoed | value | plain(task, answer.result)

    def _chat(
        self, request: HttpRequest, fields: dict[str, Any], parameters: dict[str, Any]
    ) -> tuple[Request, Chat]:
        text = fields.get("text_input")
        if not isinstance(text, str):
            raise InvalidRequest("text_input is missing: give the prompt as a text")
        asked = self._inference.ask(request, parameters)
        rest = {name: value for name, value in fields.items() if name not in ("text_input", "id", "stream")}
        params = request.params
        return chat_of(request.id, params["model"], params.get("version", ""), text, rest, asked)


def _ended(stream: Stream) -> Answer:
    if stream.answer is None:
        raise SemaforoError(f"the stream of request {stream.request_id} ended without an answer")
    return stream.answer


async def _events(stream: Stream, fields: dict[str, Any]) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream:
            text = text_of(chunk.delta)
            if text:
                yield encode(msgspec.json.encode({"text_output": text}))
        yield encode(msgspec.json.encode(_named(fields, _ended(stream)) | {"text_output": ""}))
    except SemaforoError as error:
        yield encode(msgspec.json.encode({"error": str(error)}))
    finally:
        stream.close()


def _named(fields: dict[str, Any], answer: Answer) -> dict[str, Any]:
    named = {"model_name": answer.model, "model_version": answer.version}
    return {"id": fields["id"], **named} if isinstance(fields.get("id"), str) else named


def _no_input(task: TaskType, name: str) -> bool:
    return all(spec.name != name for spec in task.inputs)
