"""Plans: which variants may serve a request, worked out once for all requests that ask for the same.

A plan depends on the catalog, on the measured profiles, on the qualities that are believed, and on the request's
target, contract and shape, and on nothing that changes from one request to the next; so plans are cached, and
rebuilt when the catalog or a belief changes. What is predicted for one request makes a plan of its own.
What depends on the moment (load, deadline, fitted times) is worked out at each choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from semaforo.core.effects import Considered
from semaforo.core.state import Lane, State, VariantBook
from semaforo.entities import Request, StreamProfile, TaskType, Variant
from semaforo.policy import route

_PLANS = 4096
_LANES = 4096


class Choice(msgspec.Struct, gc=False):
    """An eligible variant, with what a choice needs close at hand.

    Attributes:
        id, variant, book: Which.
        quality: 0…1.
        second: US dollars for each second of service.
        fixed_cost: US dollars whatever the service takes (tokens, a price per request).
        cost: US dollars with a service as profiled.
        merit: The utility without its part for latency.
        open: Open, or reserve (`policy.route`).
        stream: Answers in a stream.
        assumed: Nobody measured the quality.
    """

    id: str
    variant: Variant
    book: VariantBook
    quality: float
    second: float
    fixed_cost: float
    cost: float
    merit: float
    open: bool
    stream: bool
    assumed: bool


class Plan(msgspec.Struct):
    """What requests of one kind may be served by. `lane` is -1 in a plan made only to be looked at."""

    task: TaskType
    choices: tuple[Choice, ...]
    ruled_out: tuple[Considered, ...]
    weights: route.Weights
    lane: int


class Planner:
    """Makes plans from a `State`, and the lanes that belong to them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._lanes = {_lane_key(lane): lane.id for lane in state.lanes.values()}

    def forget(self) -> None:
        """Drop all plans, because the catalog or a profile has changed."""
        self._plans.clear()

    def forget_lanes(self) -> None:
        """Drop all plans and every lane that is empty."""
        self.forget()
        state = self.state
        for lane_id in [i for i, lane in state.lanes.items() if not lane.rows]:
            del state.lanes[lane_id]
        self._lanes = {_lane_key(lane): lane.id for lane in state.lanes.values()}

    def plan(self, request: Request, gain: Mapping[str, float] | None = None) -> Plan:
        """Return the plan for a request.

        Args:
            request: What is asked for.
            gain: By variant, how much better than usual it is predicted to do on this request.

        Raises:
            NotFound: The target, version or variant does not exist.
        """
        if gain:
            return self._personal(self.plan(request), request, gain)
        contract = request.contract
        if request.stream or request.prompt_tokens or request.max_tokens:
            return self.make(request, with_lane=True)
        key = (
            request.target, request.version, request.variant, contract.min_quality, contract.max_cost,
            contract.privacy, request.ref.shape, request.ref.rows, request.needs,
        )  # fmt: skip
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            found = self._plans[key] = self.make(request, with_lane=True)
        return found

    def looked_at(self, request: Request, gain: Mapping[str, float]) -> Plan:
        """Return what `plan` does, without a lane, to be looked at only.

        Raises:
            NotFound: As there.
        """
        plan = self.plan(request)
        return self._personal(plan, request, gain, with_lane=False) if gain else plan

    def make(self, request: Request, *, with_lane: bool) -> Plan:
        """Work a plan out; without a lane the state is left untouched."""
        state = self.state
        task = state.catalog.task_of(request.target)
        variants = state.catalog.resolve(request.target, request.version, request.variant)
        kept: list[tuple[Variant, VariantBook, float, float]] = []
        ruled_out: list[Considered] = []
        for variant in variants:
            book = state.variants[variant.id]
            quality = state.believed(variant)
            if quality is not variant.quality:
                variant = msgspec.structs.replace(variant, quality=quality)
            profile = variant.profile
            if isinstance(profile, StreamProfile):
                tokens = route.predicted_tokens(request, book.output_tokens)
                seconds = profile.seconds(request.prompt_tokens, tokens)
            else:
                tokens, seconds = 0.0, profile.seconds(request.ref.rows)
            name, detail = route.ruled_out(variant, request, seconds, tokens)
            if name:
                ruled_out.append(Considered(variant.id, name, detail, quality=float(variant.quality or 0.0)))
            else:
                fixed = route.predicted_cost(variant, request, 0.0, tokens)
                cost = route.predicted_cost(variant, request, seconds, tokens)
                history = state.history.get(variant.id)
                if history is not None and history.planned is not None:
                    if variant.cost.second:
                        # A profile is measured while much is being loaded, and alone: answers know better.
                        cost = fixed + history.planned * (cost - fixed)
                    else:
                        # What a graph costs, its steps have shown: neither a price nor its time says.
                        fixed = cost = history.planned * request.ref.rows
                kept.append((variant, book, cost, fixed))
        choices = _choices(kept, task)
        lane = self._lane(task, choices, request.ref.shape) if with_lane and choices else -1
        return Plan(task, choices, tuple(ruled_out), route.weights_of(task.prefer), lane)

    def narrowed(self, plan: Plan, choices: tuple[Choice, ...], shape: str) -> Plan:
        """Return a plan with some of its choices only, for requests of a shape."""
        return Plan(plan.task, choices, plan.ruled_out, plan.weights, self._lane(plan.task, choices, shape))

    def _personal(
        self, plan: Plan, request: Request, gain: Mapping[str, float], *, with_lane: bool = True
    ) -> Plan:
        """Return a plan with the qualities that are predicted for one request.

        What it may use at least, its contract has settled before, by what variants are usually worth: a promise
        rests on what was measured, not on a prediction.
        """
        kept = []
        for choice in plan.choices:
            quality = min(1.0, max(0.0, choice.quality + gain.get(choice.id, 0.0)))
            variant = msgspec.structs.replace(choice.variant, quality=quality)
            kept.append((variant, choice.book, choice.cost, choice.fixed_cost))
        choices = _choices(kept, plan.task)
        lane = self._lane(plan.task, choices, request.ref.shape) if choices and with_lane else -1
        return Plan(plan.task, choices, plan.ruled_out, plan.weights, lane)

    def _lane(self, task: TaskType, choices: tuple[Choice, ...], shape: str) -> int:
        state = self.state
        lane = Lane(
            id=0,
            task=task.name,
            open=tuple(c.id for c in choices if c.open),
            reserve=tuple(c.id for c in choices if not c.open),
            shape=shape,
        )
        key = _lane_key(lane)
        if (known := self._lanes.get(key)) is not None:
            return known
        if len(state.lanes) >= _LANES:
            self.forget_lanes()
        lane.id = state.next_seq()
        state.lanes[lane.id] = lane
        self._lanes[key] = lane.id
        return lane.id


def _choices(kept: list[tuple[Variant, VariantBook, float, float]], task: TaskType) -> tuple[Choice, ...]:
    qualities = [route.UNKNOWN_QUALITY if v.quality is None else float(v.quality) for v, *_ in kept]
    costs = [cost for _, _, cost, _ in kept]
    best, dearest = max(qualities, default=0.0), max(costs, default=0.0)
    opens = route.open_set([v for v, *_ in kept], costs, task.prefer) if kept else []
    weights = route.weights_of(task.prefer)
    return tuple(
        Choice(
            id=variant.id,
            variant=variant,
            book=book,
            quality=quality,
            second=variant.cost.second,
            fixed_cost=fixed,
            cost=cost,
            merit=weights.quality * (quality / best if best else 0.0)
            + weights.cost * (1.0 - (cost / dearest if dearest else 0.0)),
            open=is_open,
            stream=isinstance(variant.profile, StreamProfile),
            assumed=variant.quality is None,
        )
        for (variant, book, cost, fixed), quality, is_open in zip(kept, qualities, opens, strict=True)
    )


def _lane_key(lane: Lane) -> tuple[object, ...]:
    return lane.task, lane.open, lane.reserve, lane.shape
