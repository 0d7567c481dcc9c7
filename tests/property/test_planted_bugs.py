"""Bugs planted in the core, one by one: each is caught by the model, which finds nothing wrong without them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from fleets import fleet, variant
from property import events
from property.account import Violation
from semaforo.catalog.state import Scaling
from semaforo.core import placing, queue
from semaforo.core.arrival import Door
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Finish, Release
from semaforo.core.events import BatchDone, BatchFailed
from semaforo.core.ledger import Ledger
from semaforo.core.outcome import Outcomes
from semaforo.core.placing import Placer
from semaforo.core.plan import Planner
from semaforo.core.supply import Supply
from semaforo.entities import Priority, TaskType
from semaforo.policy import explore, route, shares
from worlds import Watched, poisson

Patch = pytest.MonkeyPatch


# --- the runs ----------------------------------------------------------------------------------------------


def bad_day(seed: int) -> None:
    """Random events of every kind, then rest."""
    rng = Random(seed)
    rig = events.begin(rng)
    for _ in range(150):
        rig.tell(events.random_event(rng, rig), rng.choice((0.0, 0.0005, 0.003, 0.05)))
    events.settle(rig)
    left = events.leftovers(rig)
    if left:
        raise Violation("leftovers", f"{left}")


def backlog(seed: int) -> None:
    """More work without deadlines than can be done, of all classes and several tenants."""
    model = variant("m", base=0.004, row=0.004, max_rows=4)
    tasks = [TaskType("t", max_queue_rows=10_000)]
    world = Watched(fleet(model, tasks=tasks, scaling=Scaling(2, 2)), seed=seed, slack=8.0, lead=5.0)
    world.arrive(poisson(800, 0.8, seed=seed, priority=list(Priority), tenant=["x", "y"]))
    world.run(until=0.8)


def tight(seed: int) -> None:
    """More work with tight deadlines than can be done."""
    model = variant("m", base=0.004, row=0.001, max_rows=4)
    world = Watched(fleet(model, tasks=[TaskType("t", max_queue_rows=10_000)]), seed=seed, slack=8.0)
    world.arrive(poisson(900, 0.8, seed=seed, deadline_s=[0.02, 0.05, 0.2], tenant=["x", "y"]))
    world.run()
    world.model.check_over()


RUNS: dict[Callable[[int], None], range] = {bad_day: range(60), backlog: range(3), tight: range(3)}


# --- the bugs ----------------------------------------------------------------------------------------------


def slot_leaked(patch: Patch) -> None:
    end = Supply.end

    def bug(self: Supply, number: int, now: float) -> Any:
        batch, replica = end(self, number, now)
        if replica is not None and number % 5 == 0:
            replica.in_flight += 1
        return batch, replica

    patch.setattr(Supply, "end", bug)


def priority_inverted(patch: Patch) -> None:
    order = shares.order
    patch.setattr(shares, "order", lambda debts, rows: order(debts, rows)[::-1])


def deadline_ignored(patch: Patch) -> None:
    patch.setattr(Dispatcher, "_deadline", lambda self, job, now, out: None)


def handed_over_without_bound(patch: Patch) -> None:
    patch.setattr(placing, "rows_ahead", lambda fit, waiting, most: most)


def draining_takes_work(patch: Patch) -> None:
    may = Placer._may_take
    patch.setattr(Supply, "drain", lambda self, name: setattr(self.state.replicas[name], "draining", True))
    patch.setattr(Placer, "_may_take", lambda self, r: may(self, msgspec.structs.replace(r, draining=False)))


def drain_never_ends(patch: Patch) -> None:
    freed = Outcomes._freed

    def bug(self: Outcomes, name: str, replica: Any, now: float, out: list[Any]) -> None:
        if replica is None or not replica.draining:
            freed(self, name, replica, now, out)

    patch.setattr(Outcomes, "_freed", bug)


def released_too_early(patch: Patch) -> None:
    finish = Ledger.finish

    def bug(self: Ledger, job: Any, outcome: Any, now: float, out: list[Any], **fields: Any) -> None:
        finish(self, job, outcome, now, out, **fields)
        if self.state.orphans.pop(job.request.id, None):
            out.append(Release(job.request.id))

    patch.setattr(Ledger, "finish", bug)


def answered_twice(patch: Patch) -> None:
    leave = Ledger.leave

    def bug(self: Ledger, rid: str, *given: Any) -> None:
        leave(self, rid, *given)
        given[-1].append(Finish(rid, "failed", code="late", message="late"))

    patch.setattr(Ledger, "leave", bug)


def lost_in_a_crash(patch: Patch) -> None:
    def bug(self: Dispatcher, name: str, now: float, out: list[Any], *, expected: bool) -> None:
        for number in [n for n, b in self.state.batches.items() if b.replica == name]:
            for job in self._ledger.wanted(self.state.batches.pop(number)):
                self._ledger.unlink(job, number)
        self._supply.gone(name, now, expected=expected)

    patch.setattr(Dispatcher, "_lose", bug)


def filter_off(name: str) -> Callable[[Patch], None]:
    def bug(patch: Patch) -> None:
        ruled_out = route.ruled_out

        def leaky(*args: Any) -> tuple[str, str]:
            found = ruled_out(*args)
            return ("", "") if found[0] == name else found

        patch.setattr(route, "ruled_out", leaky)

    return bug


def requests_counted_as_rows(patch: Patch) -> None:
    make = Door.job

    def bug(self: Door, *args: Any, **fields: Any) -> Any:
        job = make(self, *args, **fields)
        job.rows = 1
        return job

    patch.setattr(Door, "job", bug)


def batch_unbounded(patch: Patch) -> None:
    patch.setattr(placing, "worthwhile_rows", lambda fit, most: 10_000)


def shapes_mixed(patch: Patch) -> None:
    lane = Planner._lane
    patch.setattr(Planner, "_lane", lambda self, task, choices, shape: lane(self, task, choices, ""))


def retried_for_ever(patch: Patch) -> None:
    patch.setattr(Outcomes, "_may_retry", lambda self, job, now: True)


def repeated_though_not_idempotent(patch: Patch) -> None:
    failed = Outcomes.failed

    def bug(self: Outcomes, event: BatchFailed, now: float, out: list[Any]) -> None:
        kind = "error" if event.kind == "crash" else event.kind
        failed(self, BatchFailed(event.batch, kind, event.message, event.retry_after_s), now, out)

    patch.setattr(Outcomes, "failed", bug)


def stream_restarted(patch: Patch) -> None:
    patch.setattr(Outcomes, "first_chunk", lambda self, event, now, out: None)


def bad_member_spoils_the_next_batch(patch: Patch) -> None:
    replace = Door.replace

    def bug(self: Door, job: Any, *args: Any, **fields: Any) -> None:
        job.solo = False
        replace(self, job, *args, **fields)

    patch.setattr(Door, "replace", bug)


def cancel_forgotten(patch: Patch) -> None:
    patch.setattr(Ledger, "_cancel_if_unwanted", lambda self, number, out: None)


def steps_outlive_their_parent(patch: Patch) -> None:
    cancelled = Dispatcher._cancelled

    def bug(self: Dispatcher, event: Any, now: float, out: list[Any]) -> None:
        steps = self.state.children.pop(event.request, None)
        cancelled(self, event, now, out)
        if steps is not None:
            self.state.children[event.request] = steps

    patch.setattr(Dispatcher, "_cancelled", bug)


def guarantee_off(patch: Patch) -> None:
    patch.setattr(shares, "charge", lambda debts, rows, served, count: None)


def earliest_deadline_last(patch: Patch) -> None:
    patch.setattr(Ledger, "sort_key", staticmethod(lambda arrived, deadline: -deadline))


def tenants_not_fair(patch: Patch) -> None:
    serve = queue.serve

    def bug(tasks: Any, lane: Any, job: Any) -> None:
        serve(tasks, lane, job)
        for tenant in tasks.classes[job.klass].tenants.values():
            tenant.virtual = 0.0

    patch.setattr(queue, "serve", bug)


def turn_leaked(patch: Patch) -> None:
    patch.setattr(Supply, "_pass_turn", lambda self, device, last="": None)


def turn_ignored(patch: Patch) -> None:
    begin = Supply.begin

    def bug(self: Supply, number: int, batch: Any) -> None:
        begin(self, number, batch)
        self.state.turns.clear()

    patch.setattr(Supply, "begin", bug)


def ejected_takes_work(patch: Patch) -> None:
    patch.setattr(Supply, "send_away", lambda self, name, replica, until, *, ejected: None)


def no_ramp(patch: Patch) -> None:
    back = Supply.return_from_away

    def bug(self: Supply, name: str, replica: Any) -> None:
        replica.ejected = False
        back(self, name, replica)

    patch.setattr(Supply, "return_from_away", bug)
    patch.setattr("semaforo.policy.breaker.FAILURES", 1)


def no_work_after_a_pause(patch: Patch) -> None:
    def bug(self: Dispatcher, name: str, now: float, out: list[Any]) -> None:
        replica = self.state.replicas.get(name)
        if replica is not None and replica.away_until and replica.away_until <= now:
            self._supply.return_from_away(name, replica)

    patch.setattr(Dispatcher, "_return", bug)


def queue_unbounded(patch: Patch) -> None:
    make = Planner.make

    def bug(self: Planner, request: Any, *, with_lane: bool) -> Any:
        found = make(self, request, with_lane=with_lane)
        found.task = msgspec.structs.replace(found.task, max_queue_rows=10**9)
        return found

    patch.setattr(Planner, "make", bug)


def refused_after_it_was_admitted(patch: Patch) -> None:
    place = Door.place
    patch.setattr(
        Door, "place", lambda self, *args, reason, fresh: place(self, *args, reason=reason, fresh=True)
    )


def dropped_too_early(patch: Patch) -> None:
    fastest = Placer.fastest_s
    patch.setattr(Placer, "fastest_s", lambda self, job: 3 * fastest(self, job))


def batch_makes_a_member_late(patch: Patch) -> None:
    begin = Supply.begin

    def bug(self: Supply, number: int, batch: Any) -> None:
        begin(self, number, batch)
        self.state.replicas[batch.replica].speed = 0.0

    patch.setattr(Supply, "begin", bug)


def timer_lost(patch: Patch) -> None:
    set_timer = Ledger.set_timer

    def bug(self: Ledger, at: float, kind: Any, key: str) -> None:
        if self.state.seq % 7:
            set_timer(self, at, kind, key)

    patch.setattr(Ledger, "set_timer", bug)


def failed_member_given_as_done(patch: Patch) -> None:
    done = Outcomes.done
    patch.setattr(
        Outcomes,
        "done",
        lambda self, event, now, out: done(self, BatchDone(event.batch, event.service_s), now, out),
    )


def explores_too_much(patch: Patch) -> None:
    spread_over = explore.spread_over
    patch.setattr(explore, "spread_over", lambda *a: [1.5 * own for own in spread_over(*a)])


BUGS: list[tuple[Callable[[Patch], None], Callable[[int], None], str]] = [
    (slot_leaked, bad_day, "idle leftovers"),
    (priority_inverted, backlog, "priority"),
    (deadline_ignored, bad_day, "late wake"),
    (draining_takes_work, bad_day, "drain"),
    (drain_never_ends, bad_day, "drained"),
    (released_too_early, bad_day, "release"),
    (answered_twice, bad_day, "twice"),
    (lost_in_a_crash, bad_day, "idle answers"),
    (filter_off("privacy"), bad_day, "contract"),
    (filter_off("cost"), bad_day, "contract"),
    (filter_off("quality"), bad_day, "contract"),
    (filter_off("shape"), bad_day, "contract"),
    (filter_off("context"), bad_day, "contract"),
    (requests_counted_as_rows, bad_day, "rows bound"),
    (batch_unbounded, backlog, "rows"),
    (shapes_mixed, bad_day, "shape"),
    (retried_for_ever, bad_day, "retry"),
    (repeated_though_not_idempotent, bad_day, "retry"),
    (stream_restarted, bad_day, "retry"),
    (bad_member_spoils_the_next_batch, bad_day, "alone"),
    (cancel_forgotten, bad_day, "cancel"),
    (steps_outlive_their_parent, bad_day, "cancelled"),
    (guarantee_off, backlog, "share"),
    (earliest_deadline_last, tight, "earliest"),
    (tenants_not_fair, backlog, "tenant"),
    (turn_leaked, bad_day, "idle"),
    (turn_ignored, bad_day, "turn"),
    (ejected_takes_work, bad_day, "away"),
    (no_ramp, bad_day, "ramp"),
    (no_work_after_a_pause, bad_day, "idle"),
    (queue_unbounded, bad_day, "bound"),
    (refused_after_it_was_admitted, bad_day, "refused"),
    (dropped_too_early, tight, "expired"),
    (batch_makes_a_member_late, tight, "deadline"),
    (timer_lost, bad_day, "wake"),
    (handed_over_without_bound, tight, "ahead"),
    (failed_member_given_as_done, bad_day, "done"),
    (explores_too_much, bad_day, "share"),
]


def _name(number: int) -> str:
    bug, _, rules = BUGS[number]
    return bug.__name__ if bug.__name__ != "bug" else f"filter_off_{number}_{rules}"


@pytest.mark.parametrize("number", range(len(BUGS)), ids=_name)
def test_a_planted_bug_is_caught(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, run, rules = BUGS[number]
    plant(monkeypatch)
    caught: list[str] = []
    for seed in RUNS[run]:
        try:
            run(seed)
        except Violation as violation:
            caught.append(violation.rule)
            if violation.rule in rules.split():
                return
    pytest.fail(f"it was not caught as {rules}; found instead: {sorted(set(caught))}")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_without_a_bug_nothing_is_found(run: Callable[[int], None]) -> None:
    for seed in RUNS[run]:
        run(seed)
