"""What all models behind an OpenAI-compatible url share: connections, limits, and errors in our terms.

Rules this module keeps:

1. Whatever goes wrong becomes an error of ours that says whose fault it was.
2. Leaving the context of a response closes it at once; a finished one gives its connection back.
3. The key appears in one header and nowhere else: in no message, log or repr.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import httpx

from semaforo.errors import ModelFailed, ProtocolError, SemaforoError
from semaforo.runtime.openai_options import Options
from semaforo.runtime.openai_status import status_error
from semaforo.wire.ratelimit import RateLimits, parse_limits

_KEEP_ALIVE_S = 30.0
_MAX_BODY_BYTES = 67_108_864
_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)
JSON = {"content-type": "application/json"}


class Upstream:
    """A model behind a url, without what is asked of it.

    Attributes:
        slots: Requests it is sent at once.
        elsewhere: True: asking it may cost money, so that it is not warmed up, nor asked again for each member
            of a batch that failed for another reason than its input.
        on_limits: Called with what a response says of the upstream's limits, named as the fields of
            `semaforo.core.events.Limits`; only where it says anything.
    """

    elsewhere = True

    def __init__(self, options: Options) -> None:
        self.slots = options.slots
        self._options = options
        self._tls = httpx.create_ssl_context()
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self.on_limits: Callable[[dict[str, Any]], None] | None = None

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
    async def _response(self, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Post to a path and give a successful response; `content` is as httpx takes it.

        Raises:
            Refused: The upstream is over its limit (`retry_after_s` says how long).
            InvalidRequest: The upstream found fault with the request.
            ModelFailed: The upstream failed, refused the operator's key, or cannot be reached.
        """
        try:
            response = await self._send(path, content)
            try:
                limits = parse_limits(response.headers, time.time())
                self._tell(limits)
                if response.status_code != 200:
                    text = await whole(response, cut=True)
                    raise status_error(response.status_code, text, limits, self._options)
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            raise ModelFailed(self._too_slow(error)) from None
        except httpx.ConnectError as error:
            raise self._unreached(error) from None
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

    async def _send(self, path: str, content: dict[str, Any]) -> httpx.Response:
        fresh = False

        async def trace(name: str, _: Any) -> None:
            nonlocal fresh
            fresh = fresh or name.startswith("connection.connect")

        client = self._connect()
        request = client.build_request("POST", path, **content)
        request.extensions["trace"] = trace
        try:
            return await client.send(request, stream=True)
        except _LOST:
            # A server may close an idle connection just as it is used again: that says nothing of its health.
            if fresh:
                raise
            return await client.send(client.build_request("POST", path, **content), stream=True)

    def _connect(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                base_url=self._options.url,
                headers=self._options.request_headers(),
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

    def _unreached(self, error: httpx.ConnectError) -> SemaforoError:
        return ModelFailed(f"{self._options.where} cannot be reached: {error}")

    def _too_slow(self, error: httpx.TimeoutException) -> str:
        if isinstance(error, httpx.ConnectTimeout):
            return (
                f"{self._options.where} accepted no connection within {self._options.connect_timeout_s:g} s"
            )
        return f"{self._options.where} sent nothing for {self._options.timeout_s:g} s"


def parts(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Return the parts of a body as they come."""
    return cast("AsyncGenerator[bytes, None]", response.aiter_bytes())


async def whole(response: httpx.Response, *, cut: bool = False) -> bytes:
    """Read a body to its end.

    Args:
        response: Whose body.
        cut: Whether the beginning of a long one will do; otherwise that is an error.

    Raises:
        ProtocolError: It is too long.
    """
    found: list[bytes] = []
    size = 0
    async with aclosing(parts(response)) as chunks:
        async for part in chunks:
            found.append(part)
            size += len(part)
            if size > (65_536 if cut else _MAX_BODY_BYTES):
                if cut:
                    break
                raise ProtocolError(f"its answer is longer than {_MAX_BODY_BYTES} bytes")
    return b"".join(found)
