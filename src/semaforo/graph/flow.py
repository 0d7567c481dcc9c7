"""How one run of a graph goes on: which step begins, which is given up, and when there is an answer.

A machine of the same shape as the dispatcher: `begin` and `handle` take what happened and the time, and return what
to do. It knows the names of steps and how they ended, never their values. A step ends in one of four ways:

- done: it has values, for some rows at least;
- skipped: its condition held for no row, or what it needs was skipped;
- missing: it failed, came too late, or needs what is missing;
- dropped: nobody needs it any more.

Rules this module keeps:

1. A step begins when all that come before it have ended; a fusion also when its quorum agrees, when its wait is
   over, or when the rest of the graph would be late if it waited longer.
2. What nobody needs any more is cancelled at once, and never begins.
3. A run ends exactly once, with `Answered` or with `Failed`; after that nothing begins.
4. Every step that the answer had to do without is named in `Flow.without`, with the reason.
5. What a run does only where a condition says so, beside an answer that is there anyway, is an *escalation*. One
   that cannot end in time does not begin, and where time is short no other step is hurried for its sake.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import msgspec

from semaforo.graph.graph import Step
from semaforo.graph.plan import Plan

_NEVER = float("inf")


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Run a step now; `deadline` is the absolute second at which it must have ended, infinite = none."""

    step: str
    deadline: float


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Stop a step that runs: nobody needs it any more."""

    step: str


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """All that the answer is made of is there."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """There can be no answer; the error is that of the step at fault."""

    step: str
    code: str
    message: str
    retry_after_s: float = 0.0


FlowEffect = Begin | Drop | Answered | Failed


class Phase(IntEnum):
    """Where a step stands."""

    WAITING = 0
    DELAYED = 1
    RUNNING = 2
    DONE = 3
    SKIPPED = 4
    MISSING = 5
    DROPPED = 6


_ENDED = (Phase.DONE, Phase.SKIPPED, Phase.MISSING, Phase.DROPPED)


class Loss(msgspec.Struct, frozen=True):
    """Why a step is missing: code and text of the error, when trying again may help, and the step at fault."""

    code: str
    message: str
    retry_after_s: float = 0.0
    step: str = ""


class Flow:
    """One run of a graph.

    Args:
        plan: Of the graph.
        deadline: Absolute second by which the run must have ended, infinite = none.
        tails: Step → predicted seconds on the longest way from its end to the answer.
        takes: Step → predicted seconds it takes.
        least: Step → as `tails`, where no escalation runs; None = as `tails`.

    Attributes:
        phases: Where each step stands.
        without: Steps the run had to do without, and why, in the order in which they were lost.
        over: Whether the run has ended.
    """

    def __init__(
        self,
        plan: Plan,
        deadline: float,
        tails: Mapping[str, float],
        takes: Mapping[str, float],
        least: Mapping[str, float] | None = None,
    ) -> None:
        self.phases: dict[str, Phase] = dict.fromkeys(plan.steps, Phase.WAITING)
        self.without: dict[str, Loss] = {}
        self.over = False
        self._plan = plan
        self._deadline = deadline
        self._tails = tails
        self._takes = takes
        self._least = tails if least is None else least
        self._delays: dict[str, float] = {}
        self._cuts: dict[str, float] = {}
        self._late: set[str] = set()
        self._loosened = False

    def begin(self, now: float) -> list[FlowEffect]:
        """Begin the run."""
        out: list[FlowEffect] = []
        for name, step in self._plan.steps.items():
            if step.kind == "fuse" and self._deadline < _NEVER:
                self._cuts[name] = self._deadline - self._tails.get(name, 0.0) - self._takes.get(name, 0.0)
        for name in self._plan.first:
            self._try(name, now, out)
        self._settle(now, out)
        return out

    def done(self, step: str, now: float) -> list[FlowEffect]:
        """Note that a step has given values."""
        return self._ended(step, Phase.DONE, now)

    def skipped(self, step: str, now: float) -> list[FlowEffect]:
        """Note that a step has nothing to do: its condition holds for no row."""
        return self._ended(step, Phase.SKIPPED, now)

    def missing(self, step: str, loss: Loss, now: float) -> list[FlowEffect]:
        """Note that a step has failed."""
        if self.over or self.phases[step] in _ENDED:
            return []
        self.without[step] = loss if loss.step else msgspec.structs.replace(loss, step=step)
        return self._ended(step, Phase.MISSING, now)

    def agreed(self, step: str, now: float) -> list[FlowEffect]:
        """Note that the members of a fusion that are there are its quorum: it need not wait for the others."""
        if self.over or self.phases[step] != Phase.WAITING:
            return []
        out: list[FlowEffect] = []
        self._loosened = True
        self._run(step, now, out)
        self._settle(now, out)
        return out

    def tick(self, now: float) -> list[FlowEffect]:
        """Begin what was held back until now, and fuse what can wait no longer."""
        out: list[FlowEffect] = []
        for name in [n for n, at in self._delays.items() if at <= now]:
            del self._delays[name]
            if self.phases[name] == Phase.DELAYED:
                self._run(name, now, out)
        for name in [n for n, at in self._cuts.items() if at <= now]:
            del self._cuts[name]
            self._cut(name, now, out)
        self._settle(now, out)
        return out

    def next_deadline(self) -> float | None:
        """Return when `tick` wants to be called, None = never."""
        if self.over or not (self._delays or self._cuts):
            return None
        return min((*self._delays.values(), *self._cuts.values()), default=None)

    def open_fusions(self, member: str) -> list[str]:
        """Return the fusions that wait for others beside this member and could have their quorum now."""
        return [
            name
            for name in self._plan.after[member]
            if self._plan.steps[name].quorum and self.phases[name] == Phase.WAITING
        ]

    def present(self, fusion: str) -> list[str]:
        """Return the members of a fusion that are done, in the order of the file."""
        return [name for name in self._plan.steps[fusion].of if self.phases[name] == Phase.DONE]

    def hopeless(self, name: str, now: float) -> tuple[str, ...]:
        """Return the fusions that go on without an escalation that cannot end in time; () = let it run.

        They have members enough; that those have the rows is for the caller to see.
        """
        if self._deadline == _NEVER or name not in self._plan.escalations:
            return ()
        if now + self._takes.get(name, 0.0) + self._tails.get(name, 0.0) <= self._deadline:
            return ()
        found: list[str] = []
        stack = [name]
        while stack:
            for later in self._plan.after[stack.pop()]:
                if later in self._plan.escalations:
                    stack.append(later)
                elif self.phases[later] not in _ENDED:
                    if not self._enough(self._plan.steps[later]):
                        return ()
                    found.append(later)
        return tuple(dict.fromkeys(found))

    def late(self, name: str, now: float) -> Loss:
        """Return the loss of an escalation that is not begun."""
        left, takes = max(0.0, self._deadline - now), self._takes.get(name, 0.0)
        return Loss(
            "late", f"'{name}' was not begun: it takes about {takes:.3g} s, and {left:.3g} s are left"
        )

    # --- how it goes on --------------------------------------------------------------------------------

    def _ended(self, name: str, phase: Phase, now: float) -> list[FlowEffect]:
        if self.over or self.phases[name] in _ENDED:
            return []
        out: list[FlowEffect] = []
        self._end(name, phase, now, out)
        self._settle(now, out)
        return out

    def _end(self, name: str, phase: Phase, now: float, out: list[FlowEffect]) -> None:
        self.phases[name] = phase
        if phase != Phase.DONE:
            self._loosened = True
        if self._delays:
            self._delays.pop(name, None)
        if self._cuts:
            self._cuts.pop(name, None)
        for later in self._plan.after[name]:
            step = self._plan.steps[later]
            if phase == Phase.DONE and step.kind == "fuse" and step.wait_s is not None and name in step.of:
                at = now + step.wait_s
                self._cuts[later] = min(at, self._cuts.get(later, at))
            if later in self._late and phase == Phase.DONE:
                self._cut(later, now, out)
            self._try(later, now, out)

    def _try(self, name: str, now: float, out: list[FlowEffect]) -> None:
        """Begin a step if nothing that comes before it is open."""
        phases = self.phases
        if phases[name] != Phase.WAITING:
            return
        step = self._plan.steps[name]
        for needed in self._plan.needs[name]:
            if phases[needed] in (Phase.MISSING, Phase.DROPPED):
                self.without[name] = self._loss_of(needed)
                self._end(name, Phase.MISSING, now, out)
                return
            if phases[needed] == Phase.SKIPPED:
                self._end(name, Phase.SKIPPED, now, out)
                return
        for earlier in self._plan.before[name]:
            if phases[earlier] not in _ENDED:
                return
        if step.kind == "fuse" and not self._enough(step):
            self._lose_fusion(step, now, out)
        elif step.delay_s > 0.0:
            phases[name] = Phase.DELAYED
            self._delays[name] = now + step.delay_s
        else:
            self._run(name, now, out)

    def _run(self, name: str, now: float, out: list[FlowEffect]) -> None:
        self.phases[name] = Phase.RUNNING
        self._cuts.pop(name, None)
        deadline = self._deadline - self._tails.get(name, 0.0) if self._deadline < _NEVER else _NEVER
        if now + self._takes.get(name, 0.0) > deadline:
            deadline = self._deadline - self._least.get(name, 0.0)
        out.append(Begin(name, max(deadline, now) if deadline < _NEVER else deadline))

    def _enough(self, step: Step) -> bool:
        return sum(self.phases[m] == Phase.DONE for m in step.of) >= max(1, step.least)

    def _lose_fusion(self, step: Step, now: float, out: list[FlowEffect]) -> None:
        lost = [m for m in step.of if self.phases[m] == Phase.MISSING]
        if not lost:
            self._end(step.name, Phase.SKIPPED, now, out)
            return
        there = len(self.present(step.name))
        first = self._loss_of(lost[0])
        text = first.message
        if step.least > 1:
            text = f"'{step.name}' needs {step.least} of its members and has {there}; {lost[0]}: {text}"
        self.without[step.name] = Loss(first.code, text, first.retry_after_s)
        self._end(step.name, Phase.MISSING, now, out)

    def _cut(self, name: str, now: float, out: list[FlowEffect]) -> None:
        """Let a fusion wait no longer, where what it has is enough."""
        step = self._plan.steps[name]
        if self.phases[name] != Phase.WAITING:
            return
        if not self._enough(step):
            # Late is better than nothing: it goes on as soon as it has enough.
            self._late.add(name)
            return
        for member in step.of:
            if self.phases[member] not in _ENDED:
                self.without[member] = Loss("late", f"'{member}' had not answered in time")
        self._loosened = True
        self._run(name, now, out)

    def _loss_of(self, name: str) -> Loss:
        return self.without.get(name) or Loss("internal", f"step '{name}' was dropped")

    # --- the end ---------------------------------------------------------------------------------------

    def _settle(self, now: float, out: list[FlowEffect]) -> None:
        """End the run where it can end, and drop what nobody needs."""
        if self.over:
            return
        phases = self.phases
        for name in self._plan.wanted:
            if phases[name] in (Phase.MISSING, Phase.DROPPED):
                loss = self._loss_of(name)
                self._finish(Failed(loss.step or name, loss.code, loss.message, loss.retry_after_s), out)
                return
            if phases[name] == Phase.SKIPPED:
                text = f"step '{name}', of which the answer is made, was skipped for every row"
                self._finish(Failed(name, "unanswerable", text), out)
                return
        for name in self._plan.wanted:
            if phases[name] != Phase.DONE:
                break
        else:
            self._finish(Answered(), out)
            return
        # What is done leaves all else as needed as it was.
        if not self._loosened:
            return
        self._loosened = False
        needed = self._needed()
        for name, phase in list(phases.items()):
            if phase not in _ENDED and name not in needed:
                self._drop(name, out)

    def _needed(self) -> set[str]:
        """Return the open steps that some other open step, or the answer, still waits for."""
        needed: set[str] = set()
        stack = [name for name in self._plan.wanted if self.phases[name] not in _ENDED]
        while stack:
            name = stack.pop()
            if name in needed:
                continue
            needed.add(name)
            if self.phases[name] in (Phase.WAITING, Phase.DELAYED):
                stack += [b for b in self._plan.before[name] if self.phases[b] not in _ENDED]
        return needed

    def _drop(self, name: str, out: list[FlowEffect]) -> None:
        was = self.phases[name]
        self.phases[name] = Phase.DROPPED
        self._delays.pop(name, None)
        self._cuts.pop(name, None)
        if was == Phase.RUNNING:
            out.append(Drop(name))

    def _finish(self, end: Answered | Failed, out: list[FlowEffect]) -> None:
        self.over = True
        if all(phase in _ENDED for phase in self.phases.values()):
            out.append(end)
            return
        for name, phase in self.phases.items():
            if phase not in _ENDED:
                self._drop(name, out)
        # What was begun in this very moment and is dropped again never begins.
        dropped = {effect.step for effect in out if isinstance(effect, Drop)}
        begun = {effect.step for effect in out if isinstance(effect, Begin)} & dropped
        out[:] = [e for e in out if not (isinstance(e, Begin | Drop) and e.step in begun)]
        out.append(end)
