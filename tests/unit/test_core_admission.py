"""The door and the queue: who is admitted, who waits, who is turned away, and what they are told."""

from __future__ import annotations

from math import isfinite

import pytest

from fleets import Rig, ask, chat, decided, ends, finish, fleet, runs, variant
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Release, Score
from semaforo.core.events import (
    Arrived,
    BatchDone,
    Cancelled,
    DrainReplica,
    FleetChanged,
    ReplicaGone,
    Scored,
)
from semaforo.entities import Preference, Priority, Step, TaskType
from semaforo.errors import NotFound


def bounded(rows: int) -> TaskType:
    return TaskType("t", max_queue_rows=rows)


def test_a_free_replica_serves_at_once() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    effects = rig.ask("q")
    assert runs(effects) == [("a", ("q",))]
    assert decided(effects).reason == "best score"
    effects = rig.done("q")
    assert ends(effects) == [("q", "done")]
    assert effects[-1] == Release("q")


def test_unknown_targets_are_refused_and_the_nearest_is_named() -> None:
    rig = Rig(fleet(variant("digits-net", task="digits")))
    rig.ready("a")
    answer = finish(rig.ask("q", "digit"))
    assert (answer.outcome, answer.code) == ("refused", "not_found")
    assert "Did you mean 'digits'?" in answer.message


def test_nothing_meets_the_contract() -> None:
    rig = Rig(fleet(variant("m", quality=0.5)))
    rig.ready("a")
    answer = finish(rig.ask("q", min_quality=0.9))
    assert (answer.outcome, answer.code, answer.retry_after_s) == ("refused", "unsatisfiable", 0.0)
    assert "m/1/v by quality (0.5 < 0.9)" in answer.message


def test_no_replica_in_service_is_not_ready() -> None:
    answer = finish(Rig(fleet(variant("m"))).ask("q"))
    assert (answer.outcome, answer.code) == ("refused", "not_ready")
    assert "m/1/v" in answer.message


def test_a_deadline_that_cannot_be_met_alone_is_refused_without_a_time_to_retry() -> None:
    rig = Rig(fleet(variant("m", base=0.05)))
    rig.ready("a")
    answer = finish(rig.ask("q", deadline_s=0.02))
    assert (answer.outcome, answer.code, answer.retry_after_s) == ("refused", "refused", 0.0)
    assert "20 ms asked, 51 ms predicted" in answer.message


def test_a_deadline_that_the_backlog_breaks_is_refused_with_the_predicted_wait() -> None:
    rig = Rig(fleet(variant("m", base=0.01, row=0.0, max_rows=1)))
    rig.ready("a")
    for n in range(5):
        rig.ask(f"w{n}", priority=Priority.HIGH)
    effects = rig.ask("q", deadline_s=0.03)
    answer = finish(effects)
    assert (answer.outcome, answer.code) == ("refused", "refused")
    assert 0.01 < answer.retry_after_s < 0.06
    assert "4 rows ahead" in answer.message
    assert decided(effects).considered[0].ruled_out == "load"


def test_what_waits_too_long_is_dropped_before_its_deadline() -> None:
    rig = Rig(fleet(variant("m", base=0.01, row=0.0, max_rows=1)))
    rig.ready("a")
    rig.ask("slow")
    rig.ask("q", deadline_s=0.03)
    rig.tick(0.1)
    assert rig.model.asked["q"].outcome == "expired"
    assert rig.model.asked["slow"].outcome == ""


def test_a_full_queue_refuses_its_own_class_and_sheds_the_last_of_a_lower_one() -> None:
    rig = Rig(fleet(variant("m"), tasks=[bounded(2)]))
    rig.ready("a")
    rig.ask("running")
    rig.ask("n1", deadline_s=5.0)
    rig.ask("n2", deadline_s=9.0)
    answer = finish(rig.ask("n3", deadline_s=5.0))
    assert (answer.outcome, answer.code) == ("refused", "refused")
    assert "full" in answer.message
    effects = rig.ask("h", priority=Priority.HIGH)
    assert ends(effects) == [("n2", "shed")]


def test_a_large_request_sheds_as_many_as_it_needs() -> None:
    rig = Rig(fleet(variant("m"), tasks=[bounded(4)]))
    rig.ready("a")
    rig.ask("running")
    for n in range(4):
        rig.ask(f"n{n}")
    effects = rig.ask("h", rows=3, priority=Priority.HIGH)
    assert ends(effects) == [("n3", "shed"), ("n2", "shed"), ("n1", "shed")]
    assert sum(a.rows for a in rig.model.waiting()) == 4


def test_nobody_is_shed_for_a_request_that_does_not_fit_anyway() -> None:
    rig = Rig(fleet(variant("m"), tasks=[bounded(4)]))
    rig.ready("a")
    rig.ask("running")
    rig.ask("h0", rows=3, priority=Priority.HIGH)
    rig.ask("low", priority=Priority.LOW)
    assert ends(rig.ask("h", rows=3, priority=Priority.HIGH)) == [("h", "refused")]


def test_an_admitted_request_is_never_refused_later() -> None:
    rig = Rig(fleet(variant("m"), tasks=[bounded(4)]))
    rig.ready("a")
    rig.ask("running")
    for n in range(4):
        rig.ask(f"n{n}")
    effects = rig.tell(FleetChanged(fleet(variant("m"), tasks=[bounded(2)])))
    assert ends(effects) == [("n2", "shed"), ("n3", "shed")]


def test_looking_at_a_decision_changes_nothing() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    before = rig.dispatcher.snapshot()
    seen = rig.dispatcher.decide(ask("q", deadline_s=0.5), rig.now)
    assert (seen.pick, seen.replica, seen.reason) == ("m/1/v", "a", "best score")
    assert rig.dispatcher.snapshot() == before


def test_looking_tells_what_arriving_would() -> None:
    rig = Rig(fleet(variant("m", base=0.01, row=0.0, max_rows=1)))
    rig.ready("a")
    rig.ask("running")
    look = rig.dispatcher.decide
    assert look(ask("q", deadline_s=0.5), rig.now).reason == "waits"
    assert "no replica can finish" in look(ask("q", deadline_s=0.015), rig.now).reason
    assert "meets the contract" in look(ask("q", min_quality=1.0), rig.now).reason
    with pytest.raises(NotFound):
        look(ask("q", "nothing"), rig.now)


@pytest.mark.parametrize("arrived", [0.0, 0.1, 1 / 3, 7.7, 12345.678, 3.0000000000000004])
def test_without_a_deadline_a_request_waits_a_minute_at_most(arrived: float) -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.tick(arrived)
    rig.ask("stuck")
    rig.ask("q")
    rig.tick(61.0)
    answer = rig.model.asked["q"].outcome
    assert answer == "expired"


def test_while_a_lost_replica_is_expected_back_requests_wait_for_it() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.tell(ReplicaGone("a", "crash"))
    effects = rig.ask("q", deadline_s=5.0)
    assert decided(effects).reason == "waits"
    assert all(isfinite(c.predicted_s) for c in decided(effects).considered)
    assert runs(rig.ready("a", after=0.1)) == [("a", ("q",))]


def test_work_of_a_crashed_replica_waits_for_the_next_one() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q", deadline_s=5.0)
    assert ends(rig.tell(ReplicaGone("a", "crash"), 0.001)) == []
    assert runs(rig.ready("a", after=0.1)) == [("a", ("q",))]


def test_a_replica_that_does_not_come_back_is_given_up() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.tell(ReplicaGone("a", "crash"))
    rig.ask("q")
    rig.tick(31.0)
    assert rig.model.asked["q"].outcome == "failed"
    assert finish(rig.ask("late")).code == "not_ready"


def test_when_the_last_replica_is_stopped_what_waits_is_told_at_once() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("running")
    rig.ask("q")
    rig.tell(DrainReplica("a"))
    rig.done("running")
    answer = finish(rig.tell(ReplicaGone("a", "stopped")))
    assert (answer.request, answer.code) == ("q", "not_ready")


def test_an_id_in_use_is_refused_and_the_first_owner_is_served() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q")
    assert finish(rig.ask("q")).code == "conflict"
    assert ends(rig.done("q")) == [("q", "done")]


def test_an_id_whose_work_still_runs_is_in_use() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("q")
    number = rig.batch("q")
    rig.tell(Cancelled("q"))
    assert finish(rig.ask("q")).code == "conflict"
    assert rig.tell(BatchDone(number, 0.1)) == [Release("q")]


def test_scores_decide_where_quality_differs_by_request() -> None:
    task = TaskType("t", score_s=0.01, prefer=Preference(quality=1.0, latency=0.0, cost=0.0))
    rig = Rig(fleet(variant("good", quality=0.9), variant("bad", quality=0.8), tasks=[task]))
    rig.ready("g", "good/1/v")
    rig.ready("b", "bad/1/v")
    effects = rig.ask("q", deadline_s=1.0)
    assert effects == [Score("q", ("good/1/v", "bad/1/v"), 0.01)]
    effects = rig.tell(Scored("q", {"good/1/v": -0.2, "bad/1/v": 0.05}), 0.001)
    assert runs(effects) == [("b", ("q",))]


def test_late_scores_are_not_waited_for() -> None:
    task = TaskType("t", score_s=0.01)
    rig = Rig(fleet(variant("x"), variant("y"), tasks=[task]))
    rig.ready("a", "x/1/v")
    rig.ask("q")
    rig.tick(0.02)
    assert rig.runs_on("q") == "a"
    assert rig.tell(Scored("q", {"y/1/v": 1.0})) == []


def test_a_step_inherits_its_deadline_and_falls_with_its_parent() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a", slots=4)
    rig.ask("p")
    rig.ask("c1", step=Step("p", deadline_at=0.5), deadline_s=3.0)
    rig.ask("c2", step=Step("c1"))
    rig.ask("other")
    assert rig.model.work[rig.batch("c1")].members == ("c1",)
    effects = rig.tell(Cancelled("p"))
    assert ends(effects) == [("p", "cancelled"), ("c1", "cancelled"), ("c2", "cancelled")]


def test_cancelling_what_is_over_or_unknown_does_nothing_but_reaches_its_steps() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a", slots=2)
    rig.ask("p")
    rig.ask("c", step=Step("p"))
    rig.done("p")
    assert rig.tell(Cancelled("nobody")) == []
    assert ends(rig.tell(Cancelled("p"))) == [("c", "cancelled")]


def test_a_chat_is_not_served_by_tensors_nor_the_other_way_round() -> None:
    rig = Rig(fleet(variant("m"), chat("l", task="t")))
    rig.ready("a", "m/1/v")
    rig.ready("b", "l/1/v", slots=2)
    assert runs(rig.ask("q", stream=True)) == [("b", ("q",))]
    assert runs(rig.ask("p")) == [("a", ("p",))]
    answer = finish(rig.ask("x", "m", stream=True))
    assert answer.code == "unsatisfiable"
    assert "modality" in answer.message


def test_the_task_gives_a_deadline_where_the_request_has_none() -> None:
    rig = Rig(fleet(variant("m"), tasks=[TaskType("t", deadline_s=0.5)]))
    rig.ready("a")
    (run,) = [e for e in rig.ask("q") if type(e).__name__ == "Run"]
    assert run.deadline == 0.5
    (run,) = [e for e in rig.done("q") + rig.ask("p", deadline_s=0.2) if type(e).__name__ == "Run"]
    assert run.deadline == pytest.approx(0.201)


def test_an_empty_dispatcher_answers_all_the_same() -> None:
    dispatcher = Dispatcher()
    assert finish(dispatcher.handle(Arrived(ask("q")), 0.0)).code == "not_found"
    assert dispatcher.next_deadline() is None
