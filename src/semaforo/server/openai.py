"""OpenAI's chat routes: ``/v1/chat/completions`` and ``/v1/models``.

What happens to a chat, in order:

1. Its body is checked, its `model` becomes a target, its contract is read from headers and ``service_tier``.
2. With an idempotency key it joins, or is answered like, an earlier chat with the same key (not as a stream).
3. The engine streams the answer, whichever way the client wants it.
4. A client that wants it whole gets it whole. A client that wants a stream gets a status and headers once the
   first chunk is there, so that whatever fails before has a status of its own; what fails later is said in
   the stream, which then ends without ``[DONE]``.
5. When the client goes away, the stream is closed, and with it the work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.catalog import Catalog
from semaforo.core.effects import Finish
from semaforo.entities import Ref, Request
from semaforo.errors import InvalidRequest, NotFound, SemaforoError
from semaforo.features import chat_affinity, chat_needs, chat_tokens
from semaforo.live.answer import Answer
from semaforo.server.app import error_headers, wire_status
from semaforo.server.http import JSON, SSE, HttpRequest, HttpResponse, Response, Route, StreamResponse
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.inference import Inference
from semaforo.wire.completion import ChunkWriter, Completion
from semaforo.wire.openai import (
    ChatCall,
    InvalidField,
    UnknownModel,
    error_object,
    model_list,
    model_object,
    parse_chat,
    retry_headers,
)
from semaforo.wire.payload import Chat
from semaforo.wire.sse import encode

if TYPE_CHECKING:
    from semaforo.live.engine import Engine
    from semaforo.live.stream import Stream

AUTO = "auto"
"""The name that stands for the fleet's only chat task."""

PREFIX = "/v1/"
"""Where this protocol's paths begin, and its form of errors is used."""

_NO_STREAM = "semaforo-idempotency-key keeps whole answers: leave it out, or set 'stream' to false"


class ChatCompletions:
    """Answers chats from an engine."""

    def __init__(self, engine: Engine, inference: Inference, kept: KeptAnswers) -> None:
        self._engine = engine
        self._inference = inference
        self._kept = kept
        self._since_s = int(time.time())

    async def create(self, request: HttpRequest) -> Response:
        """``POST /v1/chat/completions``."""
        body = await request.body()
        try:
            call = parse_chat(msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        target = chat_target(self._engine.catalog, call.model)
        # A header wins over the tier, as it wins over V2's own priority, whose numbers these are.
        tier = {} if call.priority is None else {"priority": call.priority + 1}
        asked = self._inference.ask(request, tier)
        tenant = asked.contract.tenant
        work = Request(
            request.id,
            target,
            contract=asked.contract,
            ref=Ref(1, len(body)),
            stream=True,
            needs=chat_needs(call.body),
            prompt_tokens=chat_tokens(call.body),
            max_tokens=call.max_tokens,
            affinity=asked.session or chat_affinity(call.body, tenant),
            traceparent=asked.traceparent,
        )
        if not asked.idempotency_key:
            return await (self._stream if call.stream else self._whole)(request, work, call)
        if call.stream:
            raise InvalidRequest(_NO_STREAM)
        digest = hashlib.sha256(b"\0".join((request.path.encode(), body))).digest()
        return await self._kept.run(
            request,
            (tenant, asked.idempotency_key),
            digest,
            lambda: self._whole(request, work, call, hear=False),
        )

    async def models(self, request: HttpRequest) -> Response:
        """``GET /v1/models``."""
        names = chat_names(self._engine.catalog)
        return _json(model_list(model_object(name, self._since_s) for name in names))

    async def model(self, request: HttpRequest) -> Response:
        """``GET /v1/models/{model}``."""
        name = request.params["model"]
        names = chat_names(self._engine.catalog)
        if name not in names:
            raise UnknownModel(name, names)
        return _json(model_object(name, self._since_s))

    async def _whole(
        self, request: HttpRequest, work: Request, call: ChatCall, *, hear: bool = True
    ) -> HttpResponse:
        stream = self._engine.stream(work, Chat(call.body))
        if hear:
            request.when_gone(stream.close)
        completion = Completion()
        async for chunk in stream:
            completion.add(chunk)
        answer = stream.answer
        assert answer is not None, "a stream that has ended has an answer"
        value = completion.object(request.id, answer.model, int(time.time()), work.prompt_tokens)
        headers = (JSON, *self._inference.served.of(answer, request.id))
        return HttpResponse(200, headers, msgspec.json.encode(value))

    async def _stream(self, request: HttpRequest, work: Request, call: ChatCall) -> Response:
        stream = self._engine.stream(work, Chat(call.body))
        request.when_gone(stream.close)
        await stream.first()
        served = _serving(stream)
        writer = ChunkWriter(
            request.id,
            served.model or call.model,
            int(time.time()),
            work.prompt_tokens,
            include_usage=call.include_usage,
        )
        headers = (*SSE, *self._inference.served.of(served, request.id))
        return StreamResponse(_events(stream, writer), headers=headers)


def routes(engine: Engine, inference: Inference, kept: KeptAnswers) -> list[Route]:
    """Return the routes of this protocol."""
    chat = ChatCompletions(engine, inference, kept)
    return [
        Route("POST", "/v1/chat/completions", "infer", chat.create),
        Route("GET", "/v1/models", "describe", chat.models),
        Route("GET", "/v1/models/{model}", "describe", chat.model),
    ]


def error_response(error: SemaforoError, request_id: str) -> HttpResponse:
    """Return an error in OpenAI's form, with the headers that its clients read."""
    served = (b"semaforo-request-id", request_id.encode("ascii"))
    headers = (*error_headers(error), *retry_headers(error), served)
    return HttpResponse(wire_status(error), headers, msgspec.json.encode(error_object(error)))


def chat_names(catalog: Catalog) -> list[str]:
    """Return every name a chat may give as its `model`; ``auto`` where there is one chat task."""
    tasks = [name for name, task in catalog.tasks.items() if task.kind == "chat"]
    models = dict.fromkeys(v.model for v in catalog.variants.values() if v.task in tasks)
    aliases = [alias for alias, name in catalog.aliases.items() if name in tasks or name in models]
    auto = [AUTO] if len(tasks) == 1 else []
    return list(dict.fromkeys((*auto, *tasks, *models, *aliases)))


def chat_target(catalog: Catalog, model: str) -> str:
    """Return the target that a chat's `model` stands for.

    Raises:
        UnknownModel: Nothing has this name.
        InvalidField: It takes tensors, or is ``auto`` where there is not exactly one chat task.
    """
    try:
        task = catalog.task_of(model)
    except NotFound:
        names = chat_names(catalog)
        if model != AUTO:
            raise UnknownModel(model, names) from None
        tasks = [name for name, task in catalog.tasks.items() if task.kind == "chat"]
        if len(tasks) == 1:
            return tasks[0]
        raise InvalidField(
            "model", f"'auto' needs one chat task, and this fleet has {_several(tasks)}"
        ) from None
    if task.kind != "chat":
        raise InvalidField(
            "model", f"'{model}' takes tensors: ask it at /v2/models/{model}/infer{_chats(catalog)}"
        )
    return model


def _several(tasks: list[str]) -> str:
    return f"{len(tasks)}: name one of {', '.join(tasks)}" if tasks else "none"


def _chats(catalog: Catalog) -> str:
    names = chat_names(catalog)
    return f". What chats here: {', '.join(names)}" if names else ""


async def _events(stream: Stream, writer: ChunkWriter) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream:
            text = writer.chunk(chunk)
            if text:
                yield text
        yield writer.end()
    except SemaforoError as error:
        yield encode(msgspec.json.encode(error_object(error)))
    finally:
        stream.close()


def _serving(stream: Stream) -> Answer:
    """Return who answers a stream that has begun, in the form of an answer."""
    if stream.answer is not None:
        return stream.answer
    model, version, variant = stream.variant.split("/", 2)
    finish = Finish(stream.request_id, "done", replica=stream.replica)
    return Answer(finish, None, model, version, variant)


def _json(value: Any) -> HttpResponse:
    return HttpResponse(200, (JSON,), msgspec.json.encode(value))
