"""The runtime for any server that speaks OpenAI's chat protocol, near or far.

Rules this module keeps:

1. The body goes on as the client sent it; only ``model``, ``stream`` and ``stream_options`` are set here,
   and ``service_tier`` is left out: it chose the priority here and would choose the operator's bill there.
2. An answer ends with ``[DONE]``, or with a finish reason before a proper end. Anything else is a failure.
3. Closing the iterator closes the upstream's response at once; a finished one gives its connection back.
4. The key appears in one header and nowhere else: in no message, log or repr.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, cast

import httpx
import msgspec

from semaforo.errors import ModelFailed, ProtocolError, RuntimeLoadError, SemaforoError
from semaforo.runtime.openai_options import Options, check_upstream, parse_options
from semaforo.runtime.openai_status import status_error
from semaforo.wire.payload import Chat, ChatChunk
from semaforo.wire.ratelimit import RateLimits, parse_limits
from semaforo.wire.sse import SseDecoder, SseEvent
from semaforo.wire.upstream import parse_completion, parse_event

_KEEP_ALIVE_S = 30.0
_DRAIN_S = 0.25
_MAX_BODY_BYTES = 67_108_864
_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)


class OpenAIModel:
    """One model behind an OpenAI-compatible url.

    Attributes:
        slots: Requests it is sent at once.
        on_limits: Called with what a response says of the upstream's limits, named as the fields of
            `semaforo.core.events.Limits`; only where it says anything.
    """

    def __init__(self, options: Options) -> None:
        self.slots = options.slots
        self._options = options
        self._tls = httpx.create_ssl_context()
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self.on_limits: Callable[[dict[str, Any]], None] | None = None

    async def chat(self, request: Chat) -> AsyncIterator[ChatChunk]:
        """Stream the answer; closing the iterator stops the work.

        Raises:
            Refused: The upstream is over its limit (`retry_after_s` says how long).
            InvalidRequest: The upstream found fault with the request.
            ModelFailed: The upstream failed, refused the operator's key, or cannot be reached.
        """
        async with self._response(request.body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                yield parse_completion(await _whole(response))
                return
            answer = _Answer()
            async with aclosing(_parts(response)) as parts:
                async for part in parts:
                    for chunk in answer.feed(part):
                        yield chunk
                    if answer.done:
                        await _drain(parts)
                        return
            for chunk in answer.close():
                yield chunk

    def memory_bytes(self) -> int:
        """Return 0: the weights are elsewhere."""
        return 0

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        loop = self._loop
        if client is None or loop is None or loop.is_closed():
            return

        def begin() -> None:
            self._closing = loop.create_task(client.aclose())

        loop.call_soon_threadsafe(begin)

    @asynccontextmanager
    async def _response(self, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """Send a body and give a successful response; whatever goes wrong becomes an error of ours."""
        try:
            response = await self._send(body)
            try:
                limits = parse_limits(response.headers, time.time())
                self._tell(limits)
                if response.status_code != 200:
                    text = await _whole(response, cut=True)
                    raise status_error(response.status_code, text, limits, self._options)
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            raise ModelFailed(self._too_slow(error)) from None
        except httpx.ConnectError as error:
            raise ModelFailed(f"{self._options.where} cannot be reached: {error}") from None
        except httpx.HTTPError as error:
            detail = str(error) or type(error).__name__
            raise ModelFailed(
                f"{self._options.where} was lost before the end of the answer: {detail}"
            ) from None
        except ProtocolError as error:
            raise ModelFailed(f"{self._options.where}: {error.message}") from None
        except SemaforoError as error:
            if not self._options.key or self._options.key not in error.message:
                raise
            message = self._options.without_key(error.message)
            raise type(error)(message, retry_after_s=error.retry_after_s) from None

    async def _send(self, body: Mapping[str, Any]) -> httpx.Response:
        content = msgspec.json.encode(self._body(body))
        fresh = False

        async def trace(name: str, _: Any) -> None:
            nonlocal fresh
            fresh = fresh or name.startswith("connection.connect")

        client = self._connect()
        request = client.build_request("POST", "chat/completions", content=content)
        request.extensions["trace"] = trace
        try:
            return await client.send(request, stream=True)
        except _LOST:
            # A server may close an idle connection just as it is used again: that says nothing of its health.
            if fresh:
                raise
            return await client.send(
                client.build_request("POST", "chat/completions", content=content), stream=True
            )

    def _body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        sent = {name: value for name, value in body.items() if name != "service_tier"}
        sent["model"] = self._options.model
        sent["stream"] = self._options.stream
        sent.pop("stream_options", None)
        if self._options.stream and self._options.include_usage:
            sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return sent

    def _connect(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                base_url=self._options.url,
                headers={**self._options.request_headers(), "content-type": "application/json"},
                timeout=httpx.Timeout(self._options.timeout_s, connect=self._options.connect_timeout_s),
                # How many run at once is decided by the dispatcher; a second queue here would hide the wait.
                limits=httpx.Limits(
                    max_connections=None, max_keepalive_connections=64, keepalive_expiry=_KEEP_ALIVE_S
                ),
                verify=self._tls,
            )
        return self._client

    def _tell(self, limits: RateLimits) -> None:
        if self.on_limits is None or limits == RateLimits():
            return
        self.on_limits(
            {
                "requests_left": limits.requests_left,
                "tokens_left": limits.tokens_left,
                "reset_s": limits.reset_s or 0.0,
                "retry_after_s": limits.retry_after_s or 0.0,
            }
        )

    def _too_slow(self, error: httpx.TimeoutException) -> str:
        if isinstance(error, httpx.ConnectTimeout):
            return (
                f"{self._options.where} accepted no connection within {self._options.connect_timeout_s:g} s"
            )
        return f"{self._options.where} sent nothing for {self._options.timeout_s:g} s"


class OpenAIRuntime:
    """Serves models behind urls."""

    name = "openai"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> OpenAIModel:
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
            return OpenAIModel(parsed)
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


def _parts(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    return cast("AsyncGenerator[bytes, None]", response.aiter_bytes())


async def _whole(response: httpx.Response, *, cut: bool = False) -> bytes:
    parts: list[bytes] = []
    size = 0
    async with aclosing(_parts(response)) as chunks:
        async for part in chunks:
            parts.append(part)
            size += len(part)
            if size > (65_536 if cut else _MAX_BODY_BYTES):
                if cut:
                    break
                raise ProtocolError(f"its answer is longer than {_MAX_BODY_BYTES} bytes")
    return b"".join(parts)


async def _drain(parts: AsyncIterator[bytes]) -> None:
    # Read to the very end, the connection can be used again; a server that keeps it open is not waited for.
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in parts:
                pass
