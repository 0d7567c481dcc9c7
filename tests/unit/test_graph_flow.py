"""How a run of a graph goes on: which step begins, what is given up, and when there is an answer."""

from __future__ import annotations

from typing import Any

from semaforo.graph.flow import Answered, Begin, Drop, Failed, Flow, Loss, Phase
from semaforo.graph.graph import Graph, Step
from semaforo.graph.path import tails, whole
from semaforo.graph.plan import Plan

NEVER = float("inf")
BAD = Loss("model_failed", "it broke", 0.5)


def ask(name: str, *needs: str, **more: Any) -> Step:
    return Step(
        name=name, kind="ask", target="m", inputs={f"x{i}": f"{n}.y" for i, n in enumerate(needs)}, **more
    )


def fuse(name: str, *of: str, **more: Any) -> Step:
    return Step(name=name, kind="fuse", target="first", of=of, **more)


def plan(*steps: Step, answer: str = "") -> Plan:
    return Plan(Graph(name="g", task="t", steps=steps, answer={"": answer or steps[-1].name}))


def flow(*steps: Step, deadline: float = NEVER, takes: dict[str, float] | None = None) -> Flow:
    made = plan(*steps)
    return Flow(made, deadline, tails(made, takes or {}), takes or {})


def begun(effects: list[Any]) -> list[str]:
    return [effect.step for effect in effects if isinstance(effect, Begin)]


def test_steps_follow_each_other_to_the_answer() -> None:
    run = flow(ask("a"), ask("b", "a"), ask("c", "b"))
    assert begun(run.begin(0)) == ["a"]
    assert begun(run.done("a", 1)) == ["b"]
    assert begun(run.done("b", 2)) == ["c"]
    assert run.done("c", 3) == [Answered()]
    assert run.over
    assert run.done("a", 4) == run.missing("b", BAD, 4) == run.tick(5) == []


def test_steps_that_do_not_need_each_other_begin_together() -> None:
    run = flow(ask("a"), ask("b"), ask("c", "a", "b"))
    assert begun(run.begin(0)) == ["a", "b"]
    assert run.done("a", 1) == []
    assert begun(run.done("b", 1)) == ["c"]


def test_a_failure_goes_on_to_what_needs_it_and_its_reason_to_the_answer() -> None:
    run = flow(ask("a"), ask("b", "a"), ask("c", "b"))
    run.begin(0)
    assert run.missing("a", BAD, 1) == [Failed("a", "model_failed", "it broke", 0.5)]
    assert set(run.without) == {"a", "b", "c"}


def test_work_for_an_answer_that_cannot_be_is_stopped() -> None:
    run = flow(ask("a"), ask("b"), ask("c", "a", "b"))
    run.begin(0)
    assert run.missing("a", BAD, 1) == [Drop("b"), Failed("a", "model_failed", "it broke", 0.5)]
    assert run.phases["b"] == Phase.DROPPED


def test_a_fusion_goes_on_with_who_is_there() -> None:
    run = flow(ask("a"), ask("b"), fuse("f", "a", "b"))
    run.begin(0)
    assert run.missing("a", BAD, 1) == []
    assert begun(run.done("b", 2)) == ["f"]
    assert run.present("f") == ["b"]
    assert run.done("f", 3) == [Answered()]
    assert run.without == {"a": Loss("model_failed", "it broke", 0.5, "a")}


def test_a_fusion_cannot_do_with_less_than_it_says() -> None:
    run = flow(ask("a"), ask("b"), fuse("f", "a", "b", least=2))
    run.begin(0)
    run.missing("a", BAD, 1)
    (end,) = run.done("b", 2)
    assert isinstance(end, Failed)
    assert end.message == "'f' needs 2 of its members and has 1; a: it broke"


def test_a_branch_that_is_not_taken_is_skipped_with_what_needs_it() -> None:
    run = flow(ask("a"), ask("b", when="a.y > 0"), ask("c", "b"), fuse("f", "c", "a"))
    assert begun(run.begin(0)) == ["a"]
    assert begun(run.done("a", 1)) == ["b"]
    assert begun(run.skipped("b", 1)) == ["f"]
    assert run.phases["c"] == Phase.SKIPPED
    assert run.without == {}


def test_an_answer_that_was_skipped_for_every_row_is_an_error() -> None:
    run = flow(ask("a"), ask("b", when="a.y > 0"))
    run.begin(0)
    run.done("a", 1)
    (end,) = run.skipped("b", 2)
    assert isinstance(end, Failed)
    assert "skipped for every row" in end.message


def test_a_quorum_answers_and_stops_the_rest() -> None:
    run = flow(ask("a"), ask("b"), ask("c"), fuse("f", "a", "b", "c", quorum=2))
    run.begin(0)
    assert run.done("a", 1) == []
    assert run.open_fusions("a") == ["f"]
    run.done("b", 2)
    assert run.agreed("f", 2) == [Begin("f", NEVER), Drop("c")]
    assert run.agreed("f", 2) == run.done("c", 3) == []
    assert run.done("f", 3) == [Answered()]


def test_a_hedge_is_never_begun_where_it_is_not_needed() -> None:
    run = flow(ask("a"), ask("b", delay_s=5.0), fuse("f", "a", "b", quorum=1))
    assert begun(run.begin(0)) == ["a"]
    assert run.next_deadline() == 5.0
    run.done("a", 1)
    assert run.agreed("f", 1) == [Begin("f", NEVER)]
    assert run.phases["b"] == Phase.DROPPED
    assert run.tick(5) == []


def test_a_hedge_begins_when_its_time_has_come() -> None:
    run = flow(ask("a"), ask("b", delay_s=5.0), fuse("f", "a", "b", quorum=1))
    run.begin(0)
    assert run.tick(4.9) == []
    assert begun(run.tick(5.0)) == ["b"]


def test_after_the_first_answer_a_fusion_waits_so_long_and_no_longer() -> None:
    run = flow(ask("a"), ask("b"), fuse("f", "a", "b", wait_s=2.0))
    run.begin(0)
    assert run.next_deadline() is None
    run.done("a", 10)
    assert run.next_deadline() == 12
    assert run.tick(12) == [Begin("f", NEVER), Drop("b")]
    assert run.without["b"].code == "late"


def test_a_fusion_is_cut_where_the_rest_would_be_late() -> None:
    run = flow(
        ask("a"), ask("b"), fuse("f", "a", "b"), ask("g", "f"), deadline=10, takes={"f": 1.0, "g": 2.0}
    )
    assert [effect.deadline for effect in run.begin(0) if isinstance(effect, Begin)] == [7, 7]
    run.done("a", 1)
    assert run.next_deadline() == 7
    assert run.tick(7) == [Begin("f", 8), Drop("b")]


def test_a_fusion_without_anybody_in_time_goes_on_with_the_first_that_comes() -> None:
    run = flow(ask("a"), ask("b"), fuse("f", "a", "b"), deadline=10)
    run.begin(0)
    assert run.tick(10) == []
    assert begun(run.done("b", 11)) == ["f"]


def test_a_deadline_is_what_the_rest_of_the_way_leaves() -> None:
    takes = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 1.0}
    made = plan(ask("a"), ask("b", "a"), ask("c", "a"), ask("d", "b", "c"))
    assert tails(made, takes) == {"a": 5.0, "b": 1.0, "c": 1.0, "d": 0.0}
    assert whole(made, takes) == 6.0
    run = Flow(made, 20.0, tails(made, takes), takes)
    assert run.begin(0) == [Begin("a", 15.0)]
    assert run.done("a", 1) == [Begin("b", 19.0), Begin("c", 19.0)]
    late = Flow(made, 3.0, tails(made, takes), takes)
    assert late.begin(1.0) == [Begin("a", 1.0)]


def test_what_comes_after_waits_for_the_end_whatever_it_is() -> None:
    run = flow(ask("a"), ask("b", after=("a",)), fuse("f", "b", "a"))
    assert begun(run.begin(0)) == ["a"]
    assert begun(run.missing("a", BAD, 1)) == ["b"]


def test_the_step_at_fault_is_named_not_the_one_that_needs_it() -> None:
    graph = Graph(
        name="g",
        task="t",
        steps=(
            Step(name="cut", kind="call", target="f"),
            Step(name="read", kind="ask", target="m", inputs={"x": "cut.y"}),
        ),
        answer={"": "read"},
    )
    flow = Flow(Plan(graph), float("inf"), {}, {})
    flow.begin(0.0)
    (failed,) = flow.missing("cut", Loss("model_failed", "cannot reshape"), 0.0)
    assert failed == Failed("cut", "model_failed", "cannot reshape")
    assert list(flow.without) == ["cut", "read"]


def cascade(*, deadline: float, now: float = 0.0, **takes: float) -> Flow:
    """Return a cascade that has begun: quick, a check of it, and a dear step on a condition."""
    made = plan(
        ask("quick"), ask("check", "quick"), ask("hint", when="check.y > 0"), ask("dear", "hint"),
        fuse("best", "dear", "quick"),
    )  # fmt: skip
    assert made.escalations == {"hint", "dear"}
    run = Flow(made, deadline, tails(made, takes), takes, tails(made, takes, least=True))
    begin = run.begin(now)
    assert begun(begin) == ["quick"]
    (first,) = begin
    assert isinstance(first, Begin)
    # What does not fit with the dear step has the time that there is without it.
    assert first.deadline > now
    run.done("quick", now + takes["quick"])
    return run


def test_an_escalation_that_cannot_end_in_time_does_not_begin() -> None:
    takes = {"quick": 1.0, "check": 0.1, "hint": 1.0, "dear": 5.0}
    run = cascade(deadline=8.0, **takes)
    assert begun(run.done("check", 1.1)) == ["hint"]
    assert run.hopeless("hint", 1.1) == ()
    assert run.hopeless("hint", 2.1) == ("best",)
    run = cascade(deadline=4.0, **takes)
    assert begun(run.done("check", 1.1)) == ["hint"]
    assert run.hopeless("hint", 1.1) == ("best",)
    assert begun(run.missing("hint", run.late("hint", 1.1), 1.1)) == ["best"]
    assert run.done("best", 1.2) == [Answered()]
    assert {name: loss.code for name, loss in run.without.items()} == {"hint": "late", "dear": "late"}
    assert "takes about 1 s" in run.without["hint"].message


def test_what_may_be_left_out_is_known_from_the_graph() -> None:
    # A switch: either may be the only one that has a row.
    either = plan(ask("a", when="input.x > 0"), ask("b", when="input.x < 0"), fuse("f", "a", "b"))
    assert either.escalations == set()
    needed = plan(ask("a"), ask("b", when="a.y > 0"), fuse("f", "b", "a", least=2))
    assert needed.escalations == set()
    answered = plan(ask("a"), ask("b", "a", when="a.y > 0"))
    assert answered.escalations == set()
    assert plan(ask("a"), ask("b", when="a.y > 0"), fuse("f", "b", "a")).escalations == {"b"}
    run = Flow(plan(ask("a"), ask("b", when="a.y > 0"), fuse("f", "b", "a")), NEVER, {}, {"b": 9.0})
    assert run.hopeless("b", 1e9) == ()
