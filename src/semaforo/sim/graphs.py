"""A simulated fleet whose graphs run, too: the same flow as in service, with a virtual clock.

Values are made up: a condition holds with a probability, a map has some items, functions and fusions take no time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from semaforo.core.effects import Cancel, DispatcherEffect, Finish, Run
from semaforo.core.events import Arrived, BatchDone, Cancelled
from semaforo.entities import BatchProfile, Ref, ReplicaSpec, Request
from semaforo.graph.flow import Answered, Begin, Drop, Flow, FlowEffect, Loss
from semaforo.graph.graph import RUNTIME, Graph, Step
from semaforo.graph.path import tails
from semaforo.graph.plan import Plan
from semaforo.graph.request import step_request
from semaforo.sim.world import Fault, World


class _Asked(msgspec.Struct):
    """A step that asks: requests that are open, rounds or items that are left."""

    open: set[str]
    left: int
    deadline: float


class GraphRun(msgspec.Struct):
    """One run of a graph.

    Attributes:
        batch: Number it is reported under.
        request: What it answers.
        plan: Of the graph.
        flow: How far it is.
        began: When, in seconds.
    """

    batch: int
    request: Request
    plan: Plan
    flow: Flow
    began: float
    asked: dict[str, _Asked] = {}
    wakes_at: float = float("inf")


class GraphWorld(World):
    """A world with graphs.

    Args:
        holds: Probability that a step with a condition runs.
        items: Most items of a map.
        rest: As of `World`.

    Attributes:
        runs: Runs that have not ended, by batch.
    """

    def __init__(self, *args: Any, holds: float = 0.7, items: int = 6, **rest: Any) -> None:
        self.runs: dict[int, GraphRun] = {}
        self._holds, self._items = holds, items
        self._plans: dict[str, Plan] = {}
        self._steps: dict[str, tuple[int, str]] = {}
        self._made = 0
        super().__init__(*args, **rest)

    def _slots(self, spec: ReplicaSpec) -> int:
        if spec.runtime == RUNTIME:
            return int(spec.options.get("in_flight", 256))
        return super()._slots(spec)

    def _begin(self, run: Run) -> None:
        state = self.dispatcher.state
        variant = state.replicas[run.replica].variant
        template = state.catalog.templates[variant]
        if template.runtime != RUNTIME:
            super()._begin(run)
            return
        plan = self._plans.get(variant)
        if plan is None:
            plan = self._plans[variant] = Plan(msgspec.convert(template.options["graph"], Graph))
        job = state.jobs[run.members[0]]
        takes = {name: self._takes(step) for name, step in plan.steps.items()}
        after, least = tails(plan, takes), tails(plan, takes, least=True)
        flow = Flow(plan, job.deadline, after, takes, least)
        self._running[run.batch] = (run, self.now)
        going = self.runs[run.batch] = GraphRun(run.batch, job.request, plan, flow, self.now)
        # As in service, in the next round: the dispatcher is never told anything from within its effects.
        self.at(self.now, partial(self._first, going))

    def _takes(self, step: Step) -> float:
        catalog = self.dispatcher.state.catalog
        if step.kind not in ("ask", "loop"):
            return 0.0
        profiles = [v.profile for v in catalog.resolve(step.target)]
        return max((p.seconds(1) for p in profiles if isinstance(p, BatchProfile)), default=0.0)

    def _first(self, run: GraphRun) -> None:
        if run.batch in self.runs:
            self._flow(run, run.flow.begin(self.now))

    def _flow(self, run: GraphRun, effects: list[FlowEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Begin):
                self._begin_step(run, run.plan.steps[effect.step], effect.deadline)
            elif isinstance(effect, Drop):
                self._drop(run, effect.step)
            else:
                self._report(run, effect)
        at = run.flow.next_deadline()
        if at is not None and at < run.wakes_at and run.batch in self.runs:
            run.wakes_at = at
            self.at(max(at, self.now), partial(self._wake, run))

    def _wake(self, run: GraphRun) -> None:
        run.wakes_at = float("inf")
        if run.batch in self.runs:
            self._flow(run, run.flow.tick(self.now))

    def _report(self, run: GraphRun, end: Any) -> None:
        failed: tuple[tuple[str, str, str, float], ...] = ()
        if not isinstance(end, Answered):
            failed = ((run.request.id, end.code, end.message, end.retry_after_s),)
        del self.runs[run.batch]
        self.at(self.now, BatchDone(run.batch, self.now - run.began, failed=failed))

    # --- steps -----------------------------------------------------------------------------------------

    def _begin_step(self, run: GraphRun, step: Step, deadline: float) -> None:
        if step.when and self._random.random() >= self._holds:
            self.at(self.now, partial(self._skipped, run, step.name))
        elif run.flow.hopeless(step.name, self.now):
            self.at(self.now, partial(self._late, run, step.name))
        elif step.kind in ("call", "fuse", "verify"):
            self.at(self.now, partial(self._done, run, step.name))
        else:
            count = 1
            if step.each:
                count = self._random.randint(1, self._items)
            elif step.kind == "loop":
                count = self._random.randint(1, step.most)
            run.asked[step.name] = _Asked(set(), count, deadline)
            for _ in range(min(count, step.at_once) if step.each else 1):
                self._ask(run, step)

    def _ask(self, run: GraphRun, step: Step) -> None:
        asked = run.asked[step.name]
        asked.left -= 1
        self._made += 1
        request_id = f"{run.request.id}/{step.name}.{self._made}"
        asked.open.add(request_id)
        self._steps[request_id] = (run.batch, step.name)
        request = step_request(step, run.request, request_id, Ref(run.request.ref.rows), asked.deadline, 0.0)
        self.at(self.now, partial(self._arrive, request))

    def _arrive(self, request: Request) -> None:
        # What was dropped in this very moment is not asked any more.
        if request.id in self._steps:
            self.tell(Arrived(request))

    def _skipped(self, run: GraphRun, name: str) -> None:
        if run.batch in self.runs:
            self._flow(run, run.flow.skipped(name, self.now))

    def _late(self, run: GraphRun, name: str) -> None:
        if run.batch in self.runs:
            self._flow(run, run.flow.missing(name, run.flow.late(name, self.now), self.now))

    def _done(self, run: GraphRun, name: str) -> None:
        if run.batch not in self.runs:
            return
        effects = run.flow.done(name, self.now)
        for fusion in run.flow.open_fusions(name):
            if len(run.flow.present(fusion)) >= run.plan.steps[fusion].quorum:
                effects += run.flow.agreed(fusion, self.now)
        self._flow(run, effects)

    def _drop(self, run: GraphRun, name: str) -> None:
        asked = run.asked.pop(name, None)
        for request_id in sorted(asked.open) if asked else ():
            self._steps.pop(request_id, None)
            self.at(self.now, Cancelled(request_id))

    # --- what the dispatcher says ----------------------------------------------------------------------

    def _act(self, effect: DispatcherEffect) -> None:
        if isinstance(effect, Cancel) and effect.batch in self.runs:
            self._stop(self.runs[effect.batch])
        super()._act(effect)
        if isinstance(effect, Finish) and effect.request in self._steps:
            batch, name = self._steps.pop(effect.request)
            run = self.runs.get(batch)
            if run is not None:
                self.at(self.now, partial(self._answered, run, name, effect))

    def _answered(self, run: GraphRun, name: str, finish: Finish) -> None:
        asked = run.asked.get(name)
        if run.batch not in self.runs or asked is None:
            return
        asked.open.discard(finish.request)
        step = run.plan.steps[name]
        if finish.outcome != "done":
            self._drop(run, name)
            loss = Loss(finish.code or "internal", finish.message, finish.retry_after_s or 0.0)
            self._flow(run, run.flow.missing(name, loss, self.now))
        elif asked.left:
            self._ask(run, step)
        elif not asked.open:
            del run.asked[name]
            self._done(run, name)

    def _stop(self, run: GraphRun) -> None:
        del self.runs[run.batch]
        run.flow.over = True
        for name in list(run.asked):
            self._drop(run, name)

    def _fault(self, fault: Fault) -> None:
        if fault.kind == "crash":
            for batch, (run, _) in list(self._running.items()):
                if run.replica == fault.replica and batch in self.runs:
                    self._stop(self.runs[batch])
        super()._fault(fault)
