"""What the core makes of feedback: beliefs that plans rest on, and what is remembered."""

from __future__ import annotations

from typing import Any

from fleets import Rig, decided, finish, fleet, runs, variant
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Believed, Score
from semaforo.core.events import Feedback, Remembered, Scored
from semaforo.core.state import History
from semaforo.entities import Cost, Preference, TaskType
from semaforo.policy.posterior import begun

SMALL, LARGE = "small/1/v", "large/1/v"


def rig_of_two(**task: Any) -> Rig:
    """A cheap variant that is nearly as good as a dear one, both ready."""
    about = TaskType("t", prefer=Preference("cost", keep_quality=0.95), **task)
    rig = Rig(
        fleet(
            variant("small", quality=0.94, cost=Cost(second=0.01)),
            variant("large", quality=0.96, cost=Cost(second=1.0)),
            tasks=[about],
        )
    )
    rig.ready("s", SMALL, slots=8)
    rig.ready("l", LARGE, slots=8)
    return rig


def tell(rig: Rig, variant: str, score: float, times: int) -> list[Believed]:
    """Give the same feedback some times."""
    found = []
    for _ in range(times):
        found += [e for e in rig.tell(Feedback("past", variant, score)) if isinstance(e, Believed)]
    return found


def test_traffic_leaves_a_variant_that_got_worse_and_returns_when_it_is_good_again() -> None:
    rig = rig_of_two()
    assert runs(rig.ask("before"))[0][0] == "s"
    said = tell(rig, SMALL, 0.0, 12)
    assert said[-1].quality < 0.5
    assert any(e.changed for e in said)
    effects = rig.ask("while")
    assert runs(effects)[0][0] == "l"
    considered = {c.variant: c.quality for c in decided(effects).considered}
    assert considered[SMALL] < 0.5
    tell(rig, SMALL, 1.0, 60)
    assert runs(rig.ask("after"))[0][0] == "s"


def test_a_least_quality_is_held_against_what_is_believed() -> None:
    rig = rig_of_two()
    assert runs(rig.ask("before", min_quality=0.9))
    tell(rig, SMALL, 0.0, 12)
    tell(rig, LARGE, 0.0, 12)
    assert finish(rig.ask("after", min_quality=0.9)).code == "unsatisfiable"


def test_feedback_on_what_is_not_in_the_catalog_changes_nothing() -> None:
    rig = rig_of_two()
    before = rig.dispatcher.snapshot()
    assert rig.tell(Feedback("past", "ghost/1/v", 1.0)) == []
    assert rig.dispatcher.snapshot() == before


def test_beliefs_survive_a_snapshot() -> None:
    rig = rig_of_two()
    tell(rig, SMALL, 0.0, 12)
    again = Dispatcher.restore(rig.dispatcher.snapshot())
    assert again.snapshot() == rig.dispatcher.snapshot()
    assert again.state.history[SMALL].quality.changes == 1


def test_what_was_remembered_joins_what_is_known() -> None:
    rig = rig_of_two()
    bad = begun(0.94)
    for _ in range(20):
        bad.learn(0.0)
    tell(rig, SMALL, 1.0, 3)
    rig.tell(Remembered({SMALL: History(bad), "gone/1/v": History(begun(0.5))}))
    assert runs(rig.ask("q"))[0][0] == "l"
    assert set(rig.dispatcher.state.history) == {SMALL}
    assert rig.dispatcher.state.history[SMALL].quality.given == 23


def test_answers_leave_their_latency_and_cost() -> None:
    rig = rig_of_two()
    rig.ask("q")
    rig.done("q")
    history = rig.dispatcher.state.history[SMALL]
    assert history.quality is None
    assert history.latency[0].count == 1.0
    assert history.latency[0].value > 0.0
    assert history.cost.value > 0.0


def test_a_predicted_gain_moves_one_request_to_the_dear_variant() -> None:
    rig = rig_of_two(score_s=0.01)
    assert isinstance(rig.ask("hard", deadline_s=1.0)[0], Score)
    assert runs(rig.tell(Scored("hard", {SMALL: -0.5, LARGE: 0.02}), 0.001)) == [("l", ("hard",))]
    rig.ask("easy", deadline_s=1.0)
    assert runs(rig.tell(Scored("easy", {SMALL: 0.04, LARGE: 0.02}), 0.001)) == [("s", ("easy",))]


def test_a_predicted_gain_does_not_break_a_contract() -> None:
    rig = rig_of_two(score_s=0.01)
    rig.ask("q", deadline_s=1.0, min_quality=0.95)
    assert runs(rig.tell(Scored("q", {SMALL: 0.06, LARGE: -0.4}), 0.001)) in ([], [("l", ("q",))])
    assert rig.runs_on("q") == "l"
