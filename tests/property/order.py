"""Checks of the order of service, for fleets in which every replica may serve whatever waits for its task.

Like the model it knows only events and effects. For each task it checks four promises:

1. Priority: a class is served before a higher one that waits only when it is owed a row.
2. Shares: while a class has work waiting it gets at least its guaranteed share of the rows in any window, less a
   constant.
3. Tenants: two tenants of a class that both wait get the same service, within one request and one batch.
4. Earliest deadline first, among requests of one row of the same class, tenant and shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf

from property.account import Asked, expect
from property.model import Model
from semaforo.core.effects import Decided, DispatcherEffect, Finish, Run
from semaforo.core.events import Arrived, DispatcherEvent
from semaforo.policy.shares import GUARANTEE

CLASSES = len(GUARANTEE)


class Order:
    """Watches beside a model; call `observe` after the model's.

    Args:
        model: The model that watches the same dispatcher.
        slack: Rows by which a share may fall short: one batch, and one row owed to each class.
        lead: Rows by which one tenant may be ahead of another that waits as well.
    """

    def __init__(self, model: Model, *, slack: float, lead: float) -> None:
        self.model = model
        self.slack = slack
        self.lead = lead
        self.served: Counter[int] = Counter()
        self._waits: dict[str, Asked] = {}
        self._debt: dict[str, list[float]] = {}
        self._short: dict[str, list[float]] = {}
        self._ahead: dict[tuple[str, int, str, str], float] = {}

    def observe(self, event: DispatcherEvent, now: float, effects: Sequence[DispatcherEffect]) -> None:
        """Check the order in which an event's effects served what waited."""
        asked = self.model.asked
        came_from_queue: set[str] = set()
        if isinstance(event, Arrived) and event.request.id in asked:
            self._waits.setdefault(event.request.id, asked[event.request.id])
        for effect in effects:
            if isinstance(effect, Decided):
                if effect.reason in ("retry", "replica was busy", "fleet changed"):
                    self._waits[effect.request] = asked[effect.request]
                elif effect.reason == "waits":
                    self._waits.setdefault(effect.request, asked[effect.request])
                elif effect.reason == "waited":
                    came_from_queue.add(effect.request)
            elif isinstance(effect, Finish):
                self._waits.pop(effect.request, None)
            elif isinstance(effect, Run):
                self._run(effect, came_from_queue, now)
        self._waits = {a.request.id: a for a in self.model.waiting()}
        classes = Counter((a.task.name, int(a.request.contract.priority)) for a in self._waits.values())
        for task, short in self._short.items():
            for c in range(CLASSES):
                if not classes[task, c]:
                    short[c] = 0.0
        tenants = {
            (a.task.name, int(a.request.contract.priority), a.request.contract.tenant)
            for a in self._waits.values()
        }
        for key in list(self._ahead):
            task, c, one, other = key
            if (task, c, one) not in tenants or (task, c, other) not in tenants:
                del self._ahead[key]

    def _run(self, effect: Run, came_from_queue: set[str], now: float) -> None:
        members = [self.model.asked[m] for m in effect.members]
        self._earliest_first(effect, members, now)
        room = self.model.catalog.variants[self.model.work[effect.batch].variant].max_rows
        for one in members:
            self.served[int(one.request.contract.priority)] += one.rows
            if one.request.id in came_from_queue:
                self._charge(effect, one, room, now)
            room -= one.rows
            self._waits.pop(one.request.id, None)

    def _charge(self, effect: Run, one: Asked, room: int, now: float) -> None:
        task, mine = one.task.name, int(one.request.contract.priority)
        first = one.request.id == effect.members[0]
        rows: Counter[int] = Counter()
        fit: set[int] = set()
        for other in self._waits.values():
            if other.task.name == task and self._fits(effect, other):
                rows[int(other.request.contract.priority)] += other.rows
                if (first or other.rows <= room) and self._in_time(effect, other, now):
                    fit.add(int(other.request.contract.priority))
        debt = self._debt.setdefault(task, [0.0] * CLASSES)
        short = self._short.setdefault(task, [0.0] * CLASSES)
        higher = [c for c in range(mine) if c in fit]
        owed = debt[mine] >= 1.0 - 1e-6
        expect(owed or not higher, "priority", f"{effect}: class {mine} goes before {higher}, owed {debt}")
        for c in range(CLASSES):
            if c == mine:
                paid = debt[c] - one.rows * (1 - GUARANTEE[c])
                # What is served beyond what was owed is an advance; what is served in order costs nothing.
                debt[c] = paid if debt[c] >= 1.0 else max(paid, min(debt[c], 0.0))
                short[c] = max(0.0, short[c] - one.rows * (1 - GUARANTEE[c]))
            elif rows[c]:
                debt[c] += GUARANTEE[c] * one.rows
                short[c] += GUARANTEE[c] * one.rows
                expect(
                    short[c] <= self.slack, "share", f"class {c} is {short[c]:.1f} rows short of its share"
                )
            else:
                debt[c] = min(0.0, debt[c] + GUARANTEE[c] * one.rows)
        self._tenant(task, mine, one)

    def _in_time(self, effect: Run, other: Asked, now: float) -> bool:
        variant = self.model.catalog.variants[self.model.work[effect.batch].variant]
        start = max(now, self.model.work[effect.batch].started)
        return (
            other.deadline == inf or start + self.model.seconds(variant, effect.rows) < other.deadline - 1e-6
        )

    def _fits(self, effect: Run, other: Asked) -> bool:
        """Tell whether a request that waits could have been in this batch, or in its place."""
        shapes = {self.model.asked[m].request.ref.shape for m in effect.members}
        return other.request.ref.shape in shapes

    def _tenant(self, task: str, klass: int, one: Asked) -> None:
        mine = one.request.contract.tenant
        waiting = {
            a.request.contract.tenant
            for a in self._waits.values()
            if a.task.name == task and a.request.contract.priority == klass and a is not one
        }
        for other in waiting - {mine} if mine in waiting else ():
            ahead = max(0.0, self._ahead.get((task, klass, mine, other), 0.0) + one.rows)
            self._ahead[task, klass, mine, other] = ahead
            back = (task, klass, other, mine)
            self._ahead[back] = max(0.0, self._ahead.get(back, 0.0) - one.rows)
            expect(ahead <= self.lead, "tenant", f"tenant {mine!r} is {ahead} rows ahead of {other!r}")

    def _earliest_first(self, effect: Run, members: list[Asked], now: float) -> None:
        chosen = set(effect.members)
        variant = self.model.catalog.variants[self.model.work[effect.batch].variant]
        for one in members:
            if one.rows != 1:
                continue
            for rid, other in self._waits.items():
                if rid in chosen or other.rows != 1 or not _alike(one, other) or _due(other) >= _due(one):
                    continue
                if other.failed_on or other.alone or one.deadline == inf != (other.deadline == inf):
                    continue
                start = max(now, self.model.work[effect.batch].started)
                if start + self.model.seconds(variant, effect.rows) > other.deadline - 1e-6:
                    continue
                expect(
                    False, "earliest", f"{effect}: {one.request.id} goes before {rid}, which is due before it"
                )


def _alike(one: Asked, other: Asked) -> bool:
    def key(a: Asked) -> tuple[object, ...]:
        return (
            a.task.name,
            a.request.contract.priority,
            a.request.contract.tenant,
            a.request.ref.shape,
            a.request.target,
        )

    return key(one) == key(other)


def _due(asked: Asked) -> tuple[float, float, int]:
    return (asked.deadline, 0.0, asked.order) if asked.deadline < inf else (inf, asked.arrived, asked.order)
