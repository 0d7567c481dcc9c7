"""One request on its way through a graph: values in, steps begun, an answer out.

What a step is, and when it begins, is decided by `graph.flow`; this carries it out. Whatever the engine calls back
only notes what happened; the replica's next round acts on it, since the engine is never entered twice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from semaforo.core.effects import Finish
from semaforo.entities import Ref, Request
from semaforo.errors import InvalidRequest, SemaforoError, error_from
from semaforo.graph.flow import Answered, Begin, Drop, Failed, Flow, FlowEffect, Loss, Phase
from semaforo.graph.fusion import METHODS
from semaforo.graph.fusion.rows import agreeing_rows, fuse_rows
from semaforo.graph.graph import Step
from semaforo.graph.request import step_request
from semaforo.graph.values import Array, Given, Values, whole
from semaforo.live.answer import Answer
from semaforo.live.conductor import Asked
from semaforo.live.graph_parts import Parts
from semaforo.live.graph_voice import Voice
from semaforo.observe.explain import Looked
from semaforo.wire.payload import Tensors

Act = Callable[[], None]
Worked = tuple[dict[str, Array], Array | None]
"""What a step gave, and the rows it gave it for; None = all."""
_NEVER = float("inf")
_WORDLESS = (Phase.SKIPPED, Phase.MISSING, Phase.DROPPED)
_INNER = re.compile(r"step '([\w.]+)': (.*)", re.DOTALL)


class GraphRun:
    """One run.

    Args:
        parts: What all runs of the graph share.
        batch: Number the answer is reported under.
        asked: The request.
        values: Its inputs.
        parameters: What every step passes on as it came.
        soon: Lets something happen in the replica's next round.
        body: Body of the chat, where the graph answers one.
    """

    def __init__(
        self,
        parts: Parts,
        batch: int,
        asked: Asked,
        values: Values,
        parameters: dict[str, Any],
        soon: Callable[[Act], None],
        body: dict[str, Any] | None = None,
    ) -> None:
        self.batch = batch
        self.cost = 0.0
        self.parameters = parameters
        self.body = body
        self.conductor = parts.conductor
        self._parts = parts
        self._asked = asked
        self._values = values
        self._soon = soon
        self._begun = self.conductor.now()
        self.flow = Flow(parts.plan, asked.deadline_at, *parts.shares(values.rows))
        self._running: dict[str, list[str]] = {}
        self._tasks: dict[str, asyncio.Future[None]] = {}
        self._said: dict[str, Finish] = {}
        self._without: list[str] = []
        self._wakes_at = _NEVER
        self.voice = self._voice(body) if body is not None else None

    def _voice(self, body: dict[str, Any]) -> Voice:
        parts, asked = self._parts, self._asked

        def certain(step: str) -> bool:
            if len(parts.speakers) == 1:
                return True
            earlier = parts.speakers[: parts.speakers.index(step)]
            nobody = all(self.flow.phases[one] in _WORDLESS for one in earlier)
            return nobody and parts.firm and asked.deadline_at == _NEVER

        live = bool(body.get("stream")) or len(parts.speakers) == 1
        send = partial(parts.chunk, self)
        return Voice(parts.speakers, certain, send, restart=parts.graph.stream == "restart", live=live)

    # --- life ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin the first steps."""
        self._act(self.flow.begin(self.conductor.now()))

    def tick(self) -> None:
        """Begin what was held back until now."""
        self._wakes_at = _NEVER
        self._act(self.flow.tick(self.conductor.now()))

    def cancel(self) -> None:
        """Stop every step; nothing is reported."""
        self.flow.over = True
        for step in [*self._running, *self._tasks]:
            self._drop(step)

    # --- effects ---------------------------------------------------------------------------------------

    def _act(self, effects: list[FlowEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Begin):
                self._begin_step(self._parts.plan.steps[effect.step], effect.deadline)
            elif isinstance(effect, Drop):
                self._drop(effect.step)
            elif isinstance(effect, Answered):
                self._answer()
            else:
                self._fail(effect)
        at = self.flow.next_deadline()
        if at is not None and at < self._wakes_at:
            self._wakes_at = at
            self._parts.wake_at(self, at)

    def _drop(self, step: str) -> None:
        for request_id in self._running.pop(step, ()):
            self.conductor.cancel(request_id)
        task = self._tasks.pop(step, None)
        if task is not None:
            task.cancel()

    def _answer(self) -> None:
        parts = self._parts
        try:
            arrays = {
                name: self._cast(name, whole(self._values.get(reference), self._values.rows, name))
                for name, reference in parts.answer.items()
            }
            parts.remember(self._asked.request, self._values)
        except InvalidRequest as error:
            parts.report(self, SemaforoError(error.message), self._seconds())
            return
        parts.report(self, Tensors(arrays, without=self.without()), self._seconds())

    def _cast(self, name: str, array: Array) -> Array:
        edge = self._parts.ends.get(name)
        if edge is None:
            return array
        if edge.dtype:
            array = array.astype(edge.dtype)
        return array if edge.shape is None else array.reshape(len(array), *edge.shape)

    def _fail(self, effect: Failed) -> None:
        error = error_from(effect.code, effect.message, effect.retry_after_s or None)
        error.message = _placed(effect.step, effect.message)
        self._parts.report(self, error, self._seconds())

    def _seconds(self) -> float:
        return self.conductor.now() - self._begun

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self._asked.request.id

    def late(self, deadline: float) -> bool:
        """Tell whether a moment has passed."""
        return self.conductor.now() >= deadline

    def without(self) -> tuple[str, ...]:
        """Return what the answer had to do without: steps, and why."""
        lost = (f"{step}: {loss.code}" for step, loss in self.flow.without.items())
        return (*lost, *self._without)

    # --- steps -----------------------------------------------------------------------------------------

    def _begin_step(self, step: Step, deadline: float) -> None:
        if self.flow.over:
            return
        name = step.name
        try:
            if step.kind == "fuse":
                self._fuse(step)
                return
            given = self._values.given(self._parts.edges[name], self._parts.conditions.get(name))
        except InvalidRequest as error:
            self._lost(name, error)
            return
        except Exception as error:
            self._lost(name, SemaforoError(f"{type(error).__name__}: {error}"))
            return
        if step.when:
            self._saw(Looked(name, given.count if given is not None else 0, self._values.rows))
        if given is None:
            self._soon(partial(self._skipped, name))
        elif self._hopeless(name, given):
            self._soon(partial(self._missing, name, self.flow.late(name, self.conductor.now())))
        elif step.kind in ("call", "verify"):
            self._parts.functions[name].call(given.arrays, given.count, partial(self._called, step, given))
        else:
            self._ask(step, given, deadline)

    def _hopeless(self, name: str, given: Given) -> bool:
        """Tell whether a step cannot end in time, and others have an answer for each of its rows."""
        fusions = self.flow.hopeless(name, self.conductor.now())
        return bool(fusions) and all(self._covered(fusion, given) for fusion in fusions)

    def _covered(self, fusion: str, given: Given) -> bool:
        there = np.zeros(self._values.rows, bool)
        for member in self.flow.present(fusion):
            value = self._values.get(member)
            if value is not None:
                there[slice(None) if value.rows is None else value.rows] = True
        return bool(there.all() if given.rows is None else there[given.rows].all())

    def _fuse(self, step: Step) -> None:
        members = {name: self._values.outputs(name) for name in self.flow.present(step.name)}
        method = METHODS[step.target]
        weights = self._parts.weights(step, members)
        arrays, rows = fuse_rows(method, members, self._values.rows, weights, self._parts.options[step.name])
        self._parts.fused(step, members, arrays, rows, self._said)
        self._keep(step, arrays, rows)

    def _skipped(self, name: str) -> None:
        self._act(self.flow.skipped(name, self.conductor.now()))

    def _lost(self, name: str, error: SemaforoError) -> None:
        loss = Loss(error.code, error.message, error.retry_after_s or 0.0)
        self._soon(partial(self._missing, name, loss))

    def _missing(self, name: str, loss: Loss) -> None:
        self._act(self.flow.missing(name, loss, self.conductor.now()))

    def _keep(self, step: Step, arrays: Mapping[str, Array], rows: Array | None) -> None:
        self._values.put(step.name, arrays, rows)
        self._soon(partial(self._done, step.name))

    def _done(self, name: str) -> None:
        now = self.conductor.now()
        self._running.pop(name, None)
        self._tasks.pop(name, None)
        effects = self.flow.done(name, now)
        for fusion in self.flow.open_fusions(name):
            if self._agrees(self._parts.plan.steps[fusion]):
                effects += self.flow.agreed(fusion, now)
        self._act(effects)

    def _agrees(self, step: Step) -> bool:
        present = self.flow.present(step.name)
        if len(present) < step.quorum:
            return False
        members = {name: self._values.outputs(name) for name in present}
        weights = self._parts.weights(step, members)
        method = METHODS[step.target]
        options = self._parts.options[step.name]
        return agreeing_rows(method, members, self._values.rows, weights, options) >= step.quorum

    # --- asking ----------------------------------------------------------------------------------------

    def request(self, step: Step, ref: Ref, deadline: float, *, stream: bool = False) -> Request:
        """Return the request by which a step asks its target: all of the contract goes with it."""
        new_id = self.conductor.new_id()
        return step_request(step, self._asked.request, new_id, ref, deadline, self.cost, stream=stream)

    def _ask(self, step: Step, given: Given, deadline: float) -> None:
        if step.name in self._parts.chats or step.kind == "loop" or step.each:
            work = self._parts.work(self, step, given, deadline)
            task = self._tasks[step.name] = asyncio.ensure_future(work)
            task.add_done_callback(partial(self._worked, step))
            return
        request = self.request(step, self._parts.ref(step, given.arrays, given.count), deadline)
        self._running[step.name] = [request.id]
        tensors = Tensors(given.arrays, self.parameters)
        self.conductor.submit(request, tensors, partial(self._answered, step, given.rows))

    async def ask(self, step: Step, arrays: dict[str, Array], count: int, deadline: float) -> Answer:
        """Ask a step's target once and wait; cancelling the wait cancels what was asked."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def settle(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        request = self.request(step, self._parts.ref(step, arrays, count), deadline)
        self.conductor.submit(request, Tensors(arrays, self.parameters), settle)
        try:
            answer = await future
        except asyncio.CancelledError:
            self.conductor.cancel(request.id)
            raise
        self.cost += answer.finish.cost
        if not answer.ok:
            raise answer.error()
        self._note(step.name, answer)
        return answer

    def _answered(self, step: Step, rows: Array | None, answer: Answer) -> None:
        self._running.pop(step.name, None)
        if self.flow.over:
            return
        self.cost += answer.finish.cost
        if answer.result is not None and answer.ok:
            self._said[step.name] = answer.finish
            self._note(step.name, answer)
            self._keep(step, answer.result.arrays, rows)
        else:
            self._lost(step.name, answer.error())

    def _note(self, name: str, answer: Answer) -> None:
        if answer.result is not None and answer.result.without:
            self._without += [f"{name}.{lost}" for lost in answer.result.without]

    def _called(self, step: Step, given: Given, result: dict[str, Array] | SemaforoError) -> None:
        if self.flow.over:
            return
        if isinstance(result, SemaforoError):
            self._lost(step.name, result)
            return
        if step.kind == "verify":
            gain, trust = result["gain"], float(result["trust"].mean())
            self._saw(
                Looked(step.name, given.count, self._values.rows, float(gain.min()), float(gain.max()), trust)
            )
        self._keep(step, result, given.rows)

    def _saw(self, looked: Looked) -> None:
        self.conductor.looked(self.request_id, looked)

    def _worked(self, step: Step, task: asyncio.Future[Any]) -> None:
        if task.cancelled() or self.flow.over:
            return
        self._tasks.pop(step.name, None)
        error = task.exception()
        if error is None:
            arrays, rows = task.result()
            self._keep(step, arrays, rows)
        elif isinstance(error, SemaforoError):
            self._lost(step.name, error)
        else:
            self._lost(step.name, SemaforoError(f"{type(error).__name__}: {error}"))


def _placed(step: str, message: str) -> str:
    inner = _INNER.match(message)
    if inner is not None:
        return f"step '{step}.{inner[1]}': {inner[2]}"
    return f"step '{step}': {message}"
