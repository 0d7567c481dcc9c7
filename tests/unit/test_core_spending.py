"""Budgets: what is spent and reserved never passes a limit, and nothing stays reserved."""

from __future__ import annotations

from random import Random

import pytest

from fleets import Rig, chat, decided, finish, fleet, runs, variant
from semaforo.core.events import BatchDone, BatchFailed, Cancelled, FirstChunk, ReplicaGone
from semaforo.entities import BatchProfile, Budget, Cost, Preference, StreamProfile, TaskType
from semaforo.policy.budget import Account

DEAR, FREE = "dear/1/v", "free/1/v"
BEST = TaskType("t", prefer=Preference("quality"))


def rig_of_two(spend: float, key: str = "fleet", *, slots: int = 64, **tasks: float) -> Rig:
    """A dear variant that is better than a free one, and a budget."""
    catalog = fleet(
        variant("dear", quality=0.9, cost=Cost(request=0.01), profile=BatchProfile(0.01, 0.001), max_rows=1),
        variant("free", quality=0.5, max_rows=1),
        tasks=[BEST],
        budgets={key: Budget(spend, 60.0)},
    )
    rig = Rig(catalog)
    rig.ready("d", DEAR, slots=slots)
    return rig


def test_the_last_affordable_request_is_served_and_the_next_is_refused() -> None:
    rig = rig_of_two(0.05)
    for n in range(5):
        assert runs(rig.ask(f"q{n}")), n
    answer = finish(rig.ask("q5"))
    assert (answer.outcome, answer.code) == ("refused", "budget")
    assert "up to $0.01 > $0 left of $0.05 per 1m for fleet" in answer.message
    assert answer.retry_after_s == pytest.approx(60.0)
    for n in range(5):
        rig.done(f"q{n}")
    account = rig.dispatcher.state.accounts["fleet"]
    assert (account.spent, account.reserved) == (pytest.approx(0.05), 0.0)


def test_the_window_turns() -> None:
    rig = rig_of_two(0.01)
    rig.ask("a")
    rig.done("a")
    assert finish(rig.ask("b")).code == "budget"
    assert runs(rig.ask("c", after=60.0))


def test_a_spent_budget_falls_back_to_what_is_free() -> None:
    rig = rig_of_two(0.01)
    rig.ready("f", FREE, slots=4)
    assert runs(rig.ask("a"))[0][0] == "d"
    effects = rig.ask("b")
    assert runs(effects)[0][0] == "f"
    assert {c.variant: c.ruled_out for c in decided(effects).considered}[DEAR] == "budget"


def test_tenants_do_not_pay_for_each_other() -> None:
    rig = rig_of_two(0.01, "tenant:*")
    assert runs(rig.ask("a", tenant="x"))
    assert finish(rig.ask("b", tenant="x")).code == "budget"
    assert runs(rig.ask("c", tenant="y"))
    assert "for tenant x" in finish(rig.ask("d", tenant="x")).message


def test_what_fails_gives_its_reservation_back_and_a_retry_holds_one() -> None:
    rig = rig_of_two(0.01)
    rig.ready("d2", DEAR, slots=4)
    rig.ask("a")
    effects = rig.tell(BatchFailed(rig.batch("a"), "error", "oops"))
    assert runs(effects)[0][0] == "d2"
    assert rig.dispatcher.state.accounts["fleet"].reserved == pytest.approx(0.01)
    rig.tell(BatchFailed(rig.batch("a"), "invalid", "not an image"))
    assert rig.dispatcher.state.accounts["fleet"] == Account(rig.dispatcher.state.accounts["fleet"].since)
    assert runs(rig.ask("b"))


def test_an_answer_has_cost_what_its_earlier_attempts_were_charged_for_too() -> None:
    rig = rig_of_two(0.05)
    rig.ready("d2", DEAR, slots=4)
    rig.ask("a")
    assert runs(rig.tell(BatchFailed(rig.batch("a"), "cancelled")))[0][0] == "d2"
    answer = finish(rig.tell(BatchDone(rig.batch("a"), 0.01)))
    account = rig.dispatcher.state.accounts["fleet"]
    assert (answer.outcome, answer.cost) == ("done", pytest.approx(0.02))
    assert (account.spent, account.reserved) == (pytest.approx(0.02), 0.0)


def test_work_that_goes_on_after_its_request_has_ended_is_paid_when_it_ends() -> None:
    rig = rig_of_two(0.02)
    account = rig.dispatcher.state.accounts
    rig.ask("late", deadline_s=0.02)
    rig.tick(1.0)
    rig.ask("left")
    rig.tell(Cancelled("left"))
    assert account["fleet"] == Account(account["fleet"].since, 0.0, pytest.approx(0.02))
    assert finish(rig.ask("next")).code == "budget"
    late, left = sorted(rig.dispatcher.state.batches)
    rig.tell(BatchDone(late, 1.0))
    rig.tell(BatchFailed(left, "cancelled"))
    assert account["fleet"] == Account(account["fleet"].since, pytest.approx(0.02), 0.0)


def test_a_stream_that_is_broken_off_is_paid_for_what_it_has_said() -> None:
    speaker = chat("m", profile=StreamProfile(slots=4), cost=Cost(input_token=1e-5, output_token=1e-4))
    rig = Rig(fleet(speaker, budgets={"task:c": Budget(1.0, 60.0)}))
    rig.ready("r", speaker.id, slots=4)
    for rid, kind in (("gone", "cancelled"), ("torn", "upstream")):
        rig.ask(rid, "c", stream=True, max_tokens=100, prompt_tokens=10)
        number = rig.batch(rid)
        rig.tell(FirstChunk(number), 0.001)
        if rid == "gone":
            rig.tell(Cancelled(rid))
        effects = rig.tell(BatchFailed(number, kind, "closed", output_tokens=30))
        if rid == "torn":
            assert finish(effects).cost == pytest.approx(0.0031)
    account = rig.dispatcher.state.accounts["task:c"]
    assert (account.spent, account.reserved) == (pytest.approx(2 * 0.0031), 0.0)


def test_the_loser_of_a_hedge_is_paid_when_it_ends() -> None:
    catalog = fleet(
        variant("dear", quality=0.9, cost=Cost(request=0.01), profile=BatchProfile(0.01, 0.001), max_rows=1),
        variant("free", quality=0.9, max_rows=1),
        tasks=[TaskType("t", prefer=Preference("quality"), hedge=2.0)],
        budgets={"fleet": Budget(1.0, 600.0)},
    )
    rig = Rig(catalog)
    rig.ready("d", DEAR)
    rig.ask("a")
    number = rig.batch("a")
    rig.ready("f", FREE)
    rig.tick(1.0)
    (hedge,) = set(rig.dispatcher.state.batches) - {number}
    assert finish(rig.tell(BatchDone(hedge, 0.01))).variant == FREE
    assert rig.dispatcher.state.accounts["fleet"].reserved == pytest.approx(0.01)
    rig.tell(BatchDone(number, 0.01))
    account = rig.dispatcher.state.accounts["fleet"]
    assert (account.spent, account.reserved) == (pytest.approx(0.01), 0.0)


def test_what_waits_has_reserved() -> None:
    rig = rig_of_two(0.03, slots=1)
    assert runs(rig.ask("a"))
    rig.ask("b")
    rig.ask("c")
    assert finish(rig.ask("d")).code == "budget"
    rig.done("a")
    assert rig.runs_on("b") == "d"


def test_a_stream_reserves_what_it_may_say_and_settles_what_it_said() -> None:
    speaker = chat("m", profile=StreamProfile(slots=4), cost=Cost(output_token=1e-4))
    rig = Rig(fleet(speaker, budgets={"task:c": Budget(0.02, 60.0)}))
    rig.ready("r", speaker.id, slots=4)
    assert runs(rig.ask("a", "c", stream=True, max_tokens=150))
    assert finish(rig.ask("b", "c", stream=True, max_tokens=100)).code == "budget"
    rig.tell(BatchDone(rig.batch("a"), 0.1, 10, 40))
    assert rig.dispatcher.state.accounts["task:c"].spent == pytest.approx(0.004)
    assert runs(rig.ask("c", "c", stream=True, max_tokens=100))


@pytest.mark.parametrize("seed", range(20))
def test_on_bad_days_no_limit_is_passed_and_nothing_stays_reserved(seed: int) -> None:
    rng = Random(seed)
    rig = rig_of_two(0.1, rng.choice(["fleet", "task:t", "tenant:*"]), slots=rng.choice([1, 3, 8]))
    if rng.random() < 0.5:
        rig.ready("f", FREE, slots=1)
    sent: list[str] = []
    owed = 0.0

    def done(number: int, after: float) -> None:
        nonlocal owed
        owed += 0.01 * (rig.dispatcher.state.batches[number].variant == DEAR)
        rig.tell(BatchDone(number, 0.01), after)

    for n in range(150):
        kind = rng.random()
        after = rng.choice([0.0, 0.001, 0.5])
        running = list(rig.dispatcher.state.batches)
        if kind < 0.5 or not running:
            rid = f"q{n}"
            deadline = rng.choice([None, 0.05])
            rig.ask(rid, after=after, tenant=rng.choice("xy"), deadline_s=deadline)
            sent.append(rid)
        elif kind < 0.75:
            done(rng.choice(running), after)
        elif kind < 0.85:
            rig.tell(BatchFailed(rng.choice(running), rng.choice(["error", "crash", "invalid"]), "x"), after)
        elif kind < 0.95:
            rig.tell(Cancelled(rng.choice(sent)), after)
        else:
            rig.tell(ReplicaGone("d"), after)
            rig.ready("d", DEAR, slots=2)
        for account in rig.dispatcher.state.accounts.values():
            assert account.spent + account.reserved <= 0.1 + 1e-9
            assert account.reserved >= 0.0
    while running := list(rig.dispatcher.state.batches):
        done(running[0], 0.01)
    for rid in sent:
        rig.tell(Cancelled(rid))
    assert rig.now < 60.0
    assert sum(a.spent for a in rig.dispatcher.state.accounts.values()) == pytest.approx(owed)
    assert all(account.reserved == 0.0 for account in rig.dispatcher.state.accounts.values())
