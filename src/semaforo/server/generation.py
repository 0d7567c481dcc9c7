"""V2's generate extension: named JSON fields in, named JSON fields out, at once or as server-sent events.

A chat task takes ``text_input`` and gives ``text_output``; its other fields, and ``parameters``, go into the
chat's body (``max_tokens``, ``temperature`` …). A tensor task takes one row, each input under its own name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.entities import Ref, Request, TaskType
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.live.answer import Answer
from semaforo.live.auto import is_auto, of_prompt, of_tensors
from semaforo.live.stream import Stream
from semaforo.server.http import SSE, HttpRequest, HttpResponse, Response, StreamResponse, json_response
from semaforo.server.inference import Inference
from semaforo.server.prompt import chat_of, text_of
from semaforo.wire.completion import RESTARTED
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
        target, task, fields, parameters = await self._read(request)
        if task.kind == "tensor":
            answer, value = await self._tensors(request, target, task, fields, parameters)
            return json_response(value, headers=self._inference.served.of(answer, request.id))
        work, chat = self._chat(request, target, fields, parameters)
        stream = self._engine.stream(work, chat)
        request.when_gone(stream.close)
        parts = [text_of(chunk.delta) async for chunk in stream]
        answer = _ended(stream)
        value = _named(fields, answer) | {"text_output": "".join(parts)}
        return json_response(value, headers=self._inference.served.of(answer, request.id))

    async def generate_stream(self, request: HttpRequest) -> Response:
        """``POST /v2/models/{model}[/versions/{version}]/generate_stream``."""
        target, task, fields, parameters = await self._read(request)
        if task.kind == "tensor":
            answer, value = await self._tensors(request, target, task, fields, parameters)
            headers = (*SSE, *self._inference.served.of(answer, request.id))
            return HttpResponse(200, headers, encode(msgspec.json.encode(value)))
        work, chat = self._chat(request, target, fields, parameters)
        chat.body["stream"] = True
        stream = self._engine.stream(work, chat)
        request.when_gone(stream.close)
        # What fails before the first chunk fails with a status of its own.
        await stream.first()
        return StreamResponse(
            _events(stream, fields), headers=(*SSE, (b"semaforo-request-id", request.id.encode()))
        )

    async def _read(self, request: HttpRequest) -> tuple[str, TaskType, dict[str, Any], dict[str, Any]]:
        target = request.params["model"]
        catalog = self._engine.catalog
        unnamed = is_auto(catalog, target)
        if not unnamed:
            catalog.resolve(target, request.params.get("version", ""))
        fields = await request.json()
        if not isinstance(fields, dict):
            raise InvalidRequest("the body is an object of named inputs")
        parameters = fields.pop("parameters", None) or {}
        if not isinstance(parameters, dict):
            raise InvalidRequest("parameters is an object")
        if unnamed:
            target = self._found(request, fields)
            catalog.resolve(target, request.params.get("version", ""))
        return target, catalog.task_of(target), fields, parameters

    def _found(self, request: HttpRequest, fields: dict[str, Any]) -> str:
        """Return the task of fields that name none.

        Raises:
            InvalidRequest: It cannot be told.
        """
        engine = self._engine
        fit: dict[str, Tensors] = {}
        for name, task in engine.catalog.tasks.items():
            if task.kind == "chat":
                continue
            given = fields
            if "id" in fields and _no_input(task, "id"):
                given = {field: value for field, value in fields.items() if field != "id"}
            with suppress(InvalidRequest):
                fit[name] = one_row(task, given)[0]
        text = fields.get("text_input")
        if not fit and isinstance(text, str):
            found = of_prompt(engine.catalog, engine.tasks, text)
        else:
            arrays = next(iter(fit.values())).arrays if fit else {}
            found = of_tensors(engine.tasks, list(fit), arrays)
        engine.inferred(request.id, found)
        return found.task

    async def _tensors(
        self,
        request: HttpRequest,
        target: str,
        task: TaskType,
        fields: dict[str, Any],
        parameters: dict[str, Any],
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
            target,
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
        self, request: HttpRequest, target: str, fields: dict[str, Any], parameters: dict[str, Any]
    ) -> tuple[Request, Chat]:
        text = fields.get("text_input")
        if not isinstance(text, str):
            raise InvalidRequest("text_input is missing: give the prompt as a text")
        asked = self._inference.ask(request, parameters)
        rest = {name: value for name, value in fields.items() if name not in ("text_input", "id", "stream")}
        return chat_of(request.id, target, request.params.get("version", ""), text, rest, asked)


def _ended(stream: Stream) -> Answer:
    if stream.answer is None:
        raise SemaforoError(f"the stream of request {stream.request_id} ended without an answer")
    return stream.answer


async def _events(stream: Stream, fields: dict[str, Any]) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream:
            text = text_of(chunk.delta)
            if text:
                said = {"text_output": text, **(RESTARTED if chunk.restart else {})}
                yield encode(msgspec.json.encode(said))
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
