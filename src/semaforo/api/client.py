"""A fleet behind a server, as if it were inside the program."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from semaforo.api.answer import FleetAnswer, Story
from semaforo.api.calls import Calls
from semaforo.api.chat import ChatStream
from semaforo.api.connection import LOST, Connection, reply_of
from semaforo.api.contract import contract_of
from semaforo.api.deferred import Deferred
from semaforo.api.exchange import Ask, Call
from semaforo.api.opinion import opinion_of, request_of
from semaforo.core.effects import Decided
from semaforo.entities import TaskType
from semaforo.live.crew import ReplicaStatus
from semaforo.wire.openai_client import Pieces

T = TypeVar("T")


class Client:
    """A client of a Semaforo server, used with ``with`` or closed by `close`; its methods are those of `AnyFleet`.

    Any number of threads may use it at once; connections are kept and used again.

    Args:
        url: Address of the server, for example ``http://127.0.0.1:8080``.
        key: API key; "" = none.
        timeout: Seconds without an answer after which a request without a deadline is given up.

    Raises:
        ConfigError: The address, the key or the time will not do.
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, key: str = "", timeout: float = 60.0) -> None:
        self._connection = Connection(url, key, timeout)
        self._http = httpx.Client(**self._connection.settings())
        self._calls = Calls(self._connection.url, self.story)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._connection.url}>"

    def close(self) -> None:
        """Close the connections; what still runs is broken off."""
        self._http.close()

    def infer(
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
        """See `AnyFleet.infer`; with an `idempotency_key` it is sent again where the connection breaks."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        return self._run(
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

    def submit(
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
    ) -> Deferred:
        """Put a request like one of `infer` into the server's queue on disk, and return at once.

        Raises:
            SemaforoError: It was not taken; or the server keeps no queue.
        """
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        ticket = self._run(
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
        return Deferred(ticket, self._calls, self._run)

    def decide(
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
        """See `AnyFleet.decide`."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant)
        values = {**(inputs or {}), **named}
        return self._run(self._calls.decide(target, contract, values, version=version, variant=variant))

    def chat(
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
    ) -> ChatStream:
        """See `AnyFleet.chat`."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        ask = self._calls.chat(target, messages, contract, fields)
        with self._connection.errors(ask):
            response = self._send(ask, stream=True)
            if response.status_code != 200:
                response.read()
                raise self._calls.error(reply_of(response))
        return ChatStream(_Chatting(self._calls, self._connection, ask, response))

    def explain(self, request_id: str) -> str:
        """See `AnyFleet.explain`."""
        return self.story(request_id).why

    def story(self, request_id: str) -> Story:
        """Return why a request went where it went, and what it cost.

        Raises:
            NotFound: No such request, or it is no longer kept.
        """
        return self._run(self._calls.explain(request_id))

    def latest(self) -> str:
        """Return the id of the request that was decided last.

        Raises:
            NotFound: Nothing was decided yet.
        """
        return self._run(self._calls.latest())

    def feedback(
        self,
        answer: FleetAnswer | str,
        /,
        *,
        score: float | None = None,
        correct: bool | None = None,
        label: Any = None,
        better_than: FleetAnswer | str = "",
    ) -> None:
        """See `AnyFleet.feedback`."""
        opinion = opinion_of(score, correct, label, better_than)
        self._run(self._calls.feedback(request_of(answer), opinion))

    def names(self) -> list[str]:
        """See `AnyFleet.names`."""
        return self._run(self._calls.names())

    def tasks(self) -> list[TaskType]:
        """See `AnyFleet.tasks`."""
        return self._run(self._calls.tasks())

    def replicas(self) -> list[ReplicaStatus]:
        """See `AnyFleet.replicas`."""
        return self._run(self._calls.replicas())

    def ready(self, target: str = "") -> bool:
        """See `AnyFleet.ready`."""
        return self._run(self._calls.ready(target))

    def _run(self, call: Call[T]) -> T:
        try:
            ask = next(call)
            while True:
                with self._connection.errors(ask):
                    reply = reply_of(self._send(ask))
                ask = call.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, ask: Ask, *, stream: bool = False) -> httpx.Response:
        request = self._http.build_request(**self._connection.arguments(ask))
        try:
            return self._http.send(request, stream=stream)
        except LOST:
            if not ask.repeatable:
                raise
        except httpx.ConnectError:
            # Nothing has been sent: a server that is being started again may be there by now.
            pass
        return self._http.send(self._http.build_request(**self._connection.arguments(ask)), stream=stream)


class _Chatting:
    """A streamed response as the source of a chat."""

    def __init__(self, calls: Calls, connection: Connection, ask: Ask, response: httpx.Response) -> None:
        self._calls = calls
        self._connection = connection
        self._ask = ask
        self._response = response
        self._parts = response.iter_raw()
        self._pieces = Pieces()
        self._ready: deque[str] = deque()
        self._begun = time.monotonic()
        self._closed = False

    def piece(self) -> str | None:
        while not self._ready:
            if self._closed:
                return None
            try:
                with self._connection.errors(self._ask):
                    part = next(self._parts, None)
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
        self._closed = True
        self._ready.clear()
        self._response.close()
