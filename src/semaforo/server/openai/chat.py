"""``/v1/chat/completions``.

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

import time
from collections.abc import AsyncIterator

import msgspec

from semaforo.entities import Ref, Request
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.features import chat_affinity, chat_needs, chat_tokens
from semaforo.live.auto import is_auto, of_chat
from semaforo.live.stream import Stream
from semaforo.server.http import JSON, SSE, HttpRequest, HttpResponse, Response, StreamResponse
from semaforo.server.openai.door import NO_STREAM, Door, decode
from semaforo.server.openai.names import CHAT, find, tasks_of
from semaforo.server.openai.streams import COMMENT, SILENCE_S, mode, serving
from semaforo.wire.completion import ChunkWriter, Completion
from semaforo.wire.openai import ChatCall, error_object, parse_chat
from semaforo.wire.payload import Chat
from semaforo.wire.sse import encode


class ChatCompletions:
    """Answers chats."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def create(self, request: HttpRequest) -> Response:
        """``POST /v1/chat/completions``."""
        body = await request.body()
        call = parse_chat(decode(body))
        engine = self._door.inference.engine
        if is_auto(engine.catalog, call.model) and len(tasks_of(engine.catalog, CHAT)) > 1:
            found = of_chat(engine.catalog, engine.tasks, call.body)
            engine.inferred(request.id, found)
            target = found.task
        else:
            target, _ = find(self._door.catalog, call.model, CHAT)
        asked = self._door.asked(request, call.priority)
        work = Request(
            request.id,
            target,
            contract=asked.contract,
            ref=Ref(1, len(body)),
            stream=True,
            needs=chat_needs(call.body),
            prompt_tokens=chat_tokens(call.body),
            max_tokens=call.max_tokens,
            affinity=asked.session or chat_affinity(call.body, asked.contract.tenant),
            traceparent=asked.traceparent,
        )
        if not call.stream:
            return await self._door.once(
                request, asked, body, lambda hear: self._whole(request, work, call, hear)
            )
        if asked.idempotency_key:
            raise InvalidRequest(NO_STREAM)
        return await self._stream(request, work, call)

    async def _whole(self, request: HttpRequest, work: Request, call: ChatCall, hear: bool) -> HttpResponse:
        stream = self._door.engine.stream(work, Chat(call.body))
        if hear:
            request.when_gone(stream.close)
        completion = Completion()
        async for chunk in stream:
            completion.add(chunk)
        answer = stream.answer
        assert answer is not None, "a stream that has ended has an answer"
        value = completion.object(request.id, answer.model, int(time.time()), work.prompt_tokens)
        headers = (JSON, *self._door.inference.served.of(answer, request.id))
        return HttpResponse(200, headers, msgspec.json.encode(value))

    async def _stream(self, request: HttpRequest, work: Request, call: ChatCall) -> Response:
        stream = self._door.engine.stream(work, Chat(call.body))
        request.when_gone(stream.close)
        await stream.first()
        served = serving(stream)
        writer = ChunkWriter(
            request.id,
            served.model or call.model,
            int(time.time()),
            work.prompt_tokens,
            include_usage=call.include_usage,
        )
        own = mode(self._door.catalog, stream)
        headers = (*SSE, *self._door.inference.served.of(served, request.id), *own)
        return StreamResponse(_events(stream, writer), headers=headers)


async def _events(stream: Stream, writer: ChunkWriter) -> AsyncIterator[bytes]:
    try:
        while True:
            if not await stream.ready(SILENCE_S):
                yield COMMENT
                continue
            chunk = await anext(stream, None)
            if chunk is None:
                break
            text = writer.chunk(chunk)
            if text:
                yield text
        yield writer.end()
    except SemaforoError as error:
        yield encode(msgspec.json.encode(error_object(error)))
    finally:
        stream.close()
