"""Explanations: a bounded ring of what was decided for each request, and how to write one for a person."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from semaforo.core.effects import Considered, Decided, DispatcherEffect, Finish
from semaforo.core.events import Arrived, DispatcherEvent, Feedback
from semaforo.entities import Contract, Request
from semaforo.entities.contract import Priority, Privacy
from semaforo.entities.units import show_dollars, show_duration
from semaforo.wire.completion import request_of_answer

_DEEPEST = 8


class Without(msgspec.Struct, frozen=True):
    """What the answer of a graph had to do without, each with the reason."""

    lost: tuple[str, ...]


CACHE = "cache"
"""Stands for the replica in answers that were kept, and given to the very same request."""


class Likened(msgspec.Struct, frozen=True):
    """That a request was like one whose answer is kept.

    Attributes:
        likeness: Cosine of the two.
        threshold: From which on the answer is given; None while that is being learned.
        given: Whether it was.
        pairs: How many the threshold was learned from.
    """

    likeness: float
    threshold: float | None
    given: bool
    pairs: int


class Looked(msgspec.Struct, frozen=True):
    """What a step of a graph saw of its rows.

    Attributes:
        step: Its name.
        rows: Rows it ran for, or looked at.
        of: Rows of the request.
        least, most: Of a verifier: least and most gain that it predicts.
        trust: Of a verifier: mean trust; None for a step with a condition.
    """

    step: str
    rows: int
    of: int
    least: float = 0.0
    most: float = 0.0
    trust: float | None = None


class Drifted(msgspec.Struct, frozen=True):
    """How far a request is from what its models were measured on: the share of its features out of range."""

    share: float


class Explanation(msgspec.Struct):
    """Everything decided about one request, in order, and how it ended.

    Attributes:
        request: As it arrived.
        decided: What was decided about it.
        finish: How it ended, None while it has not.
        steps: Of a graph: what became of each request that its steps made, in order.
        without: Of a graph: what its answer had to do without, each with the reason.
        looked: Of a graph: for how many rows conditions held, and what verifiers said.
        feedback: What its answer was said to be worth.
        inferred: Probability (0…1) of its task, where it named none.
        drift: Share (0…1) of its features out of the range that its models were measured on, where that is known.
        likened: How like one it was whose answer is kept.
    """

    request: Request
    decided: list[Decided] = []
    finish: Finish | None = None
    steps: list[Explanation] = []
    without: tuple[str, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    looked: tuple[Looked, ...] = ()
    inferred: float | None = None
    likened: Likened | None = None
    drift: float | None = None


Kept = Request | Decided | Finish | Without | Feedback | Likened | Looked | Drifted


class Ring:
    """The last `size` explanations; the oldest is forgotten first."""

    def __init__(self, size: int = 4096) -> None:
        self.size = size
        # As it comes: the request, what was decided, how it ended. Made an `Explanation` when somebody asks.
        self._kept: dict[str, list[Kept]] = {}
        # The ids again, in order: finding the first key of a dict that is emptied from the front is not O(1).
        self._order: deque[str] = deque()
        self._inferred: dict[str, float] = {}

    def fold(self, event: DispatcherEvent, effects: Sequence[DispatcherEffect]) -> None:
        """Take in one event and its effects; O(1) each."""
        if isinstance(event, Arrived):
            self.arrived(event.request)
        for effect in effects:
            if isinstance(effect, Decided):
                self.decided(effect)
            elif isinstance(effect, Finish):
                self.finished(effect)

    def arrived(self, request: Request) -> None:
        """Take in a request."""
        self._kept[request.id] = [request]
        self._order.append(request.id)
        if request.step is not None:
            parent = self._kept.get(request.step.parent)
            if parent is not None:
                parent.append(request)
        if len(self._order) > self.size:
            self._kept.pop(self._order.popleft(), None)

    def decided(self, effect: Decided) -> None:
        """Take in a decision."""
        found = self._kept.get(effect.request)
        if found is not None:
            found.append(effect)

    def finished(self, effect: Finish) -> None:
        """Take in a terminal answer."""
        found = self._kept.get(effect.request)
        if found is not None:
            found.append(effect)

    def lost(self, request_id: str, lost: tuple[str, ...]) -> None:
        """Take in what a graph had to do without."""
        found = self._kept.get(request_id)
        if found is not None:
            found.append(Without(lost))

    def likened(self, request_id: str, likened: Likened) -> None:
        """Take in how like another request one is."""
        found = self._kept.get(request_id)
        if found is not None:
            found.append(likened)

    def looked(self, request_id: str, looked: Looked) -> None:
        """Take in what a step of a graph saw."""
        found = self._kept.get(request_id)
        if found is not None:
            found.append(looked)

    def get(self, request_id: str) -> Explanation | None:
        """Return the explanation of a request by its id or its answer's, or by the only id that begins so."""
        request_id = request_of_answer(request_id)
        found = self._kept.get(request_id)
        if found is None and request_id:
            starts = [e for i, e in self._kept.items() if i.startswith(request_id)]
            found = starts[0] if len(starts) == 1 else None
        return None if found is None else self._explanation(found)

    def find(self, request_id: str) -> Explanation | None:
        """Return the explanation of a request by its whole id."""
        found = self._kept.get(request_id)
        return None if found is None else self._explanation(found)

    def inferred(self, request_id: str, probability: float) -> None:
        """Take in how the task of a request was found, before it arrives."""
        if len(self._inferred) > self.size:
            self._inferred.pop(next(iter(self._inferred)))
        self._inferred[request_id] = probability

    def drifted(self, request_id: str, share: float) -> None:
        """Take in how far a request is from what its models were measured on."""
        found = self._kept.get(request_id)
        if found is not None:
            found.append(Drifted(share))

    def request(self, request_id: str) -> Request | None:
        """Return a request by its whole id."""
        found = self._kept.get(request_id)
        return found[0] if found is not None and isinstance(found[0], Request) else None

    def propensity(self, request_id: str) -> float:
        """Return the probability with which the variant of a request was picked at last."""
        found = self._kept.get(request_id, ())
        return next((d.propensity for d in reversed(found) if isinstance(d, Decided) and d.pick), 1.0)

    def judged(self, feedback: Feedback) -> None:
        """Take in what an answer was said to be worth."""
        found = self._kept.get(feedback.request)
        if found is not None:
            found.append(feedback)

    def later(self, request_id: str) -> Callable[[], Explanation | None]:
        """Return what makes the explanation of a request when somebody asks, though the ring has moved on."""
        found = self._kept.get(request_id)
        return lambda: None if found is None else self._explanation(found)

    def recent(self, limit: int) -> list[Explanation]:
        """Return the last `limit` explanations, newest first."""
        kept = list(self._kept.values())[: -limit - 1 : -1] if limit > 0 else []
        return [self._explanation(found) for found in kept]

    def _explanation(self, found: list[Kept], depth: int = 0) -> Explanation:
        request, *rest = found
        assert isinstance(request, Request)
        steps = []
        for item in rest:
            step = self._kept.get(item.id) if isinstance(item, Request) and depth < _DEEPEST else None
            if step is not None:
                steps.append(self._explanation(step, depth + 1))
        return Explanation(
            request,
            [d for d in rest if isinstance(d, Decided)],
            next((f for f in reversed(rest) if isinstance(f, Finish)), None),
            steps,
            next((w.lost for w in rest if isinstance(w, Without)), ()),
            tuple(f for f in rest if isinstance(f, Feedback)),
            tuple(one for one in rest if isinstance(one, Looked)),
            self._inferred.get(request.id),
            next((like for like in rest if isinstance(like, Likened)), None),
            next((one.share for one in rest if isinstance(one, Drifted)), None),
        )


def short(variant_id: str) -> str:
    """Return ``model/variant`` for the id ``model/version/variant``."""
    parts = variant_id.split("/")
    return f"{parts[0]}/{parts[-1]}" if len(parts) == 3 else variant_id


def contract_line(request: Request) -> str:
    """Write the contract in one line: ``digits · deadline 20 ms · min quality 0.95 · tenant demo``."""
    contract: Contract = request.contract
    parts = [request.target]
    if request.version:
        parts.append(f"version {request.version}")
    if request.variant:
        parts.append(f"variant {request.variant}")
    if contract.deadline_s is not None:
        parts.append(f"deadline {show_duration(contract.deadline_s)}")
    if contract.min_quality:
        parts.append(f"min quality {contract.min_quality:g}")
    if contract.max_cost is not None:
        parts.append(f"max cost {show_dollars(contract.max_cost)}")
    if contract.priority != Priority.NORMAL:
        parts.append(f"priority {Priority(contract.priority).name.lower()}")
    if contract.privacy != Privacy.PUBLIC:
        parts.append(f"privacy {Privacy(contract.privacy).name.lower()}")
    if contract.tenant:
        parts.append(f"tenant {contract.tenant}")
    return " · ".join(parts)


def render(explanation: Explanation) -> str:
    """Write an explanation as ``semaforo explain`` shows it."""
    lines = [contract_line(explanation.request)]
    decided, finish = explanation.decided, explanation.finish
    if explanation.inferred is not None:
        lines.append(
            f"  the task was not named: it is {explanation.request.target} by {explanation.inferred:.0%}"
        )
    if explanation.likened is not None:
        lines.append(f"  {_likened(explanation.likened)}")
    served = finish.variant if finish is not None else ""
    pick = served or next((d.pick for d in reversed(decided) if d.pick), "")
    considered = next((d.considered for d in decided if d.considered), ())
    width = max((len(short(c.variant)) for c in considered), default=0)
    for c in sorted(considered, key=lambda c: (c.variant == pick, not c.ruled_out, c.score)):
        mark = "▸" if c.variant == pick else " "
        lines.append(f"{mark} {short(c.variant):<{width}}   {_verdict(c)}")
    trust = next((d.trust for d in decided if d.trust), 0.0)
    if trust:
        lines.append(f"  qualities as predicted for this request, {trust:.0%} in the domain of its router")
    if explanation.drift is not None:
        lines.append(
            f"  {explanation.drift:.0%} of its features out of the range that its models were measured on"
        )
    if any(d.learned for d in decided):
        lines.append("  qualities as learned from requests like this one")
    spoke = next((d.spoke for d in decided if d.spoke is not None), None)
    if spoke is not None:
        beside = "" if spoke.beside == spoke.pick else f"{short(spoke.beside) or 'none'}"
        other = f"; router {spoke.other} would pick {beside or 'the same'}" if spoke.other else ""
        lines.append(f"  router {spoke.router} decided{other}")
    for d in decided:
        if d.replica:
            why = f" after {d.rows_ahead} rows" if d.rows_ahead else ""
            chance = f", picked with probability {d.propensity:.3g}" if d.propensity < 1.0 else ""
            lines.append(f"  {d.reason}{why}: replica {d.replica} of {short(d.pick)}{chance}")
        elif d.reason == "waits":
            lines.append(f"  waited behind {d.rows_ahead} rows: nothing it may use was free")
        else:
            lines.append(f"  {d.reason}")
    lines += [line for step in explanation.steps for line in _step_lines(step, 1)]
    lines += [f"  {_looked(one)}" for one in explanation.looked]
    if explanation.without:
        lines.append(f"  without {', '.join(explanation.without)}")
    if finish is None:
        lines.append("  not finished yet")
    elif finish.outcome == "done":
        if finish.replica == CACHE:
            lines.append(
                f"  the answer that {short(finish.variant)} gave to the same request was kept, and given again"
            )
        cost = f", cost {show_dollars(finish.cost)}" if finish.cost else ""
        waited = f", {show_duration(finish.waited_s)} of it waiting" if finish.waited_s > 5e-5 else ""
        lines.append(f"  done in {show_duration(finish.total_s)}{waited}{cost}")
    else:
        lines.append(f"  {finish.outcome} after {show_duration(finish.total_s)}: {finish.message}")
    lines += [f"  feedback: {said.score:.3g} by {said.source}" for said in explanation.feedback]
    return "\n".join(lines)


def _step_lines(step: Explanation, depth: int) -> list[str]:
    place, finish = step.request.step, step.finish
    name = place.name if place is not None else ""
    if finish is None:
        end = f"asks {step.request.target}, not finished yet"
    elif finish.outcome == "done":
        cost = f", cost {show_dollars(finish.cost)}" if finish.cost else ""
        end = f"{short(finish.variant)} in {show_duration(finish.total_s)}{cost}"
    else:
        end = f"{finish.outcome} after {show_duration(finish.total_s)}: {finish.message}"
    lines = [f"{'  ' * depth}step {name}: {end}"]
    lines += [line for inner in step.steps for line in _step_lines(inner, depth + 1)]
    lines += [f"{'  ' * (depth + 1)}{_looked(one)}" for one in step.looked]
    if step.without:
        lines.append(f"{'  ' * (depth + 1)}without {', '.join(step.without)}")
    return lines


def _likened(like: Likened) -> str:
    if like.given:
        return (
            f"given what was said to a request like it: likeness {like.likeness:.3f} of {like.threshold:.3f}"
        )
    if like.threshold is None:
        return (
            f"like a request whose answer is kept: likeness {like.likeness:.3f}; how much is enough is not known "
            f"yet, of {like.pairs} pairs"
        )
    why = "answered anew to compare" if like.likeness >= like.threshold else "not enough"
    return f"like a request whose answer is kept: likeness {like.likeness:.3f} of {like.threshold:.3f}, {why}"


def _looked(looked: Looked) -> str:
    rows = f"{looked.rows} of {looked.of} row{'s' if looked.of != 1 else ''}"
    if looked.trust is None:
        return f"step {looked.step}: its condition holds for {rows}"
    gain = f"{looked.least:+.3f}" + (f" to {looked.most:+.3f}" if looked.rows > 1 else "")
    return f"step {looked.step}: predicts a gain of {gain} for {rows}, {looked.trust:.0%} in its domain"


def _verdict(c: Considered) -> str:
    if c.ruled_out:
        return f"ruled out by {c.ruled_out:<10} {c.detail}"
    free = "" if c.free else "   busy"
    quality = "not measured" if c.assumed else f"{c.quality:.3g}"
    return (
        f"score {c.score:.2f}   predicted {show_duration(c.predicted_s):>7}   quality {quality}   "
        f"cost {show_dollars(c.cost)}{free}"
    )
