"""Replicas: who may take work, whose turn it is, who is left alone, and how they come and go."""

from __future__ import annotations

import pytest

from fleets import Rig, ends, fleet, runs, variant
from semaforo.core.effects import Drained, Ejected, Restored
from semaforo.core.events import BatchDone, Busy, DrainReplica, FleetChanged, Limits, ReplicaGone, Report
from semaforo.entities import BatchProfile, Preference, TaskType
from semaforo.policy import breaker


def test_replicas_of_one_exclusive_device_take_turns() -> None:
    rig = Rig(fleet(variant("x", task="t"), variant("y", task="u")))
    rig.ready("x1", "x/1/v", device="loop", exclusive=True)
    rig.ready("y1", "y/1/v", device="loop", exclusive=True)
    assert runs(rig.ask("a", "t")) == [("x1", ("a",))]
    assert runs(rig.ask("b", "u")) == []
    assert runs(rig.ask("c", "t")) == []
    assert runs(rig.done("a")) == [("y1", ("b",))]
    assert runs(rig.done("b")) == [("x1", ("c",))]


def test_a_taken_turn_hides_no_other_replica_of_the_variant() -> None:
    rig = Rig(fleet(variant("x", task="t"), variant("y", task="u")))
    rig.ready("x1", "x/1/v", device="loop", exclusive=True)
    rig.ready("x2", "x/1/v")
    rig.ready("y1", "y/1/v", device="loop", exclusive=True)
    rig.ask("b", "u")
    assert runs(rig.ask("a", "t")) == [("x2", ("a",))]
    rig.done("b")
    assert runs(rig.ask("c", "t")) == [("x1", ("c",))]


def test_affinity_does_not_break_a_turn() -> None:
    rig = Rig(fleet(variant("x", task="t"), variant("y", task="u")))
    rig.ready("x1", "x/1/v", device="loop", exclusive=True)
    rig.ask("a", "t", affinity="s")
    rig.done("a")
    rig.ready("x2", "x/1/v")
    rig.ready("y1", "y/1/v", device="loop", exclusive=True)
    rig.ask("b", "u")
    assert runs(rig.ask("c", "t", affinity="s")) == [("x2", ("c",))]


def test_losing_the_holder_of_a_turn_passes_it_on() -> None:
    rig = Rig(fleet(variant("x", task="t"), variant("y", task="u")))
    rig.ready("x1", "x/1/v", device="loop", exclusive=True)
    rig.ready("y1", "y/1/v", device="loop", exclusive=True)
    rig.ask("a", "t")
    rig.ask("b", "u")
    assert ("y1", ("b",)) in runs(rig.tell(ReplicaGone("x1", "crash")))


def test_a_busy_replica_is_left_alone_for_a_moment() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q")
    assert runs(rig.tell(Busy(rig.batch("q")), 0.001)) == []
    rig.tick(0.1)
    assert rig.runs_on("q") == "a"


def test_being_busy_does_not_end_an_ejection() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a", slots=breaker.FAILURES + 1)
    for n in range(breaker.FAILURES + 1):
        rig.ask(f"q{n}", idempotent=False)
    for n in range(breaker.FAILURES):
        effects = rig.failed(f"q{n}", "upstream")
    assert [e.replica for e in effects if isinstance(e, Ejected)] == ["a"]
    rig.tell(Busy(rig.batch(f"q{breaker.FAILURES}")))
    rig.tick(0.5)
    assert not rig.model.work


def test_five_failures_eject_and_the_replica_returns_on_a_ramp() -> None:
    rig = Rig(fleet(variant("m", max_rows=4)))
    rig.ready("a")
    ejected = []
    for n in range(breaker.FAILURES):
        rig.ask(f"q{n}", idempotent=False, max_cost=None)
        effects = rig.failed(f"q{n}", "upstream")
        ejected += [e for e in effects if isinstance(e, Ejected)]
    assert [(e.replica, e.for_s) for e in ejected] == [("a", breaker.BASE_S)]
    for n in range(8):
        assert runs(rig.ask(f"w{n}")) == []
    rig.tick(1.001)
    assert len(rig.model.work) == 1
    sizes = []
    restored = []
    while rig.model.work:
        (work,) = rig.model.work.values()
        sizes.append(work.rows)
        restored += [e for e in rig.done(work.members[0]) if isinstance(e, Restored)]
    assert sizes == [1, 2, 4, 1]
    assert restored == [Restored("a")]


def test_a_slow_replica_is_ejected_among_faster_siblings() -> None:
    rig = Rig(fleet(variant("m", base=0.01, row=0.0, max_rows=1)))
    for name in "abc":
        rig.ready(name)
    found: list[Ejected] = []
    for n in range(400):
        rig.ask(f"q{n}")
        name = rig.runs_on(f"q{n}")
        found += [e for e in rig.done(f"q{n}", after=0.2 if name == "a" else 0.01) if isinstance(e, Ejected)]
        rig.model.forget_finished()
    # The balancer hardly uses the slow one any more, so only what it did get can eject it.
    assert {e.replica for e in found} <= {"a"}
    served = rig.dispatcher.state.replicas
    assert served["a"].samples < served["b"].samples


def test_a_lone_replica_forgets_what_it_was_compared_with() -> None:
    rig = Rig(fleet(variant("m", base=0.01, row=0.0, max_rows=1)))
    rig.ready("a")
    rig.ready("b")
    for n in range(30):
        rig.ask(f"x{n}", affinity="s")
        rig.ask(f"y{n}")
        names = {rig.runs_on(f"x{n}"): f"x{n}", rig.runs_on(f"y{n}"): f"y{n}"}
        rig.done(names["b"], after=0.01)
        rig.done(names["a"], after=0.05)
    rig.tell(ReplicaGone("b", "crash"))
    for n in range(100):
        rig.ask(f"z{n}")
        rig.done(f"z{n}", after=0.06)
    rig.ask("running")
    rig.ask("q", deadline_s=0.15)
    rig.done("running", after=0.06)
    assert rig.runs_on("q") == "a"


def test_limits_of_an_upstream_are_capacity() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.tell(Limits("a", requests_left=0, reset_s=2.0))
    assert runs(rig.ask("q")) == []
    rig.tick(1.9)
    assert not rig.model.work
    rig.tick(0.2)
    assert rig.runs_on("q") == "a"
    rig.done("q")
    rig.tell(Limits("a", requests_left=5, tokens_left=100, reset_s=60.0))
    assert runs(rig.ask("p")) == [("a", ("p",))]


def test_a_report_of_other_gateways_load_counts() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a", shared=True)
    rig.ready("b", shared=True)
    rig.tell(Report("a", free_in_s=1.0))
    rig.tell(Report("b", free_in_s=0.0))
    assert runs(rig.ask("q")) == [("b", ("q",))]
    rig.done("q")
    rig.tell(Report("a", free_in_s=0.0, age_s=100.0))
    assert runs(rig.ask("p")) == [("b", ("p",))]


def test_draining_finishes_what_runs_and_takes_nothing_new() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ready("b")
    rig.ask("q")
    name = rig.runs_on("q")
    assert rig.tell(DrainReplica(name)) == []
    assert rig.tell(DrainReplica(name)) == []
    other = ({"a", "b"} - {name}).pop()
    assert runs(rig.ask("p")) == [(other, ("p",))]
    assert Drained(name) in rig.done("q")
    assert rig.tell(DrainReplica(other)) == []
    assert Drained(other) in rig.done("p")


def test_an_idle_replica_is_drained_at_once() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    assert rig.tell(DrainReplica("a")) == [Drained("a")]


def test_a_draining_replica_that_dies_is_not_waited_for() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q")
    rig.tell(DrainReplica("a"))
    rig.tell(ReplicaGone("a", "crash"))
    assert rig.model.asked["q"].outcome == "failed"


def test_a_replica_that_is_ready_again_gives_its_work_back() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q")
    rig.ready("a", after=0.01)
    assert rig.runs_on("q") == "a"
    assert ends(rig.done("q")) == [("q", "done")]


def test_a_measured_profile_replaces_the_guess() -> None:
    rig = Rig(fleet(variant("m", base=1.0)))
    rig.ready("a", profile=BatchProfile(0.001, 0.0))
    assert runs(rig.ask("q", deadline_s=0.01)) == [("a", ("q",))]


def test_what_waits_is_placed_anew_when_a_profile_changes_its_cost() -> None:
    from semaforo.entities import Cost

    cheap = variant("m", base=0.001, row=0.0, cost=Cost(second=1.0))
    rig = Rig(fleet(cheap, variant("n", base=0.001, row=0.0)))
    rig.ready("a", "m/1/v")
    rig.ready("b", "n/1/v")
    rig.ask("r1")
    rig.ask("r2")
    rig.ask("q", max_cost=0.01)
    rig.ready("c", "m/1/v", profile=BatchProfile(0.1, 0.0))
    rig.done("r1" if rig.runs_on("r1") == "b" else "r2")
    assert rig.runs_on("q") == "b"


def test_a_replica_of_a_variant_that_left_the_catalog_finishes_and_gets_nothing() -> None:
    rig = Rig(fleet(variant("m"), variant("n")))
    rig.ready("a", "m/1/v")
    rig.ask("q")
    rig.tell(FleetChanged(fleet(variant("n"))))
    assert ends(rig.done("q")) == [("q", "done")]
    assert runs(rig.ask("p")) == []
    assert runs(rig.ready("b", "n/1/v")) == []


def test_a_retry_avoids_the_replica_that_failed_while_another_is_at_hand() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ready("b")
    rig.ask("q")
    name = rig.runs_on("q")
    rig.failed("q")
    assert rig.runs_on("q") == ({"a", "b"} - {name}).pop()


def test_a_retry_goes_back_to_the_only_replica_that_is_there() -> None:
    rig = Rig(fleet(variant("m", max_rows=1)))
    rig.ready("a")
    rig.ready("b")
    rig.tell(Limits("b", retry_after_s=50.0))
    rig.ask("q")
    rig.ask("first", deadline_s=0.5)
    rig.failed("q")
    assert rig.runs_on("first") == "a"
    rig.done("first")
    assert rig.runs_on("q") == "a"


def test_under_pressure_a_reserve_serves_after_patience_and_quality_returns() -> None:
    task = TaskType("t", prefer=Preference(goal="quality"))
    best = variant("best", quality=0.95, base=0.1, row=0.0, max_rows=1)
    cheap = variant("cheap", quality=0.8, base=0.01, row=0.0, max_rows=1)
    rig = Rig(fleet(best, cheap, tasks=[task]))
    rig.ready("b", "best/1/v")
    rig.ready("c", "cheap/1/v")
    assert runs(rig.ask("q0", deadline_s=1.0)) == [("b", ("q0",))]
    assert runs(rig.ask("q1", deadline_s=1.0)) == []
    assert runs(rig.ask("q2", deadline_s=0.3)) == [("c", ("q2",))]
    rig.done("q2", after=0.01)
    rig.done("q0", after=0.09)
    assert rig.runs_on("q1") == "b"
    rig.done("q1", after=0.1)
    assert runs(rig.ask("q3", deadline_s=1.0)) == [("b", ("q3",))]


def test_patience_is_not_asked_for_variants_that_are_not_there() -> None:
    task = TaskType("t", prefer=Preference(goal="quality"))
    best, cheap = variant("best", quality=0.95), variant("cheap", quality=0.8)
    rig = Rig(fleet(best, cheap, tasks=[task]))
    rig.ready("c", "cheap/1/v")
    assert runs(rig.ask("q0", deadline_s=10.0)) == [("c", ("q0",))]
    assert runs(rig.ask("q1", deadline_s=10.0)) == []
    assert runs(rig.done("q0")) == [("c", ("q1",))]


def test_when_the_other_replica_is_left_alone_a_retry_goes_back_to_the_idle_one() -> None:
    rig = Rig(fleet(variant("m", max_rows=1)))
    rig.ready("a")
    rig.ready("b")
    rig.ask("x")
    rig.ask("y")
    failed_on, other = rig.runs_on("x"), rig.runs_on("y")
    rig.failed("x")
    assert not rig.model.asked["x"].live
    rig.tell(Limits(other, retry_after_s=50.0))
    assert rig.runs_on("x") == failed_on


def test_a_worker_gets_one_batch_ahead_where_the_hand_over_would_cost() -> None:
    rig = Rig(fleet(variant("m", base=0.0001, row=0.001, max_rows=4)))
    rig.ready("a", "m/1/v", ahead=True)
    assert runs(rig.ask("first")) == [("a", ("first",))]
    for number in range(10):
        assert runs(rig.ask(f"q{number}")) == []
    (first,) = rig.model.work
    # A batch now, and one that follows it without a hand-over; never a third.
    begun = runs(rig.tell(BatchDone(first, 0.0011), 0.0011))
    assert begun == [("a", ("q0", "q1", "q2", "q3")), ("a", ("q4", "q5", "q6", "q7"))]
    running, ahead = sorted(rig.model.work)
    assert rig.dispatcher.state.batches[ahead].started == pytest.approx(rig.now + 0.0041, rel=0.05)
    rig.tell(BatchDone(running, 0.002), 0.002)
    assert rig.dispatcher.state.batches[ahead].started == rig.now


def test_the_last_batch_of_a_worker_that_dies_and_the_one_behind_it_are_both_run_again() -> None:
    rig = Rig(fleet(variant("m", base=0.0001, row=0.001, max_rows=4)))
    rig.ready("a", "m/1/v", ahead=True)
    for number in range(7):
        rig.ask(f"q{number}")
    (first,) = rig.model.work
    rig.tell(BatchDone(first, 0.001), 0.001)
    assert len(rig.model.work) == 2
    rig.tell(ReplicaGone("a", "crash"))
    assert not rig.model.work
    rig.ready("b", "m/1/v")
    while rig.model.work:
        rig.tell(BatchDone(min(rig.model.work), 0.002), 0.002)
    assert rig.model.outcomes["done"] == 7


def test_work_of_many_milliseconds_is_not_bound_ahead() -> None:
    rig = Rig(fleet(variant("m", base=0.0001, row=0.02, max_rows=4)))
    rig.ready("a", "m/1/v", ahead=True)
    for number in range(7):
        rig.ask(f"q{number}")
    (first,) = rig.model.work
    assert len(runs(rig.tell(BatchDone(first, 0.02), 0.02))) == 1
