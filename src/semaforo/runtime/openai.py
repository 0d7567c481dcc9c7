"""The runtime for any server that speaks OpenAI's protocol, near or far: its chats, and what is served of it.

Rules this module keeps:

1. The body goes on as the client sent it; only ``model``, ``stream`` and ``stream_options`` are set here,
   and ``service_tier`` is left out: it chose the priority here and would choose the operator's bill there.
2. A prompt (`Chat` says how one is told from a chat) goes to ``/completions`` where the upstream has that
   (`Options.completions`), and goes as the chat's one message otherwise.
3. An answer ends with ``[DONE]``, or with a finish reason before a proper end. Anything else is a failure.
4. Closing the iterator closes the upstream's response at once; a finished one gives its connection back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import httpx
import msgspec

from semaforo.errors import ModelFailed, RuntimeLoadError
from semaforo.runtime.openai_options import check_upstream, parse_options
from semaforo.runtime.openai_tensors import TensorUpstream, tensor_model
from semaforo.runtime.openai_upstream import JSON, Upstream, parts, whole
from semaforo.wire.payload import Chat, ChatChunk
from semaforo.wire.sse import SseDecoder, SseEvent
from semaforo.wire.upstream import parse_completion, parse_event

_DRAIN_S = 0.25


class OpenAIModel(Upstream):
    """One chat model behind an OpenAI-compatible url."""

    async def chat(self, request: Chat) -> AsyncIterator[ChatChunk]:
        """Stream the answer; closing the iterator stops the work.

        Raises:
            Refused: The upstream is over its limit (`retry_after_s` says how long).
            InvalidRequest: The upstream found fault with the request.
            ModelFailed: The upstream failed, refused the operator's key, or cannot be reached.
        """
        path, body = self._body(request)
        async with self._response(path, content=msgspec.json.encode(body), headers=JSON) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                yield parse_completion(await whole(response))
                return
            answer = _Answer()
            async with aclosing(parts(response)) as coming:
                async for part in coming:
                    for chunk in answer.feed(part):
                        yield chunk
                    if answer.done:
                        await _drain(coming)
                        return
            for chunk in answer.close():
                yield chunk

    def _body(self, request: Chat) -> tuple[str, dict[str, Any]]:
        """Return the path that a request goes to, and the body it has there."""
        prompt = request.prompt
        options = self._options
        left_out = {"service_tier", "stream_options"}
        path = "chat/completions"
        if prompt is not None and options.completions:
            path = "completions"
            left_out.add("messages")
        elif prompt is not None:
            left_out.add("prompt")
        sent = {name: value for name, value in request.body.items() if name not in left_out}
        sent |= {"model": options.model, "stream": options.stream}
        if options.stream and options.include_usage:
            sent["stream_options"] = {**(request.body.get("stream_options") or {}), "include_usage": True}
        return path, sent


class OpenAIRuntime:
    """Serves models behind urls."""

    name = "openai"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> OpenAIModel | TensorUpstream:
        """Check the options and, unless ``check`` is false, the upstream.

        Args:
            source: The url, unless ``url`` is among the options.
            options: Fields of `Options`.
            device: Of no meaning here.

        Raises:
            RuntimeLoadError: An option is wrong, the upstream cannot be reached, refuses the key, or does
                not know the model.
        """
        parsed = parse_options(source, options)
        if parsed.check:
            check_upstream(parsed)
        try:
            return tensor_model(parsed) if parsed.interface else OpenAIModel(parsed)
        except OSError as error:
            raise RuntimeLoadError(f"the certificates of this machine cannot be read: {error}") from None


class _Answer:
    """Follows one stream of events to its end."""

    def __init__(self) -> None:
        self._decoder = SseDecoder()
        self._held: dict[str, Any] = {}
        self._finished = False
        self.done = False

    def feed(self, part: bytes) -> list[ChatChunk]:
        """Take the next bytes."""
        return self._chunks(self._decoder.feed(part))

    def close(self) -> list[ChatChunk]:
        """Take the end of the stream without ``[DONE]``.

        Raises:
            ModelFailed: The answer is not complete.
        """
        chunks = self._chunks(self._decoder.close())
        if not (self.done or self._finished):
            raise ModelFailed("the upstream ended its stream before the end of the answer")
        return chunks

    def _chunks(self, events: list[SseEvent]) -> list[ChatChunk]:
        chunks: list[ChatChunk] = []
        for event in events:
            if event.data.strip() == b"[DONE]":
                self.done = True
                break
            chunk = parse_event(event)
            if self._hold(chunk):
                continue
            if self._held:
                chunk.delta = {**self._held, **chunk.delta}
                self._held = {}
            self._finished = self._finished or chunk.finish_reason is not None
            chunks.append(chunk)
        return chunks

    def _hold(self, chunk: ChatChunk) -> bool:
        """Keep back what says nothing yet: a failure before the first word can still be retried elsewhere."""
        if chunk.tokens or chunk.finish_reason or chunk.usage or chunk.logprobs:
            return False
        if any(value for name, value in chunk.delta.items() if name != "role"):
            return False
        self._held = {**self._held, **chunk.delta}
        return True


async def _drain(coming: AsyncIterator[bytes]) -> None:
    # Read to the very end, the connection can be used again; a server that keeps it open is not waited for.
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in coming:
                pass
