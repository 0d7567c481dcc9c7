"""A fleet inside an ordinary program: `AsyncFleet` on a loop of its own in a thread.

Any number of threads may ask at once; what they ask is batched together.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop

from semaforo.api.answer import FleetAnswer
from semaforo.api.asynchronous import AsyncFleet
from semaforo.api.chat import AsyncChat, ChatStream
from semaforo.api.graph import Graph
from semaforo.core.effects import Decided
from semaforo.entities import TaskType
from semaforo.errors import NotReady
from semaforo.live.crew import ReplicaStatus

T = TypeVar("T")


class Fleet:
    """A fleet of models in this program, used with ``with``; its methods are those of `AnyFleet`."""

    def __init__(self, inner: AsyncFleet) -> None:
        self._inner = inner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def open(
        cls, path: str | Path | None = None, *, graphs: Sequence[Graph] = (), journal: bool = True
    ) -> Self:
        """Return the fleet of a fleet file, or of all functions under ``@semaforo.model``.

        Args:
            path: The fleet file.
            graphs: Graphs of its models, built here.
            journal: Whether the file's journal is written; not where a server of the same file writes it.

        Raises:
            FleetFileError: What is wrong with the file, all of it.
            ConfigError: What is wrong with the graphs, all of it.
        """
        return cls(AsyncFleet.open(path, graphs=graphs, journal=journal))

    @classmethod
    def of(cls, *functions: Callable[..., Any], graphs: Sequence[Graph] = ()) -> Self:
        """Return the fleet of these functions, each under ``@semaforo.model``, and of graphs of them.

        Raises:
            ConfigError: A function is no model, two of one task do not fit together, or a graph does not fit them.
        """
        return cls(AsyncFleet.of(*functions, graphs=graphs))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Load all models.

        Raises:
            NotReady: Not one replica could be started, or the fleet was opened before.
        """
        if self._thread is not None:
            raise NotReady("the fleet was opened before: make another one by Fleet.open")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="semaforo", daemon=True)
        self._thread.start()
        try:
            self._wait(self._inner.start())
        except BaseException:
            self._end()
            raise

    def close(self, grace_s: float = 10.0) -> None:
        """Finish what runs within `grace_s` seconds, then stop; closing twice does nothing."""
        if self._loop is None:
            return
        try:
            self._wait(self._inner.close(grace_s))
        finally:
            self._end()

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
        **named: Any,
    ) -> FleetAnswer:
        """See `AnyFleet.infer`."""
        return self._wait(
            self._fleet().infer(
                target,
                inputs=inputs,
                version=version,
                variant=variant,
                deadline=deadline,
                min_quality=min_quality,
                max_cost=max_cost,
                priority=priority,
                privacy=privacy,
                tenant=tenant,
                cache=cache,
                parameters=parameters,
                **named,
            )
        )

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
        return self._wait(
            self._fleet().decide(
                target,
                inputs=inputs,
                version=version,
                variant=variant,
                deadline=deadline,
                min_quality=min_quality,
                max_cost=max_cost,
                priority=priority,
                privacy=privacy,
                tenant=tenant,
                **named,
            )
        )

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
        chat = self._wait(
            self._fleet().chat(
                target,
                messages,
                deadline=deadline,
                min_quality=min_quality,
                max_cost=max_cost,
                priority=priority,
                privacy=privacy,
                tenant=tenant,
                cache=cache,
                **fields,
            )
        )

        return ChatStream(_Waiting(self, chat))

    def explain(self, request_id: str) -> str:
        """See `AnyFleet.explain`."""
        return self._wait(self._fleet().explain(request_id))

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
        work = self._fleet().feedback(
            answer, score=score, correct=correct, label=label, better_than=better_than
        )
        self._wait(work)

    def names(self) -> list[str]:
        """See `AnyFleet.names`."""
        return self._wait(self._fleet().names())

    def tasks(self) -> list[TaskType]:
        """See `AnyFleet.tasks`."""
        return self._wait(self._fleet().tasks())

    def replicas(self) -> list[ReplicaStatus]:
        """See `AnyFleet.replicas`."""
        return self._wait(self._fleet().replicas())

    def ready(self, target: str = "") -> bool:
        """See `AnyFleet.ready`."""
        return self._wait(self._fleet().ready(target))

    def _fleet(self) -> AsyncFleet:
        if self._loop is None:
            raise NotReady("the fleet is not open: use it inside `with Fleet.open(…) as fleet`")
        return self._inner

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise NotReady("the fleet is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _end(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()


class _Waiting:
    """An awaited chat as the source of one that waits."""

    def __init__(self, fleet: Fleet, chat: AsyncChat) -> None:
        self._fleet = fleet
        self._chat = chat

    def piece(self) -> str | None:
        return self._fleet._wait(_next(self._chat))

    def answer(self, text: str) -> FleetAnswer | None:
        return self._chat.answer

    def close(self) -> None:
        if self._fleet._loop is not None:
            self._fleet._loop.call_soon_threadsafe(self._chat.close)


async def _next(chat: AsyncChat) -> str | None:
    async for piece in chat:
        return piece
    return None
