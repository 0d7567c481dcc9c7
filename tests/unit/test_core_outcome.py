"""How batches end: answers, retries, hedges, streams, and what the journal of effects says of them."""

from __future__ import annotations

import pytest

from fleets import Rig, chat, ends, finish, fleet, runs, variant
from semaforo.core.effects import Cancel, Finish, Release
from semaforo.core.events import (
    BatchDone,
    BatchFailed,
    Busy,
    Cancelled,
    DrainReplica,
    Feedback,
    FirstChunk,
    FleetChanged,
    Limits,
    Progress,
    ReplicaGone,
    Report,
    Scored,
)
from semaforo.entities import Cost, Priority, StreamProfile, TaskType

ONE_AT_A_TIME = variant("m", base=0.01, row=0.0, max_rows=1)


def full(rig: Rig, *names: str) -> None:
    for name in names:
        rig.ready(name)


def test_members_that_failed_alone_fail_and_the_others_are_done() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("r")
    for rid in ("x", "y", "z"):
        rig.ask(rid)
    rig.done("r")
    effects = rig.done("x", failed=(("y", "invalid_request", "bad image", 0.0),))
    assert ends(effects) == [("x", "done"), ("y", "failed"), ("z", "done")]
    assert finish(effects, "y").message == "bad image"


def test_cost_is_shared_by_rows_and_metered_by_tokens() -> None:
    rig = Rig(
        fleet(
            variant("m", cost=Cost(second=2.0)),
            chat("l", cost=Cost(input_token=1.0, output_token=10.0, request=0.5)),
        )
    )
    rig.ready("a", "m/1/v")
    rig.ready("b", "l/1/v")
    rig.ask("r")
    rig.ask("x", rows=1)
    rig.ask("y", rows=3)
    rig.done("r")
    effects = rig.done("x", after=0.4)
    assert finish(effects, "x").cost == pytest.approx(0.2)
    assert finish(effects, "y").cost == pytest.approx(0.6)
    rig.ask("s", "c", stream=True, prompt_tokens=7)
    assert finish(rig.done("s", prompt_tokens=5, output_tokens=2)).cost == pytest.approx(0.5 + 5 + 20)


def test_a_failed_batch_is_run_again_one_by_one() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("r")
    rig.ask("x")
    rig.ask("y")
    assert runs(rig.done("r")) == [("a", ("x", "y"))]
    assert runs(rig.failed("x")) == [("a", ("x",))]
    assert runs(rig.done("x")) == [("a", ("y",))]
    assert ends(rig.failed("y", "invalid", message="bad")) == [("y", "failed")]


def test_a_retry_waits_its_turn_behind_what_is_due_before_it() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    rig.ready("a")
    rig.ask("q", priority=Priority.LOW, deadline_s=9.0)
    rig.ask("urgent", priority=Priority.CRITICAL, deadline_s=1.0)
    assert runs(rig.failed("q")) == [("a", ("urgent",))]
    assert runs(rig.done("urgent")) == [("a", ("q",))]


def test_three_tries_and_no_more() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    full(rig, "a", "b", "c", "d")
    rig.ask("q")
    seen = {rig.runs_on("q")}
    rig.failed("q")
    seen.add(rig.runs_on("q"))
    rig.failed("q")
    seen.add(rig.runs_on("q"))
    answer = finish(rig.failed("q", message="out of memory"))
    assert (answer.outcome, answer.code, answer.message) == ("failed", "model_failed", "out of memory")
    assert len(seen) >= 2


def test_the_retry_budget_ends_a_storm() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    full(rig, *(f"r{n}" for n in range(4)))
    retried = 0
    for n in range(200):
        rig.ask(f"q{n}", deadline_s=30.0)
        while rig.model.asked[f"q{n}"].live:
            retried += bool(runs(rig.failed(f"q{n}", "crash", after=0.0)))
    assert 100 <= retried <= 100 + 0.2 * 200 + 1


@pytest.mark.parametrize("kind", ["crash", "upstream"])
def test_work_that_may_have_been_done_is_not_repeated_unless_it_may_be(kind: str) -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    full(rig, "a", "b")
    rig.ask("q", idempotent=False)
    assert ends(rig.failed("q", kind)) == [("q", "failed")]
    rig.ask("p", idempotent=True)
    assert len(runs(rig.failed("p", kind))) == 1


def test_a_model_error_may_be_tried_elsewhere_even_so() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    full(rig, "a", "b")
    rig.ask("q", idempotent=False)
    assert len(runs(rig.failed("q", "error"))) == 1


def test_bad_input_is_not_tried_again() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    full(rig, "a", "b")
    rig.ask("q")
    answer = finish(rig.failed("q", "invalid", message="no such token"))
    assert (answer.code, answer.message) == ("invalid_request", "no such token")


def test_late_news_changes_nothing() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    rig.ready("a")
    rig.ask("q")
    number = rig.batch("q")
    rig.done("q")
    before = rig.dispatcher.snapshot()
    for event in (
        BatchDone(number, 0.1), BatchFailed(number, "crash"), Busy(number), FirstChunk(number),
        Progress(number, 5), BatchDone(999, 0.1), Busy(999), ReplicaGone("ghost"), DrainReplica("ghost"),
        Limits("ghost", retry_after_s=1.0), Report("ghost", 1.0), Scored("q", {}), Cancelled("q"),
        Feedback("q", "ghost/1/v", 1.0),
    ):  # fmt: skip
        assert rig.tell(event) == []
    assert rig.dispatcher.snapshot() == before


def test_cancelling_running_work_stops_it_and_frees_the_payload_after_it_ends() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    rig.ready("a")
    rig.ask("q")
    number = rig.batch("q")
    effects = rig.tell(Cancelled("q"))
    assert [type(e) for e in effects] == [Finish, Cancel]
    assert rig.tell(BatchFailed(number, "cancelled"), 0.001) == [Release("q")]


def test_a_batch_is_stopped_only_when_nobody_wants_it() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("a")
    rig.ask("r")
    rig.ask("x")
    rig.ask("y")
    rig.done("r")
    assert not [e for e in rig.tell(Cancelled("x")) if isinstance(e, Cancel)]
    assert [e for e in rig.tell(Cancelled("y")) if isinstance(e, Cancel)]
    assert runs(rig.ask("q")) == []
    effects = rig.tell(BatchDone(max(rig.model.work), 0.01), 0.01)
    assert [e for e in effects if isinstance(e, Release)] == [Release("x"), Release("y")]
    assert runs(effects) == [("a", ("q",))]


def test_past_its_deadline_running_work_is_answered_and_stopped() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME))
    rig.ready("a")
    rig.ask("q", deadline_s=0.05)
    rig.tick(0.1)
    assert rig.model.asked["q"].outcome == "expired"
    assert rig.model.work[rig.batch("q")].cancelled


# --- hedges ------------------------------------------------------------------------------------------------

HEDGED = TaskType("t", hedge=2.0)


def test_slow_work_is_hedged_and_the_first_answer_counts() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME, tasks=[HEDGED]))
    full(rig, "a", "b")
    rig.ask("q")
    first = rig.batch("q")
    rig.tick(0.019)
    assert len(rig.model.asked["q"].live) == 1
    rig.tick(0.002)
    assert len(rig.model.asked["q"].live) == 2
    second = max(rig.model.asked["q"].live)
    effects = rig.tell(BatchDone(second, 0.01), 0.01)
    assert ends(effects) == [("q", "done")]
    assert [e.batch for e in effects if isinstance(e, Cancel)] == [first]
    assert not [e for e in effects if isinstance(e, Release)]
    assert Release("q") in rig.tell(BatchFailed(first, "cancelled"))


def test_a_failed_copy_leaves_the_other_running() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME, tasks=[HEDGED]))
    full(rig, "a", "b")
    rig.ask("q")
    rig.tick(0.03)
    first, second = sorted(rig.model.asked["q"].live)
    assert ends(rig.tell(BatchFailed(first, "crash"))) == []
    assert ends(rig.tell(BatchDone(second, 0.01))) == [("q", "done")]


def test_what_is_not_idempotent_is_never_hedged() -> None:
    rig = Rig(fleet(ONE_AT_A_TIME, tasks=[HEDGED]))
    full(rig, "a", "b")
    rig.ask("q", idempotent=False)
    rig.tick(1.0)
    assert len(rig.model.asked["q"].live) == 1


def test_a_copy_that_would_be_late_is_not_begun() -> None:
    slow = variant("slow", base=0.1, row=0.0, max_rows=1)
    rig = Rig(fleet(ONE_AT_A_TIME, slow, tasks=[HEDGED]))
    rig.ready("a", "m/1/v")
    rig.ready("b", "slow/1/v")
    rig.ask("q", deadline_s=0.05)
    assert rig.runs_on("q") == "a"
    rig.tick(0.03)
    assert len(rig.model.asked["q"].live) == 1


def test_a_copied_stream_keeps_to_the_tokens_a_replica_holds() -> None:
    profile = StreamProfile(first_s=0.01, token_s=0.0001, slots=4, tokens=100)
    rig = Rig(fleet(chat("l", profile=profile), tasks=[TaskType("c", kind="chat", hedge=2.0)]))
    rig.ready("a", slots=4)
    rig.ready("b", slots=4)
    rig.ask("x", "c", stream=True, prompt_tokens=80, max_tokens=10)
    rig.ask("y", "c", stream=True, prompt_tokens=80, max_tokens=10)
    rig.tick(1.0)
    assert {len(rig.model.asked[i].live) for i in ("x", "y")} == {1}


# --- streams -----------------------------------------------------------------------------------------------


def test_streams_fill_slots_and_the_rest_waits() -> None:
    rig = Rig(fleet(chat("l")))
    rig.ready("a", slots=2)
    for n in range(3):
        rig.ask(f"s{n}", "c", stream=True)
    assert len(rig.model.work) == 2
    assert runs(rig.done("s0", output_tokens=9)) == [("a", ("s2",))]


def test_tokens_are_capacity_and_long_prompts_are_not_passed_over() -> None:
    profile = StreamProfile(first_s=0.01, token_s=0.001, slots=8, tokens=100)
    rig = Rig(fleet(chat("l", profile=profile)))
    rig.ready("a", slots=8)
    rig.ask("s0", "c", stream=True, prompt_tokens=50, max_tokens=10)
    assert runs(rig.ask("s1", "c", stream=True, prompt_tokens=80, max_tokens=10)) == []
    assert runs(rig.ask("s2", "c", stream=True, prompt_tokens=70, max_tokens=10)) == []
    assert runs(rig.done("s0", output_tokens=10)) == [("a", ("s1",))]
    assert runs(rig.done("s1", output_tokens=10)) == [("a", ("s2",))]


def test_a_replica_with_room_for_the_tokens_is_found_behind_one_without() -> None:
    profile = StreamProfile(first_s=0.01, token_s=0.001, slots=8, tokens=100)
    rig = Rig(fleet(chat("l", profile=profile)))
    rig.ready("a", slots=8)
    rig.ready("b", slots=8)
    rig.ask("big", "c", stream=True, prompt_tokens=80, max_tokens=10)
    for n in range(2):
        rig.ask(f"small{n}", "c", stream=True, prompt_tokens=10, max_tokens=10)
    assert len(runs(rig.ask("more", "c", stream=True, prompt_tokens=30, max_tokens=10))) == 1


def test_a_stream_longer_than_predicted_holds_its_place() -> None:
    profile = StreamProfile(first_s=0.01, token_s=0.001, slots=8, tokens=100)
    rig = Rig(fleet(chat("l", profile=profile)))
    rig.ready("a", slots=8)
    rig.ask("s0", "c", stream=True, prompt_tokens=10, max_tokens=20)
    rig.tell(FirstChunk(rig.batch("s0")), 0.01)
    rig.tell(Progress(rig.batch("s0"), 70), 0.05)
    assert runs(rig.ask("s1", "c", stream=True, prompt_tokens=20, max_tokens=10)) == []


def test_a_stream_that_has_begun_is_not_restarted_in_silence() -> None:
    rig = Rig(fleet(chat("l")))
    rig.ready("a")
    rig.ready("b")
    rig.ask("s", "c", stream=True)
    rig.tell(FirstChunk(rig.batch("s")), 0.01)
    assert ends(rig.failed("s", "upstream")) == [("s", "failed")]
    rig.ask("p", "c", stream=True)
    assert len(runs(rig.failed("p", "upstream"))) == 1


def test_affinity_prefers_the_replica_that_knows_the_session() -> None:
    rig = Rig(fleet(chat("l")))
    full(rig, "a", "b", "c")
    rig.ask("s0", "c", stream=True, affinity="k")
    home = rig.runs_on("s0")
    rig.done("s0", output_tokens=5)
    for n in range(1, 6):
        rig.ask(f"s{n}", "c", stream=True, affinity="k")
        assert rig.runs_on(f"s{n}") == home
        rig.done(f"s{n}", output_tokens=5)


# --- a fleet that changes under way ---------------------------------------------------------------------------


def test_an_alias_that_moves_to_another_task_takes_its_requests_along() -> None:
    old, new = variant("old", task="t", max_rows=1), variant("new", task="u")
    rig = Rig(fleet(old, new, aliases={"it": "old"}))
    rig.ready("a", "old/1/v")
    rig.ask("r", "it")
    rig.ask("q", "it")
    assert runs(rig.tell(FleetChanged(fleet(new, aliases={"it": "new"})))) == []
    assert runs(rig.ready("b", "new/1/v")) == []
    assert rig.model.asked["q"].outcome == "failed"


def test_requests_that_wait_move_to_what_serves_their_alias_now() -> None:
    old, new = variant("old", task="t", max_rows=1), variant("new", task="u")
    rig = Rig(fleet(old, new, aliases={"it": "old"}))
    rig.ready("a", "old/1/v")
    rig.ready("b", "new/1/v")
    rig.ask("n", "u")
    rig.ask("r", "it")
    rig.ask("q", "it")
    rig.tell(FleetChanged(fleet(old, new, aliases={"it": "new"})))
    assert runs(rig.done("n")) == [("b", ("q",))]
    assert runs(rig.failed("r")) == []
    assert runs(rig.done("q")) == [("b", ("r",))]


def test_a_result_that_comes_after_its_deadline_is_late_whether_or_not_a_timer_fired() -> None:
    rig = Rig(fleet(variant("m")))
    rig.ready("r")
    rig.ask("q", deadline_s=0.010)
    number = rig.batch("q")
    rig.now += 0.011
    effects = rig.dispatcher.handle(BatchDone(number, 0.011), rig.now)
    ended = finish(effects, "q")
    assert (ended.outcome, ended.code) == ("expired", "expired")
    assert "10 ms" in ended.message
