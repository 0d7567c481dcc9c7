"""Journals: a thousand random fleets replayed exactly, and what happens when a journal was changed or cut."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest

from fleets import ask, fleet, variant
from property import events
from semaforo.catalog.state import Scaling
from semaforo.core import journal
from semaforo.core.events import (
    Arrived,
    BatchFailed,
    Busy,
    Feedback,
    FleetChanged,
    Limits,
    Progress,
    Report,
    Scale,
    Scored,
)
from semaforo.core.journal import HEADER, Decision, Record, Snapshot
from semaforo.entities import Step, TaskType
from semaforo.errors import JournalError
from semaforo.sim.replay import replay, replay_bytes
from semaforo.sim.world import Fault, World

SECONDS = 1.0


def random_world(seed: int) -> World:
    """A small fleet with random traffic, faults, changes and operators, for a second; a snapshot in the middle."""
    rng = Random(seed)
    catalog = events.random_fleet(rng)
    least = rng.randint(0, 1)
    isolation = rng.choice(("process", "process", "inline"))
    catalog = msgspec.structs.replace(
        catalog,
        scaling={v: Scaling(least, least + rng.randint(1, 2)) for v in catalog.variants},
        templates={
            n: msgspec.structs.replace(t, isolation=isolation, device="loop")
            for n, t in catalog.templates.items()
        },
    )
    world = World(
        catalog,
        seed=seed,
        noise=rng.choice((0.0, 0.3)),
        start_s=rng.choice((0.0, 0.05)),
        output_tokens=40,
        record=True,
    )
    sent: list[str] = []
    for n in range(40):
        request = events.random_request(rng, f"q{n}", sent)
        sent.append(request.id)
        world.at(rng.uniform(0, SECONDS), Arrived(request))
    replicas = [f"{v.model}-{v.name}-1" for v in catalog.variants.values()]
    for _ in range(rng.randint(0, 4)):
        kind = rng.choice(("crash", "slow", "errors"))
        world.at(rng.uniform(0, SECONDS), Fault(0.0, rng.choice(replicas), kind, for_s=0.2))
    for _ in range(rng.randint(0, 6)):
        when = rng.uniform(0, SECONDS)
        number = rng.randint(1, 400)
        name = rng.choice(replicas)
        world.at(when, rng.choice((
            Scale(rng.choice(list(catalog.variants)), rng.randint(0, 3)), Limits(name, 0, -1, 0.1),
            Report(name, 0.05), Busy(number), BatchFailed(number, "upstream", "gone", 0.1), Progress(number, 300),
            Scored(rng.choice(sent), dict.fromkeys(catalog.variants, 0.5), 1.0, events.random_context(rng)),
            Feedback(
                rng.choice(sent), rng.choice(list(catalog.variants)), rng.random(),
                context=events.random_context(rng),
            ),
        )))  # fmt: skip
    for _ in range(rng.randint(0, 5)):
        world.cancel(rng.uniform(0, SECONDS), rng.choice(sent))
    if rng.random() < 0.3:
        kept = [v for v in catalog.variants.values() if rng.random() < 0.7] or None
        world.at(rng.uniform(0, SECONDS), FleetChanged(events.random_fleet(rng, kept)))
    world.run(until=SECONDS / 2)
    world.snapshot()
    world.run()
    return world


def records_of(data: bytes) -> list[Record]:
    return journal.decode(data[len(HEADER) :])[0]


def written(records: list[Record]) -> bytes:
    return HEADER + b"".join(journal.encode(r) for r in records)


@pytest.mark.parametrize("block", range(20))
def test_a_thousand_fleets_are_replayed_exactly(block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        trace = random_world(seed).trace
        found = replay_bytes(trace.journal)
        assert found.difference is None, (seed, found.difference)
        assert (found.segments, found.cut) == (2, 0)
        assert found.outcomes == msgspec.to_builtins(_outcomes(trace.finished)), seed
        records = records_of(trace.journal)
        middle = [n for n, r in enumerate(records) if isinstance(r, Snapshot)][1]
        again = replay_bytes(written(records[middle:]))
        assert again.difference is None, (seed, again.difference)
        assert again.events == len(records) - middle - 1


def _outcomes(finished: list[tuple[float, object]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for _, answer in finished:
        outcome = answer.outcome  # type: ignore[attr-defined]
        found[outcome] = found.get(outcome, 0) + 1
    return found


def test_they_are_no_idle_fleets() -> None:
    outcomes: dict[str, int] = {}
    count = 0
    for seed in range(40):
        world = random_world(seed)
        count += len(records_of(world.trace.journal))
        for name, n in _outcomes(world.trace.finished).items():
            outcomes[name] = outcomes.get(name, 0) + n
    assert count > 40 * 80
    assert outcomes["done"] > 300
    assert {"done", "failed", "expired", "cancelled", "refused"} <= set(outcomes)


# --- damage ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> bytes:
    return random_world(7).trace.journal


def test_a_changed_digest_is_found_at_its_record(whole: bytes) -> None:
    records = records_of(whole)
    for at in (3, len(records) // 3, len(records) - 1):
        record = records[at]
        assert not isinstance(record, Snapshot)
        changed = [
            *records[:at],
            msgspec.structs.replace(record, digest=record.digest ^ 1),
            *records[at + 1 :],
        ]
        found = replay_bytes(written(changed))
        assert found.difference is not None
        assert (found.difference.record, found.difference.now) == (at + 1, record.now)
        assert type(record.event).__name__ in found.difference.event


def test_a_changed_event_is_found_at_its_record(whole: bytes) -> None:
    records = records_of(whole)
    at = next(
        n for n, r in enumerate(records)
        if isinstance(r, Decision) and isinstance(r.event, Arrived) and r.digest and n > 20
    )  # fmt: skip
    record = records[at]
    assert isinstance(record, Decision)
    assert isinstance(record.event, Arrived)
    other = Arrived(msgspec.structs.replace(record.event.request, id="somebody else"))
    changed = [*records[:at], msgspec.structs.replace(record, event=other), *records[at + 1 :]]
    found = replay_bytes(written(changed))
    assert found.difference is not None
    assert found.difference.record == at + 1
    assert "somebody else" in found.difference.event
    assert any("somebody else" in e for e in found.difference.effects)


def test_a_record_that_was_taken_out_is_noticed(whole: bytes) -> None:
    records = records_of(whole)
    at = next(
        n
        for n, r in enumerate(records)
        if isinstance(r, Decision) and isinstance(r.event, Arrived) and n > 20
    )
    assert replay_bytes(written(records[:at] + records[at + 1 :])).difference is not None


@pytest.mark.parametrize("cut", [1, 3, 17])
def test_a_tail_that_was_cut_off_is_tolerated_and_reported(whole: bytes, cut: int, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(whole[:-cut])
    found = replay(path)
    assert found.difference is None
    last = journal.encode(records_of(whole)[-1])
    assert found.cut == len(last) - cut
    assert found.events == replay_bytes(whole).events - 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a journal"),
        (b"semaforo journal 99\n", "not a journal"),
        (HEADER, "no whole snapshot"),
        (HEADER + b"\xff" * 64, "no whole snapshot"),
        (HEADER + b"\x04\x00\x00\x00junk", "record 1 of this part is damaged"),
        (HEADER + journal.encode(Snapshot(b"junk", b"junk")), "the snapshot in record 1 is damaged"),
    ],
)
def test_what_is_no_journal_is_an_error_that_says_so(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(data)
    with pytest.raises(JournalError, match=why) as caught:
        replay(path)
    assert str(path) in caught.value.message


def test_a_journal_must_begin_with_a_snapshot(whole: bytes) -> None:
    with pytest.raises(JournalError, match="begin with a snapshot"):
        replay_bytes(written(records_of(whole)[1:]))


def test_a_journal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot read the journal"):
        replay(tmp_path / "nothing")


def test_whole_numbers_where_floats_are_meant_replay_the_same() -> None:
    model = variant("m", base=0, row=1, quality=1)
    world = World(fleet(model, tasks=[TaskType("t", prefer=events.PREFERENCES[0])]), noise=0, record=True)
    world.run(until=0)
    for n in range(4):
        world.at(
            float(n), Arrived(ask(f"q{n}", deadline_s=5, step=Step("p", deadline_at=8), idempotent=False))
        )
    for number in range(40):
        world.at(1.0, BatchFailed(number, "upstream", "wait", 1))
    data = world.run().journal
    assert {f.outcome for _, f in world.trace.finished} >= {"done", "failed"}
    assert replay_bytes(data).difference is None


def test_looking_at_decisions_does_not_disturb_a_replay() -> None:
    world = World(fleet(variant("m", base=0.01)), record=True)
    world.run(until=0.1)
    for n in range(5):
        world.at(0.2 + n / 100, Arrived(ask(f"q{n}", shape=f"x:FP32:{n + 1}")))
        world.run(until=0.2 + n / 100)
        world.dispatcher.decide(ask("look", shape=f"x:FP32:{n + 7}"), world.now)
    assert replay_bytes(world.run().journal).difference is None
