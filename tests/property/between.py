"""What must hold between events: nothing late, lost or left over, bounds kept, and no replica idle for nothing."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

from property.account import MAX_WAIT_S, Standing, Violation, expect
from semaforo.core.events import DispatcherEvent, Tick
from semaforo.entities import StreamProfile

if TYPE_CHECKING:
    from property.model import Model


def check_between(model: Model, event: DispatcherEvent, now: float, wake: float | None) -> None:
    """Check everything that must hold once an event has been dealt with."""
    expect(not model.conflicts, "answers", "an id in use was not refused")
    for rid in model.falling:
        expect(model.asked[rid].outcome, "cancelled", f"{rid} is still alive under {event}")
    for number, work in model.work.items():
        unwanted = all(model.asked[m].outcome for m in work.members)
        expect(
            work.cancelled or not unwanted,
            "cancel",
            f"nobody wants batch {number}, and it was not cancelled",
        )
    rows: Counter[str] = Counter()
    soonest = inf
    for rid, asked in model.asked.items():
        if asked.outcome:
            expect(asked.released or asked.live, "release", f"{rid} is over and keeps its payload")
            continue
        if asked.waiting:
            rows[asked.task.name] += asked.rows
            soonest = min(soonest, asked.waiting_since + MAX_WAIT_S)
            late = now >= asked.waiting_since + MAX_WAIT_S
            expect(not (isinstance(event, Tick) and late), "lost", f"{rid} waits since {asked.waiting_since}")
        soonest = min(soonest, asked.deadline)
        late = isinstance(event, Tick) and now >= asked.deadline
        expect(not late, "late", f"{rid} has no answer at {now}, its deadline was {asked.deadline}")
        if asked.final and not asked.live:
            raise Violation("retry", f"{rid} may not be tried again and has no answer")
    if soonest < inf:
        expect(
            wake is not None and wake <= max(soonest, now) + 1e-6,
            "wake",
            f"wakes at {wake}, due {soonest}",
        )
    for name, count in rows.items():
        bound = model.catalog.tasks[name].max_queue_rows if name in model.catalog.tasks else inf
        expect(count <= bound, "bound", f"{count} rows wait for {name}, {bound} may")
    for name, standing in model.replicas.items():
        idle = standing.draining and not standing.live
        expect(standing.drained or not idle, "drained", f"{name} drains, is idle, and was not said to be")
    _check_conserved(model, now)


def _check_conserved(model: Model, now: float) -> None:
    """No replica with a free slot stands by while a request waits that it could serve in time."""
    waiting = model.waiting()
    if not waiting:
        return
    for name, standing in model.replicas.items():
        if not _available(model, standing):
            continue
        variant = model.catalog.variants.get(standing.view.variant)
        if variant is None or (isinstance(variant.profile, StreamProfile) and variant.profile.tokens):
            continue
        for asked in waiting:
            if not model.may_serve(variant, asked) or not model.is_open(variant, asked):
                continue
            if asked.failed_on == name and _another(model, name, standing):
                continue
            in_time = asked.deadline == inf
            if model.exact and not in_time:
                in_time = now + model.seconds(variant, asked.rows) < asked.deadline - 1e-6
            expect(not in_time, "idle", f"{name} stands idle while {asked.request.id} waits")


def _available(model: Model, standing: Standing) -> bool:
    view = standing.view
    if standing.draining or standing.away_until or len(standing.live) >= view.slots:
        return False
    turn = [s for s in model.replicas.values() if s.view.exclusive and s.view.device == view.device]
    return not (view.exclusive and any(s.live for s in turn))


def _another(model: Model, name: str, standing: Standing) -> bool:
    return any(
        other != name and s.view.variant == standing.view.variant and not s.draining and not s.away_until
        for other, s in model.replicas.items()
    )
