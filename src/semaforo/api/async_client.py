"""A fleet behind a server, inside an asyncio program."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from semaforo.api.answer import FleetAnswer, Story
from semaforo.api.calls import Calls
from semaforo.api.chat import AsyncChat
from semaforo.api.client import Client
from semaforo.api.connection import LOST, Connection, reply_of
from semaforo.api.contract import contract_of
from semaforo.api.deferred import AsyncDeferred
from semaforo.api.exchange import Ask, Call
from semaforo.api.opinion import opinion_of, request_of
from semaforo.core.effects import Decided
from semaforo.entities import TaskType
from semaforo.live.crew import ReplicaStatus
from semaforo.wire.openai_client import Pieces

T = TypeVar("T")


class AsyncClient:
    """A client of a Semaforo server, used with ``async with`` or closed by `close`.

    Its methods are those of `AnyAsyncFleet`. Cancelling a call closes its connection, which stops the work.

    Args:
        url: Address of the server, for example ``http://127.0.0.1:8080``.
        key: API key; "" = none.
        timeout: Seconds without an answer after which a request without a deadline is given up.

    Raises:
        ConfigError: The address, the key or the time will not do.
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, key: str = "", timeout: float = 60.0) -> None:
        self._connection = Connection(url, key, timeout)
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # `answer.why` is no coroutine, so what it needs is asked for by a client that waits.
        self._looking = Client(url, key=key, timeout=timeout)
        self._calls = Calls(self._connection.url, self._looking.story)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._connection.url}>"

    async def close(self) -> None:
        """Close the connections; what still runs is broken off."""
        if self._http is not None and self._loop is asyncio.get_running_loop():
            await self._http.aclose()
        self._looking.close()

    async def infer(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        parameters: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        **named: Any,
    ) -> FleetAnswer:
        """See `AnyAsyncFleet.infer`; with an `idempotency_key` it is sent again where the connection breaks."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        return await self._run(
            self._calls.infer(
                target,
                contract,
                {**(inputs or {}), **named},
                version=version,
                variant=variant,
                parameters=parameters,
                idempotency_key=idempotency_key,
            )
        )

    async def submit(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        parameters: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        **named: Any,
    ) -> AsyncDeferred:
        """Put a request like one of `infer` into the server's queue on disk, and return at once.

        Raises:
            SemaforoError: It was not taken; or the server keeps no queue.
        """
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        ticket = await self._run(
            self._calls.submit(
                target,
                contract,
                {**(inputs or {}), **named},
                version=version,
                variant=variant,
                parameters=parameters,
                idempotency_key=idempotency_key,
            )
        )
        return AsyncDeferred(ticket, self._calls, self._run)

    async def decide(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        **named: Any,
    ) -> Decided:
        """See `AnyAsyncFleet.decide`."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant)
        values = {**(inputs or {}), **named}
        return await self._run(self._calls.decide(target, contract, values, version=version, variant=variant))

    async def chat(
        self,
        target: str,
        messages: str | Sequence[Mapping[str, Any]],
        /,
        *,
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        **fields: Any,
    ) -> AsyncChat:
        """See `AnyAsyncFleet.chat`."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        ask = self._calls.chat(target, messages, contract, fields)
        with self._connection.errors(ask):
            response = await self._send(ask, stream=True)
            if response.status_code != 200:
                await response.aread()
                raise self._calls.error(reply_of(response))
        return AsyncChat(_Chatting(self._calls, self._connection, ask, response))

    async def explain(self, request_id: str) -> str:
        """See `AnyAsyncFleet.explain`."""
        return (await self._story(request_id)).why

    async def _story(self, request_id: str) -> Story:
        return await self._run(self._calls.explain(request_id))

    async def feedback(
        self,
        answer: FleetAnswer | str,
        /,
        *,
        score: float | None = None,
        correct: bool | None = None,
        label: Any = None,
        better_than: FleetAnswer | str = "",
    ) -> None:
        """See `AnyAsyncFleet.feedback`."""
        opinion = opinion_of(score, correct, label, better_than)
        await self._run(self._calls.feedback(request_of(answer), opinion))

    async def names(self) -> list[str]:
        """See `AnyAsyncFleet.names`."""
        return await self._run(self._calls.names())

    async def tasks(self) -> list[TaskType]:
        """See `AnyAsyncFleet.tasks`."""
        return await self._run(self._calls.tasks())

    async def replicas(self) -> list[ReplicaStatus]:
        """See `AnyAsyncFleet.replicas`."""
        return await self._run(self._calls.replicas())

    async def ready(self, target: str = "") -> bool:
        """See `AnyAsyncFleet.ready`."""
        return await self._run(self._calls.ready(target))

    async def _run(self, call: Call[T]) -> T:
        try:
            ask = next(call)
            while True:
                with self._connection.errors(ask):
                    reply = reply_of(await self._send(ask))
                ask = call.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, ask: Ask, *, stream: bool = False) -> httpx.Response:
        http = self._connected()
        request = http.build_request(**self._connection.arguments(ask))
        try:
            return await http.send(request, stream=stream)
        except LOST:
            if not ask.repeatable:
                raise
        except httpx.ConnectError:
            # Nothing has been sent: a server that is being started again may be there by now.
            pass
        return await http.send(http.build_request(**self._connection.arguments(ask)), stream=stream)

    def _connected(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            # Connections belong to the loop that opened them.
            self._loop = loop
            self._http = httpx.AsyncClient(**self._connection.settings())
        return self._http


class _Chatting:
    """A streamed response as the source of a chat."""

    def __init__(self, calls: Calls, connection: Connection, ask: Ask, response: httpx.Response) -> None:
        self._calls = calls
        self._connection = connection
        self._ask = ask
        self._response = response
        self._parts = response.aiter_raw()
        self._pieces = Pieces()
        self._ready: deque[str] = deque()
        self._begun = time.monotonic()
        self._closing: asyncio.Task[None] | None = None

    async def piece(self) -> str | None:
        while not self._ready:
            if self._closing is not None:
                return None
            try:
                with self._connection.errors(self._ask):
                    part = await anext(self._parts, None)
                if part is None:
                    self._pieces.close()
                    self.close()
                    return None
                self._ready += self._pieces.feed(part)
            except BaseException:
                self.close()
                raise
        return self._ready.popleft()

    def answer(self, text: str) -> FleetAnswer | None:
        if not self._pieces.done:
            return None
        return self._calls.answer({"text": text}, self._response.headers, time.monotonic() - self._begun)

    def close(self) -> None:
        if self._closing is None:
            self._ready.clear()
            self._closing = asyncio.get_running_loop().create_task(self._response.aclose())
