"""A replica that is a graph: its work is to ask other models, and to make one answer of theirs.

It holds no device. What its runs have to do next is kept in one line and done in rounds of the loop, so that the
steps of many runs are asked together and share batches; short models answer within the round.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any

import msgspec
import numpy as np

from semaforo.core.events import BatchFailed
from semaforo.entities import ReplicaSpec, StreamProfile
from semaforo.errors import RuntimeLoadError, SemaforoError
from semaforo.graph.graph import Graph
from semaforo.graph.values import Array, Values
from semaforo.live.conductor import Conductor, GraphSink
from semaforo.live.graph_chat import first_text
from semaforo.live.graph_parts import Parts
from semaforo.live.graph_run import GraphRun
from semaforo.live.graph_work import work
from semaforo.live.handle import Started
from semaforo.live.sessions import Sessions
from semaforo.wire.payload import ChatChunk, Payload, Tensors

ROUND_S = 0.002
"""Seconds after which a round lets the loop read its sockets."""
_RESOLUTION_S = 0.001
_FIRST_S = 0.01


class GraphReplica:
    """Runs a graph, many requests at once.

    Args:
        spec: Its options hold the graph, as plain data, and how many requests run at once.
        sink: Who hears what becomes of requests.
        conductor: The engine that its steps are asked of.
        sessions: What sessions remember.
    """

    def __init__(self, spec: ReplicaSpec, sink: GraphSink, conductor: Conductor, sessions: Sessions) -> None:
        self._spec = spec
        self._sink = sink
        self._conductor = conductor
        self._sessions = sessions
        self._parts: Parts
        self._runs: dict[int, GraphRun] = {}
        self._todo: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._timers: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> Started:
        """Check the graph and load its functions.

        Raises:
            SemaforoError: It cannot run.
        """
        try:
            graph = msgspec.convert(self._spec.options["graph"], Graph)
        except (KeyError, msgspec.ValidationError) as error:
            raise RuntimeLoadError(f"'{self._spec.variant}' holds no graph: {error}") from None
        self._parts = parts = Parts(
            graph, self._conductor, self._sessions, float(self._spec.options.get("forget_s", 600.0))
        )
        parts.report, parts.chunk, parts.wake_at, parts.work = self._report, self._chunk, self._wake_at, work
        for function in parts.functions.values():
            await asyncio.to_thread(function.load)
        slots = int(self._spec.options.get("in_flight", 256))
        profile = None
        if parts.task.kind == "chat":
            profile = StreamProfile(slots=slots)
            if parts.plan.escalations:
                # How long it takes is up to the deadline: each step is held against what is left of it.
                profile = StreamProfile(first_s=_FIRST_S, token_s=0.0, slots=slots)
        return Started(profile, None, 0, os.getpid(), "graph", slots, shared=False)

    def run(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        """Begin one request in the next round."""
        self._soon(partial(self._begin, batch, members[0]))

    def cancel(self, batch: int) -> None:
        """Stop a request and all it has asked."""
        self._soon(partial(self._cancel, batch))

    async def stop(self, grace_s: float) -> None:
        """Stop what still runs."""
        for batch in list(self._runs):
            self._cancel(batch)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for function in self._parts.functions.values() if hasattr(self, "_parts") else ():
            function.close()

    # --- rounds ----------------------------------------------------------------------------------------

    def _soon(self, act: Callable[[], None]) -> None:
        self._todo.append(act)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        todo, conductor = self._todo, self._conductor
        until = conductor.now() + ROUND_S
        while todo:
            while todo:
                todo.popleft()()
            # What was asked in this round is a batch by now: short models answer it at once.
            conductor.hurry()
            if conductor.now() >= until:
                break
        self._scheduled = False
        if todo:
            self._scheduled = True
            self._loop.call_soon(self._round)

    def _wake_at(self, run: GraphRun, at: float) -> None:
        heappush(self._timers, (at, run.batch))
        if self._timers[0] == (at, run.batch):
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timers:
            wait = self._timers[0][0] - self._conductor.now()
            self._timer = self._loop.call_later(max(_RESOLUTION_S, wait), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._conductor.now()
        timers = self._timers
        while timers and timers[0][0] <= now:
            run = self._runs.get(heappop(timers)[1])
            if run is not None:
                self._soon(run.tick)
        while timers and timers[0][1] not in self._runs:
            heappop(timers)
        self._arm()

    # --- runs ------------------------------------------------------------------------------------------

    def _begin(self, batch: int, payload: Payload) -> None:
        asked = self._conductor.asked(batch)
        if asked is None or self._closed:
            self._sink.batch_failed(BatchFailed(batch, "cancelled", "the request was cancelled"))
            return
        parts = self._parts
        body = None
        if isinstance(payload, Tensors):
            values = Values(payload.rows, payload.arrays, parts.remembered(asked.request))
            parameters = payload.parameters
        else:
            body, parameters = payload.body, {}
            values = Values(1, _chat_inputs(body), parts.remembered(asked.request))
        run = self._runs[batch] = GraphRun(parts, batch, asked, values, parameters, self._soon, body)
        try:
            run.begin()
        except Exception as error:
            self._report(run, SemaforoError(f"{type(error).__name__}: {error}"), 0.0)

    def _cancel(self, batch: int) -> None:
        run = self._runs.pop(batch, None)
        if run is not None:
            run.cancel()
            self._sink.batch_failed(BatchFailed(batch, "cancelled", "the request was cancelled"))

    def _report(self, run: GraphRun, result: Tensors | SemaforoError, seconds: float) -> None:
        if self._runs.pop(run.batch, None) is None:
            return
        without = run.without()
        if without:
            self._conductor.lost(run.request_id, without)
        if isinstance(result, Tensors) and run.voice is not None:
            try:
                run.voice.end(first_text(result.arrays["text"]))
            except SemaforoError as error:
                result = error
        self._sink.graph_done(run.batch, result, seconds, run.cost)

    def _chunk(self, run: GraphRun, chunk: ChatChunk) -> None:
        self._sink.chunk(run.batch, chunk)


def _chat_inputs(body: dict[str, Any]) -> dict[str, Array]:
    messages = body.get("messages") or []
    kept = {"text": _last_text(messages).encode(), "messages": msgspec.json.encode(messages)}
    return {name: np.array([value], object) for name, value in kept.items()}


def _last_text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1].get("content") if messages else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
