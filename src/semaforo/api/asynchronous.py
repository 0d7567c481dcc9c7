"""A fleet inside an asyncio program."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from semaforo.api.answer import FleetAnswer, Served, Story
from semaforo.api.auto import fits
from semaforo.api.chat import AsyncChat
from semaforo.api.contract import contract_of
from semaforo.api.function import catalog_of_functions
from semaforo.api.graph import Graph
from semaforo.api.inputs import outputs_of, tensors_of
from semaforo.api.opinion import opinion_of, request_of
from semaforo.build import Secrets, blueprint, engine_for, with_graphs
from semaforo.catalog import Catalog
from semaforo.core.effects import Decided
from semaforo.entities import Contract, Request, TaskType
from semaforo.errors import InvalidRequest, NotFound, NotReady
from semaforo.features import chat_affinity, chat_needs, chat_tokens
from semaforo.features.plan import Sources
from semaforo.live.answer import Answer
from semaforo.live.auto import is_auto, of_chat, of_tensors
from semaforo.live.crew import ReplicaStatus
from semaforo.live.engine import Engine
from semaforo.live.journal import locked
from semaforo.live.stream import Stream
from semaforo.observe.explain import Explanation, render
from semaforo.repository.history import in_use
from semaforo.repository.routers import Routed
from semaforo.routing.tasks import TaskModel
from semaforo.wire.openai import parse_chat
from semaforo.wire.payload import Chat, Restart, Tensors

log = logging.getLogger("semaforo.fleet")


class AsyncFleet:
    """A fleet of models in this program, used with ``async with``; its methods are those of `AnyAsyncFleet`.

    Attributes:
        engine: The engine behind it, once opened.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        journal: Path | None = None,
        ring: int = 4096,
        secrets: Secrets | None = None,
        history: Path | None = None,
        routers: Mapping[str, Routed] | None = None,
        tasks: TaskModel | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.engine = engine_for(journal, ring, secrets, history, routers, tasks, sources)
        self._catalog = catalog
        self._running = False

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
        if path is None:
            return cls.of(graphs=graphs)
        plan = blueprint(path)
        written = plan.journal if journal else None
        if written is not None and locked(written):
            log.warning("the journal %s is being written by another fleet: this one keeps none", written)
            written = None
        history = plan.history
        if history is not None and in_use(history):
            log.warning("the history %s is kept by another fleet: what this one learns is not kept", history)
            history = None
        catalog = with_graphs(plan.catalog, [graph.served() for graph in graphs])
        return cls(
            catalog,
            journal=written,
            ring=plan.ring,
            secrets=plan.secrets,
            history=history,
            routers=plan.routers,
            tasks=plan.tasks,
            sources=plan.sources,
        )

    @classmethod
    def of(cls, *functions: Callable[..., Any], graphs: Sequence[Graph] = ()) -> Self:
        """Return the fleet of these functions, each under ``@semaforo.model``, and of graphs of them.

        Raises:
            ConfigError: A function is no model, two of one task do not fit together, or a graph does not fit them.
        """
        return cls(with_graphs(catalog_of_functions(functions), [graph.served() for graph in graphs]))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Load all models.

        Raises:
            NotReady: Not one replica could be started; the message says why.
        """
        await self.engine.start(self._catalog)
        self._running = True
        replicas = self.engine.replicas()
        if replicas and not any(status.state == "ready" for status in replicas):
            reasons = "; ".join(f"{s.id}: {s.last_error or s.state}" for s in replicas)
            await self.close()
            raise NotReady(f"no model could be loaded: {reasons}")

    async def close(self, grace_s: float = 10.0) -> None:
        """Finish what runs within `grace_s` seconds, then stop."""
        self._running = False
        await self.engine.stop(grace_s)

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
        **named: Any,
    ) -> FleetAnswer:
        """See `AnyFleet.infer`."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        request, tensors, single = self._request(
            target, version, variant, contract, {**(inputs or {}), **named}
        )
        tensors.parameters = dict(parameters or {})
        answer = await self.engine.infer(request, tensors)
        if not answer.ok:
            raise answer.error()
        return self._answer(answer, outputs_of(answer.result or Tensors({}), single))

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
        """See `AnyFleet.decide`."""
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant)
        values = {**(inputs or {}), **named}
        if values:
            return self._open().decide(self._request(target, version, variant, contract, values)[0])
        return self._open().decide(Request(self.engine.new_id(), target, version, variant, contract))

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
        """See `AnyFleet.chat`."""
        engine = self._open()
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        inferred = None
        if is_auto(engine.catalog, target):
            inferred = of_chat(engine.catalog, engine.tasks, {"messages": said})
            target = inferred.task
        if engine.catalog.task_of(target).kind != "chat":
            raise InvalidRequest(f"'{target}' takes tensors: ask it by infer")
        call = parse_chat({**fields, "model": target, "messages": said, "stream": True})
        contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant, cache)
        request = Request(
            engine.new_id(),
            target,
            contract=contract,
            stream=True,
            needs=chat_needs(call.body),
            prompt_tokens=chat_tokens(call.body),
            max_tokens=call.max_tokens,
            affinity=chat_affinity(call.body, tenant),
        )
        if inferred is not None:
            engine.inferred(request.id, inferred)
        stream = engine.stream(request, Chat(call.body))
        await stream.first()
        return AsyncChat(_Chatting(stream, self._answer))

    async def explain(self, request_id: str) -> str:
        """See `AnyFleet.explain`."""
        explanation = self._open().explanation(request_id)
        if explanation is None:
            raise NotFound(f"no request '{request_id}' is kept: it is unknown, or too long ago")
        return render(explanation)

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
        """See `AnyFleet.feedback`."""
        self._open().learning.feedback(request_of(answer), opinion_of(score, correct, label, better_than))

    async def names(self) -> list[str]:
        """See `AnyFleet.names`."""
        catalog = self._open().catalog
        return sorted({*catalog.tasks, *catalog.models(), *catalog.aliases})

    async def tasks(self) -> list[TaskType]:
        """See `AnyFleet.tasks`."""
        return list(self._open().catalog.tasks.values())

    async def replicas(self) -> list[ReplicaStatus]:
        """See `AnyFleet.replicas`."""
        return self._open().replicas()

    async def ready(self, target: str = "") -> bool:
        """See `AnyFleet.ready`."""
        engine = self._open()
        return any(engine.ready(name) for name in ([target] if target else engine.catalog.tasks))

    def _open(self) -> Engine:
        if not self._running:
            raise NotReady("the fleet is not open: use it inside `with` (or `async with`)")
        return self.engine

    def _request(
        self, target: str, version: str, variant: str, contract: Contract, values: Mapping[str, Any]
    ) -> tuple[Request, Tensors, bool]:
        engine = self._open()
        if is_auto(engine.catalog, target):
            return self._auto(contract, values)
        task = engine.catalog.task_of(target)
        if task.kind == "chat":
            raise InvalidRequest(f"'{target}' chats: ask it by chat")
        engine.catalog.resolve(target, version, variant)
        tensors, ref, single = tensors_of(task, values)
        return Request(engine.new_id(), target, version, variant, contract, ref), tensors, single

    def _auto(self, contract: Contract, values: Mapping[str, Any]) -> tuple[Request, Tensors, bool]:
        engine = self._open()
        tasks = (task for task in engine.catalog.tasks.values() if task.kind != "chat")
        fit = {task.name: found for task, found in fits(tasks, values)}
        arrays = next(iter(fit.values()))[0].arrays if fit else {}
        found = of_tensors(engine.tasks, list(fit), arrays)
        tensors, ref, single = fit[found.task]
        request = Request(engine.new_id(), found.task, contract=contract, ref=ref)
        engine.inferred(request.id, found)
        return request, tensors, single

    def _answer(self, answer: Answer, outputs: Mapping[str, Any]) -> FleetAnswer:
        finish = answer.finish
        explained = self.engine.ring.later(finish.request)
        who = answer.model, answer.version, answer.variant, finish.replica, finish.request
        served = Served(*who, finish.total_s, answer.without)
        return FleetAnswer(outputs, served, lambda: _story(explained(), finish.cost))


class _Chatting:
    """A stream of the engine as the source of a chat."""

    def __init__(self, stream: Stream, finish: Callable[[Answer, Mapping[str, Any]], FleetAnswer]) -> None:
        self._stream = stream
        self._finish = finish

    async def piece(self) -> str | None:
        async for chunk in self._stream:
            text = chunk.delta.get("content")
            if text:
                return Restart(text) if chunk.restart else str(text)
        return None

    def answer(self, text: str) -> FleetAnswer | None:
        ended = self._stream.answer
        return None if ended is None else self._finish(ended, {"text": text})

    def close(self) -> None:
        self._stream.close()


def _story(explanation: Explanation | None, cost: float) -> Story:
    return Story(render(explanation) if explanation else "the decision is no longer kept", cost)
