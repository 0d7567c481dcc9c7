"""``/v1/completions``: a prompt goes on, answered by whatever chats.

What happens to a request, in order:

1. Its body is checked, and one chat is made of each choice.
2. A field that a chat cannot honour narrows the choice to models that go on with prompts as they stand; where the
   target has none, the field is at fault.
3. Each chat is scheduled by itself: a list of prompts is as many requests, in one answer.
4. Whole or as a stream, errors and going away are as with chats; if one choice fails, all do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import msgspec

from semaforo.entities import Ref, Request
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.features import chat_affinity, chat_needs, chat_tokens
from semaforo.live.auto import is_auto, of_prompt
from semaforo.live.stream import Stream
from semaforo.server.http import JSON, SSE, HttpRequest, HttpResponse, Response, StreamResponse
from semaforo.server.openai.door import NO_STREAM, Door, decode
from semaforo.server.openai.names import CHAT, find, tasks_of
from semaforo.server.openai.streams import COMMENT, SILENCE_S, mode, serving
from semaforo.wire.completion import Completion
from semaforo.wire.contract import Asked
from semaforo.wire.openai import error_object
from semaforo.wire.openai_fields import InvalidField
from semaforo.wire.openai_prompts import PromptCall, parse_prompts
from semaforo.wire.payload import ChatChunk
from semaforo.wire.sse import encode
from semaforo.wire.text_completion import TextWriter, completion_object

_WAITING = 256
_Said = tuple[int, ChatChunk | SemaforoError | None]


class TextCompletions:
    """Goes on with prompts."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def create(self, request: HttpRequest) -> Response:
        """``POST /v1/completions``."""
        body = await request.body()
        call = parse_prompts(decode(body))
        catalog, engine = self._door.catalog, self._door.engine
        several = is_auto(catalog, call.model) and len(tasks_of(catalog, CHAT)) > 1
        if several and engine.tasks is not None:
            try:
                found = of_prompt(catalog, engine.tasks, "\n".join(call.prompts))
            except InvalidRequest as error:
                raise InvalidField("model", error.message) from None
            engine.inferred(request.id, found)
            target = found.task
        else:
            target, _ = find(catalog, call.model, CHAT)
        self._honoured(call, target)
        asked = self._door.asked(request, call.priority)
        work = self._work(request, call, target, asked)
        if not call.stream:
            return await self._door.once(
                request, asked, body, lambda hear: self._whole(request, work, call, hear)
            )
        if asked.idempotency_key:
            raise InvalidRequest(NO_STREAM)
        return await self._stream(request, work, call)

    def _honoured(self, call: PromptCall, target: str) -> None:
        if not call.special:
            return
        if not any("completion" in v.capabilities for v in self._door.catalog.resolve(target)):
            raise InvalidField(
                call.special[0],
                f"'{target}' has no model that can honour it: leave it out, or ask one with the capability "
                "completion (an upstream with options: {completions: true})",
            )

    def _work(self, request: HttpRequest, call: PromptCall, target: str, asked: Asked) -> list[Request]:
        special = ("completion",) if call.special else ()
        found = []
        for index, chat in enumerate(call.chats):
            tenant = asked.contract.tenant
            work = Request(
                self._door.engine.new_id() if index else request.id,
                target,
                contract=asked.contract,
                ref=Ref(1, len(call.prompts[index])),
                stream=True,
                needs=(*chat_needs(chat.body), *special),
                prompt_tokens=chat_tokens(chat.body),
                max_tokens=call.max_tokens,
                affinity=asked.session or chat_affinity(chat.body, tenant),
                traceparent=asked.traceparent,
            )
            found.append(work)
        return found

    async def _whole(
        self, request: HttpRequest, work: Sequence[Request], call: PromptCall, hear: bool
    ) -> HttpResponse:
        choices = [Completion() for _ in work]
        with _Streams(self._door, request, work, call, hear) as streams:
            for choice, stream in zip(choices, streams.all, strict=True):
                async for chunk in stream:
                    choice.add(chunk)
            answer = streams.all[0].answer
        assert answer is not None, "a stream that has ended has an answer"
        value = completion_object(
            request.id, answer.model, int(time.time()), choices, _echoes(call), _tokens(work)
        )
        headers = (JSON, *self._door.inference.served.of(answer, request.id))
        return HttpResponse(200, headers, msgspec.json.encode(value))

    async def _stream(self, request: HttpRequest, work: Sequence[Request], call: PromptCall) -> Response:
        streams = _Streams(self._door, request, work, call, True)
        try:
            begun = await streams.first()
        except BaseException:
            streams.close()
            raise
        served = serving(begun)
        writer = TextWriter(
            request.id,
            served.model or call.model,
            int(time.time()),
            _echoes(call),
            _tokens(work),
            include_usage=call.include_usage,
        )
        own = mode(self._door.catalog, begun)
        headers = (*SSE, *self._door.inference.served.of(served, request.id), *own)
        return StreamResponse(_events(streams, writer), headers=headers)


class _Streams:
    """The streams of all choices; leaving it ends those that still run."""

    def __init__(
        self, door: Door, request: HttpRequest, work: Sequence[Request], call: PromptCall, hear: bool
    ) -> None:
        self.all = [door.engine.stream(one, chat) for one, chat in zip(work, call.chats, strict=True)]
        if hear:
            request.when_gone(self.close)

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what still runs."""
        for stream in self.all:
            stream.close()

    async def first(self) -> Stream:
        """Wait for the first chunk or end of any; the error where that is a failure."""
        waits = {asyncio.ensure_future(stream.ready(None)): stream for stream in self.all}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        begun = waits[next(iter(done))]
        await begun.first()
        return begun

    async def said(self) -> AsyncGenerator[_Said | None, None]:
        """Give chunks as they come; None as the chunk of a choice ends it, None alone is a long silence."""
        queue: asyncio.Queue[_Said] = asyncio.Queue(_WAITING)

        async def read(index: int, stream: Stream) -> None:
            last: SemaforoError | None = None
            try:
                async for chunk in stream:
                    await queue.put((index, chunk))
            except SemaforoError as error:
                last = error
            await queue.put((index, last))

        readers = [asyncio.ensure_future(read(index, stream)) for index, stream in enumerate(self.all)]
        open_ = len(readers)
        try:
            while open_:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        said = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                open_ -= not isinstance(said[1], ChatChunk)
                yield said
        finally:
            for reader in readers:
                reader.cancel()


async def _events(streams: _Streams, writer: TextWriter) -> AsyncIterator[bytes]:
    try:
        async with aclosing(streams.said()) as coming:
            async for said in coming:
                if said is None:
                    yield COMMENT
                    continue
                index, chunk = said
                if isinstance(chunk, SemaforoError):
                    yield encode(msgspec.json.encode(error_object(chunk)))
                    return
                text = writer.over(index) if chunk is None else writer.chunk(index, chunk)
                if text:
                    yield text
        yield writer.end()
    finally:
        streams.close()


def _echoes(call: PromptCall) -> list[str]:
    return [prompt if call.echo else "" for prompt in call.prompts]


def _tokens(work: Sequence[Request]) -> list[int]:
    return [one.prompt_tokens for one in work]
