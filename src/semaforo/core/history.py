"""What variants have shown themselves to be worth: quality from feedback, latency by load, and cost.

Rules this module keeps:

1. A variant has a posterior of its quality once there was feedback on it; until then what was measured counts.
2. Plans rest on the posterior's `shown`, and on what answers have cost (`planned`): when these move, they are made
   anew. A few answers have to agree on that, and it is forgotten where a variant has not answered for a while:
   whoever looked dear by chance would never be asked again.
3. Where it is known what the request looked like, a change is what does not follow from that. The regression begins
   anew with every one that is found, and where what it says is worse than nothing.
4. What is remembered over a restart counts only for the very same artefact; the driver sees to that.
"""

from __future__ import annotations

from copy import deepcopy

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Believed, DispatcherEffect
from semaforo.core.events import Feedback, Remembered
from semaforo.core.plan import Planner
from semaforo.core.state import History, Job, Mean, State
from semaforo.entities import BatchProfile
from semaforo.policy import bandit, posterior, route
from semaforo.policy.pace import Pace

_MOVED = 0.25
"""Share by which what answers cost has to move before plans are made anew."""
LEAST_ANSWERS = 5
"""Answers before what they cost is believed."""
STALE_S = 60.0
"""Seconds without an answer after which it is not believed any more."""


class Historian:
    """Keeps the histories of a `State`."""

    def __init__(self, state: State, planner: Planner) -> None:
        self.state = state
        self._planner = planner

    def feedback(self, event: Feedback, out: list[DispatcherEffect]) -> bool:
        """Learn what an answer was worth; tell whether plans have to be made anew."""
        state = self.state
        variant = state.catalog.variants.get(event.variant)
        if variant is None:
            return False
        history = self._of(event.variant)
        believed = history.quality
        if believed is None:
            believed = history.quality = posterior.begun(variant.quality, route.UNKNOWN_QUALITY)
        before, changes = believed.shown, believed.changes
        score, weight = float(event.score), float(event.weight)
        if event.context:
            context = {name: float(value) for name, value in event.context.items()}
            gain = float(event.gain)
            ridge = history.ridge
            (like,) = bandit.guesses([(ridge, before)], context)
            # What is new explains nothing away: a model that has changed would be found late.
            foretold = before + gain + like.gain if ridge is not None and ridge.explains else None
            moved = believed.learn(score, weight, foretold)
            changed = believed.changes > changes
            if ridge is None or changed or ridge.tested(score, weight, before + gain, like.gain):
                ridge = history.ridge = bandit.begun(believed.shown)
            ridge.learn(context, score - gain, weight)
        else:
            moved = believed.learn(score, weight)
            if believed.changes > changes:
                history.ridge = None
        # From its first feedback on, the quality of what nobody measured is no longer a mere assumption.
        if not moved and not (believed.given == 1 and variant.quality is None):
            return False
        self._planner.forget()
        changed = believed.changes > changes
        out.append(Believed(event.variant, believed.shown, before, believed.given, changed))
        return True

    def served(self, variant: str, job: Job, cost: float, now: float, *, told: bool) -> None:
        """Note what an answer took and cost; `told` where that is no matter of its price and its time."""
        history = self._of(variant)
        queue = self.state.queues.get(job.task)
        waiting = sum(queue.rows) if queue is not None else 0
        spent = history.latency[0 if not waiting else 1 if waiting <= 8 else 2 if waiting <= 64 else 3]
        spent.add(now - job.arrived)
        history.cost.add(cost)
        usual = float(job.rows) if told else self._usual(variant, job.rows)
        if usual > 0.0:
            history.dearness.add(cost / usual)
            history.asked = now
            planned, seen = history.planned, history.dearness.value
            known = history.dearness.count >= LEAST_ANSWERS
            if known and (planned is None or abs(seen - planned) > _MOVED * planned):
                history.planned = seen
                self._planner.forget()
            if now >= self.state.swept + STALE_S:
                self._sweep(now)
        task = self.state.catalog.tasks.get(job.task)
        if task is not None and task.prefer.at_most:
            pace = self.state.paces.get(job.task)
            if pace is None:
                pace = self.state.paces[job.task] = Pace()
            pace.spent(cost, task.prefer.at_most)

    def _sweep(self, now: float) -> None:
        self.state.swept = now
        for history in self.state.history.values():
            if history.planned is not None and now >= history.asked + STALE_S:
                history.dearness, history.planned = Mean(), None
                self._planner.forget()

    def _usual(self, variant: str, rows: int) -> float:
        """Return the US dollars of so many rows by the profile; 0 where it is not device time that is paid."""
        found = self.state.catalog.variants.get(variant)
        if found is None or found.cost.metered or not isinstance(found.profile, BatchProfile):
            return 0.0
        return found.cost.second * found.profile.seconds(rows)

    def remembered(self, event: Remembered, out: list[DispatcherEffect]) -> None:
        """Take up what was known before a restart, or of another gateway: what is known here is added to it."""
        for name, known in deepcopy(event.history).items():
            variant = self.state.catalog.variants.get(name)
            if variant is None:
                continue
            own = self.state.history.get(name)
            if own is not None:
                known = _together(own, known)
            before = self.state.believed(variant)
            self.state.history[name] = known
            if known.quality is not None:
                shown = known.quality.shown
                out.append(Believed(name, shown, shown if before is None else before, known.quality.given))
        self._planner.forget()

    def forget(self, before: Catalog) -> None:
        """Drop what is known of variants that are gone from the catalog, or are others than they were `before`."""
        for name in list(self.state.history):
            if not same(name, before, self.state.catalog):
                del self.state.history[name]

    def _of(self, variant: str) -> History:
        found = self.state.history.get(variant)
        if found is None:
            found = self.state.history[variant] = History()
        return found


def _together(own: History, known: History) -> History:
    """Return what is known of a variant, and was, or is elsewhere."""
    if own.quality is None or known.quality is None:
        right = own if known.quality is None else known
        return msgspec.structs.replace(known, quality=right.quality, ridge=right.ridge)
    if own.quality.changes != known.quality.changes:
        # Who has seen fewer changes speaks of what the variant was before.
        ridge = max((own, known), key=lambda h: h.quality.changes if h.quality else 0).ridge
    elif own.ridge is None or known.ridge is None:
        ridge = own.ridge or known.ridge
    else:
        ridge = bandit.merged(own.ridge, known.ridge)
    return msgspec.structs.replace(known, quality=posterior.merged(own.quality, known.quality), ridge=ridge)


def same(name: str, before: Catalog, now: Catalog) -> bool:
    """Tell whether a variant is the same artefact in two catalogs, and was measured to be as good."""
    old, new = before.variants.get(name), now.variants.get(name)
    if old is None or new is None or old.quality != new.quality:
        return False
    return before.templates.get(name) == now.templates.get(name)
