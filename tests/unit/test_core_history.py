"""What the core makes of feedback: beliefs that plans rest on, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

from fleets import Rig, ask, decided, finish, fleet, runs, variant
from semaforo.catalog.state import Scaling
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Believed, Decided, Score
from semaforo.core.events import Arrived, Feedback, Remembered, Scored
from semaforo.core.history import LEAST_ANSWERS, STALE_S
from semaforo.core.state import History
from semaforo.entities import BatchProfile, Cost, Exploration, Preference, TaskType
from semaforo.policy.posterior import begun
from semaforo.sim.world import World

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


# --- what requests look like -----------------------------------------------------------------------------------

EASY, HARD = {"x": 1.0}, {"x": -1.0}


def looking_rig(**explore: Any) -> Rig:
    """Two variants that look alike, whose requests are looked at."""
    task = TaskType(
        "t",
        prefer=Preference("quality"),
        score_s=0.01,
        explore=Exploration(**{"share": 0.05, "by": "linucb"} | explore),
    )
    rig = Rig(fleet(variant("small", quality=0.5), variant("large", quality=0.5), tasks=[task]))
    rig.ready("s", SMALL, slots=64)
    rig.ready("l", LARGE, slots=64)
    return rig


def teach(rig: Rig, times: int) -> None:
    """The small one is good at what is easy alone, the large one at what is hard alone."""
    for _ in range(times):
        for name, good in ((SMALL, EASY), (LARGE, HARD)):
            for context in (EASY, HARD):
                rig.tell(Feedback("past", name, float(context is good), context=context))


def picked(rig: Rig, rid: str, context: dict[str, float], gain: dict[str, float] | None = None) -> Decided:
    rig.ask(rid, deadline_s=1.0)
    return decided(rig.tell(Scored(rid, gain or {}, 0.0, context), 0.0001), rid)


def test_a_request_goes_to_who_was_good_at_those_like_it() -> None:
    rig = looking_rig(max_loss=0.01)
    (score,) = rig.ask("q")
    assert isinstance(score, Score)
    assert score.context
    teach(rig, 30)
    easy, hard = picked(rig, "easy", EASY), picked(rig, "hard", HARD)
    assert (easy.pick, hard.pick) == (SMALL, LARGE)
    assert easy.learned
    assert easy.propensity == 1.0
    qualities = {c.variant: c.quality for c in easy.considered}
    assert qualities[SMALL] > 0.75
    assert qualities[LARGE] < 0.25
    # A request that nobody has looked at goes by the posterior.
    assert not picked(rig, "blind", {}).learned


def test_learning_survives_a_snapshot_and_a_restart() -> None:
    rig = looking_rig(max_loss=0.01)
    teach(rig, 30)
    again = Dispatcher.restore(rig.dispatcher.snapshot())
    assert again.snapshot() == rig.dispatcher.snapshot()
    later = looking_rig(max_loss=0.01)
    later.tell(Remembered(again.state.history))
    assert (picked(later, "easy", EASY).pick, picked(later, "hard", HARD).pick) == (SMALL, LARGE)


def test_two_gateways_add_up_what_they_have_learned() -> None:
    rig, other, both = looking_rig(), looking_rig(), looking_rig()
    teach(rig, 10)
    teach(other, 15)
    teach(both, 25)
    rig.tell(Remembered(other.dispatcher.state.history))
    for name in (SMALL, LARGE):
        mine, whole = rig.dispatcher.state.history[name].ridge, both.dispatcher.state.history[name].ridge
        assert mine is not None
        assert whole is not None
        assert mine.answers == pytest.approx(whole.answers, rel=0.02)
        # The second half of them was seen by a posterior that had moved less.
        assert mine.weights == pytest.approx(whole.weights, abs=0.02)


def test_a_change_makes_learning_begin_anew_and_other_kinds_of_requests_are_no_change() -> None:
    rig = looking_rig()
    teach(rig, 30)
    for _ in range(100):  # The mix of requests shifts, by routing itself.
        rig.tell(Feedback("past", SMALL, 1.0, context=EASY))
    history = rig.dispatcher.state.history[SMALL]
    assert history.quality is not None
    assert history.quality.changes == 0
    needed = 0
    while history.quality.changes == 0 and needed < 30:
        rig.tell(Feedback("past", SMALL, 0.0, context=EASY))
        needed += 1
        if needed == 8:
            assert picked(rig, "meanwhile", EASY).considered[0].quality < 0.7
    assert needed < 20
    assert history.quality.mean < 0.1
    assert history.ridge is not None
    assert history.ridge.answers == 1.0
    assert picked(rig, "easy", EASY).pick == LARGE


def test_what_misleads_is_forgotten_though_the_mean_stays() -> None:
    rig = looking_rig()
    teach(rig, 30)
    history = rig.dispatcher.state.history[SMALL]
    for _ in range(60):  # Good at what is hard from now on, bad at what is easy.
        for context in (EASY, HARD):
            rig.tell(Feedback("past", SMALL, float(context is HARD), context=context))
    assert history.quality is not None
    assert history.quality.mean == pytest.approx(0.5, abs=0.1)
    assert picked(rig, "hard", HARD).considered[0].quality > 0.7
    assert picked(rig, "easy", EASY).considered[0].quality < 0.3


def test_what_a_router_predicts_is_what_learning_begins_with() -> None:
    rig = looking_rig(max_loss=0.01)
    gain = {SMALL: 0.3, LARGE: -0.3}
    assert picked(rig, "before", EASY, gain).pick == SMALL
    for _ in range(60):  # The router has it the wrong way round.
        rig.tell(Feedback("past", SMALL, 0.2, context=EASY, gain=0.3))
        rig.tell(Feedback("past", LARGE, 0.8, context=EASY, gain=-0.3))
    assert picked(rig, "after", EASY, gain).pick == LARGE


def test_the_share_of_what_is_tried_holds() -> None:
    for by in ("epsilon", "linucb", "thompson"):
        rig = looking_rig(share=0.1, by=by, max_loss=1.0)
        teach(rig, 3)
        tried = 0
        for n in range(600):
            found = picked(rig, f"q{n}", EASY if n % 2 else HARD)
            tried += found.reason == "tried"
            if found.reason == "tried":
                assert found.propensity <= 0.1 + 1e-9
            else:
                assert found.propensity >= 0.9 - 1e-9
            rig.done(f"q{n}")
        assert tried <= 600 * 0.1 + 3 * (600 * 0.1 * 0.9) ** 0.5
        assert tried > 0


def test_in_a_simulation_nobody_waits_for_what_cannot_be_looked_at() -> None:
    task = TaskType("t", score_s=0.5, explore=Exploration(0.1, by="linucb"))
    world = World(fleet(variant("small"), variant("large"), tasks=[task], scaling=Scaling(1, 1)))
    world.at(1.0, Arrived(ask("q")))
    world.run(until=3.0)
    ((_, answer),) = world.trace.finished
    assert answer.outcome == "done"
    assert answer.total_s < 0.1


def rig_of_a_graph() -> Rig:
    """A graph beside a large model, and a task that takes the cheaper of the two."""
    prefer = Preference("cost", keep_quality=0.95)
    rig = Rig(
        fleet(
            variant("graph", quality=0.95),
            variant("large", quality=0.96, cost=Cost(second=1.0)),
            tasks=[TaskType("t", prefer=prefer)],
        )
    )
    rig.ready("g", "graph/1/v", slots=8)
    rig.ready("l", LARGE, slots=8)
    return rig


def test_what_a_graph_costs_is_learned_from_its_answers() -> None:
    """Its price and its time say nothing of what its steps cost: the cheaper of two goes by what they have paid."""
    rig = rig_of_a_graph()
    usual = next(c.cost for c in decided(rig.ask("first")).considered if c.variant == LARGE)
    assert rig.runs_on("first") == "g"
    rig.done("first", cost=0.5 * usual)
    for i in range(LEAST_ANSWERS - 1):
        assert runs(rig.ask(f"cheap{i}"))[0][0] == "g"
        rig.done(f"cheap{i}", cost=0.5 * usual)
    effects = rig.ask("known")
    assert runs(effects)[0][0] == "g"
    assert next(c.cost for c in decided(effects).considered if c.variant == "graph/1/v") == 0.5 * usual
    rig.done("known", cost=8.0 * usual)
    assert runs(rig.ask("dear"))[0][0] == "l"


def test_what_looked_dear_by_chance_is_asked_again_after_a_while() -> None:
    rig = rig_of_a_graph()

    def served(rid: str, after: float = 0.0) -> str:
        rig.ask(rid, after=after)
        where = rig.runs_on(rid)
        if where == "g":
            rig.done(rid, cost=9.0 if rid.startswith("dear") else 0.0001)
        else:
            rig.done(rid)
        return where

    assert [served(f"dear{i}") for i in range(LEAST_ANSWERS + 1)] == ["g"] * LEAST_ANSWERS + ["l"]
    assert served("soon", after=1.0) == "l"
    assert served("late", after=STALE_S + 1.0) == "l"
    assert [served(f"again{i}") for i in range(20)] == ["g"] * 20


def test_what_device_time_costs_is_corrected_by_what_answers_took() -> None:
    """A profile that was measured while much was being loaded must not make a model look dear for ever."""
    prefer, slow = Preference("cost", keep_quality=0.95), BatchProfile(0.0, 0.010)
    rig = Rig(
        fleet(
            variant("loaded", quality=0.95, cost=Cost(second=1.0), profile=slow),
            variant("other", quality=0.96, cost=Cost(second=1.0), profile=BatchProfile(0.0, 0.004)),
            tasks=[TaskType("t", prefer=prefer)],
        )
    )
    rig.ready("l", "loaded/1/v", slots=8)
    rig.ready("o", "other/1/v", slots=8)
    assert runs(rig.ask("before"))[0][0] == "o"
    for i in range(LEAST_ANSWERS):
        rig.ask(f"q{i}", variant="v", target="loaded")
        rig.done(f"q{i}", after=0.002)
    assert runs(rig.ask("after"))[0][0] == "l"


def test_what_a_graph_costs_grows_with_the_rows() -> None:
    rig = Rig(fleet(variant("graph", quality=0.95), tasks=[TaskType("t")]))
    rig.ready("g", "graph/1/v", slots=8)
    for i in range(LEAST_ANSWERS):
        rig.ask(f"four{i}", rows=4)
        rig.done(f"four{i}", cost=0.4)
    (seen,) = decided(rig.ask("two", rows=2)).considered
    assert seen.cost == pytest.approx(0.2)
