"""Routers rolled out like models: by version, beside one another, rolled back and promoted while requests run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from router_fleet import routers, shelved, stated
from semaforo import AsyncFleet, Fleet
from semaforo.api.answer import FleetAnswer
from semaforo.build import blueprint
from semaforo.config.fleet import FleetFileError
from semaforo.errors import Conflict, InvalidRequest, NotFound
from semaforo.jobs.learn.train import train
from semaforo.live.course import Course
from semaforo.live.rollouts import Change
from semaforo.repository.history import read_answers
from semaforo.routing.router import Router
from semaforo.routing.table import Table
from semaforo.sim.replay import replay


@pytest.fixture(scope="module")
def trained() -> dict[str, bytes]:
    return routers()


@pytest.fixture
def place(tmp_path: Path, trained: dict[str, bytes]) -> Path:
    return shelved(tmp_path, trained)


def questions() -> Iterator[tuple[str, int]]:
    """Return requests and their right answers, without end."""
    rng = np.random.default_rng(9)
    while True:
        hard = bool(rng.random() < 0.5)
        yield f"{rng.choice(['red', 'blue', 'tree'])} {'hard' if hard else 'easy'}", int(hard)


async def serve(fleet: AsyncFleet, n: int) -> list[FleetAnswer]:
    """Ask and give feedback."""
    answers = []
    for (text, label), _ in zip(questions(), range(n), strict=False):
        answer = await fleet.infer("answer", text=text)
        await fleet.feedback(answer, score=float(int(answer["label"]) == label))
        answers.append(answer)
    return answers


def routers_of(fleet: AsyncFleet, answers: list[FleetAnswer]) -> Counter[str]:
    """Count who decided on requests."""
    found: Counter[str] = Counter()
    for answer in answers:
        explanation = fleet.engine.explanation(answer.request_id)
        assert explanation is not None
        spoke = next(d.spoke for d in explanation.decided if d.spoke is not None)
        found[spoke.router] += 1
    return found


def test_the_newest_version_serves_or_the_one_that_is_named(place: Path) -> None:
    for words, serves in (("routers/chat", "3"), ("{file: routers/chat, version: '1'}", "1")):
        with Fleet.open(stated(place, words)) as fleet:
            assert f"router {serves} decided" in fleet.infer("answer", text="red hard").why
    (place / "empty").mkdir()
    for words, message in (
        ("{file: routers/chat, version: '7'}", "no router is '7'"),
        ("{file: routers/chat, candidate: '3'}", "'3' is the router in service, 3"),
        ("{file: routers/chat, candidate: both.py}", "is no trained router"),
        ("{file: routers/chat, candidate: '1', share: 1}", "a candidate decides 0 to 0.9"),
        ("routers", "has no version|holds no .router"),
        (
            "empty",
            "empty has no version: put the router into a folder named by its version, as 1/empty.router",
        ),
    ):
        with pytest.raises(FleetFileError, match=message):
            Fleet.open(stated(place, words))


def test_in_the_shadow_a_candidate_is_noted_and_decides_nothing(place: Path) -> None:
    async def live() -> tuple[Counter[str], list[FleetAnswer], Course]:
        path = stated(place, "{file: routers/chat, version: '1', candidate: '2'}")
        async with AsyncFleet.open(path) as fleet:
            answers = await serve(fleet, 20)
            return routers_of(fleet, answers), answers, fleet.engine.learning.rollouts.course("answer")

    spoke, answers, course = asyncio.run(live())
    assert spoke == {"1": 20}
    assert "router 1 decided; router 2 would pick" in answers[0].why
    assert course.tryout is not None
    assert (course.tryout.seen, course.tryout.apart) == (20, 20)
    assert course.tryout.verdict == "cannot tell yet"


def test_who_decides_follows_from_the_id_with_the_share_that_is_stated(place: Path) -> None:
    courses = [
        Course(blueprint(stated(place, words)).routers["answer"])
        for words in (
            "{file: routers/chat, version: '1', candidate: '2', share: 0.3}",
            "{file: routers/chat, version: '1', candidate: '2', share: 0.6}",
            "{file: routers/chat, version: '1', candidate: '3', share: 0.3}",
            "{file: routers/chat, version: '1', candidate: '3'}",
        )
    ]
    ids = [f"{i:08x}" for i in range(2000)]
    less, more, other, none = ({rid for rid in ids if course.drawn(rid)} for course in courses)
    assert [round(len(found) / len(ids), 1) for found in (less, more, other)] == [0.3, 0.6, 0.3]
    assert less < more
    # Another candidate gets other requests, so that none has to bear every trial.
    assert 0.2 < len(less & other) / len(other) < 0.4
    assert not none


def test_a_bad_candidate_is_rolled_back_and_stays_so(place: Path) -> None:
    path = stated(place, "{file: routers/chat, version: '1', candidate: '2', share: 0.3}")

    async def live() -> tuple[Counter[str], Counter[str], Course]:
        async with AsyncFleet.open(path) as fleet:
            first = await serve(fleet, 150)
            return (
                routers_of(fleet, first), routers_of(fleet, first[-20:]),
                fleet.engine.learning.rollouts.course("answer"),
            )  # fmt: skip

    everything, last, course = asyncio.run(live())
    assert 1 <= everything["2"] <= 60
    assert last == {"1": 20}
    assert course.rollout.candidate is None
    assert [(e.what, e.name) for e in course.ended] == [("rolled back", "2")]
    assert "shown to be worse" in course.ended[0].why

    async def again() -> tuple[Counter[str], Course]:
        async with AsyncFleet.open(path) as fleet:
            return routers_of(fleet, await serve(fleet, 20)), fleet.engine.learning.rollouts.course("answer")

    spoke, course = asyncio.run(again())
    assert spoke == {"1": 20}
    assert course.ended[0].name == "2"
    for name, scored in (("journal.bin", 20), ("journal.bin.1", 150)):
        found = replay(place / name)
        assert found.difference is None
        assert found.kinds["Scored"] == scored
    # What was drawn is known, so that the log may judge other routers.
    chances = {round(a.propensity, 6) for a in read_answers(place / "history.db")}
    assert {0.3, 0.7} <= chances


def test_a_candidate_is_promoted_by_the_operator_and_rolled_back_again(place: Path) -> None:
    async def live() -> None:
        path = stated(place, "{file: routers/chat, version: '2'}")
        async with AsyncFleet.open(path) as fleet:
            rollouts = fleet.engine.learning.rollouts
            with pytest.raises(Conflict, match="no candidate to promote"):
                rollouts.promote("answer", "")
            await rollouts.propose("answer", Change("1", share=0.5))
            asked = [asyncio.create_task(serve(fleet, 10)) for _ in range(4)]
            await asyncio.sleep(0)
            rollouts.promote("answer", "asked for")
            done = await asyncio.gather(*asked)
            assert sum(map(len, done)) == 40
            assert routers_of(fleet, await serve(fleet, 10)) == {"1": 10}
            rollouts.roll_back("answer", "asked for")
            assert routers_of(fleet, await serve(fleet, 10)) == {"2": 10}
            with pytest.raises(Conflict, match="no candidate, and no router before 2"):
                rollouts.roll_back("answer", "")
            assert [e.what for e in rollouts.course("answer").ended] == ["promoted", "rolled back"]

    asyncio.run(live())


def test_what_an_operator_did_stays_over_a_restart_until_the_fleet_file_says_otherwise(place: Path) -> None:
    async def first() -> None:
        async with AsyncFleet.open(stated(place, "{file: routers/chat, version: '2'}")) as fleet:
            rollouts = fleet.engine.learning.rollouts
            await rollouts.propose("answer", Change("1"))
            rollouts.promote("answer", "asked for")
            await rollouts.propose("answer", Change("3", share=0.5, margin=0.1))
            await serve(fleet, 12)

    async def then(router: str) -> tuple[str, str, float, int, list[str]]:
        async with AsyncFleet.open(stated(place, router)) as fleet:
            course = fleet.engine.learning.rollouts.course("answer")
            rollout, tryout = course.rollout, course.tryout
            return (
                rollout.service.name,
                rollout.candidate.name if rollout.candidate is not None else "",
                rollout.share,
                tryout.seen if tryout is not None else 0,
                [e.name for e in course.ended],
            )

    asyncio.run(first())
    assert asyncio.run(then("{file: routers/chat, version: '2'}")) == ("1", "3", 0.5, 12, ["1"])
    assert asyncio.run(then("{file: routers/chat, version: '3'}")) == ("3", "", 0.0, 0, [])


def test_after_a_restart_a_router_is_called_what_the_fleet_file_calls_it(place: Path) -> None:
    async def serving(router: str) -> str:
        async with AsyncFleet.open(stated(place, router)) as fleet:
            await serve(fleet, 1)
            return fleet.engine.learning.rollouts.course("answer").rollout.service.name

    (place / "one.router").write_bytes((place / "routers/chat/1/chat.router").read_bytes())
    assert asyncio.run(serving("one.router")) == "one.router"
    assert asyncio.run(serving("{file: routers/chat, version: '1'}")) == "1"


def test_a_file_that_was_written_anew_is_another_router(place: Path, trained: dict[str, bytes]) -> None:
    (place / "one.router").write_bytes(trained["bad"])

    async def live() -> None:
        async with AsyncFleet.open(stated(place, "one.router")) as fleet:
            rollouts = fleet.engine.learning.rollouts
            (place / "one.router").write_bytes(trained["good"])
            await rollouts.propose("answer", Change("one.router"))
            candidate = rollouts.course("answer").rollout.candidate
            assert candidate is not None
            assert candidate.name == f"one.router@{candidate.digest[:8]}"
            rollouts.promote("answer", "")
            assert routers_of(fleet, await serve(fleet, 3)) == {candidate.name: 3}
            assert [one.sha256 for one in rollouts.course("answer").routed.shelf.all()] == [candidate.digest]

    asyncio.run(live())


def test_a_better_candidate_takes_over_by_itself(place: Path) -> None:
    async def live() -> None:
        path = stated(
            place,
            "{file: routers/chat, version: '2', candidate: '1', share: 0.5, promote: auto, shadow: false}",
        )
        async with AsyncFleet.open(path) as fleet:
            await serve(fleet, 80)
            course = fleet.engine.learning.rollouts.course("answer")
            assert course.rollout.service.name == "1"
            assert course.ended[0].why.startswith(("shown to be better", "shown to be not worse"))

    asyncio.run(live())


def test_what_is_damaged_or_unfit_is_refused_and_the_old_one_serves_on(
    place: Path, trained: dict[str, bytes]
) -> None:
    (place / "broken.router").write_bytes(trained["alike"][:-7])
    values = np.ones((40, 2))
    table = Table(("a", "b"), ("x",) * 40, ("word",) * 40, values, np.full(values.shape, np.nan))
    (place / "foreign.router").write_bytes(Router(train(table), 40).encode())
    outside = place.parent / "outside.router"
    outside.write_bytes(trained["bad"])

    async def live() -> None:
        async with AsyncFleet.open(stated(place, "{file: routers/chat, version: '1'}")) as fleet:
            rollouts = fleet.engine.learning.rollouts
            for change, message in (
                (Change("broken.router"), "broken.router.*Nothing has changed: 1 serves 'answer'"),
                (Change("foreign.router"), "was trained on a, b; the task has small, large"),
                (Change("9"), "no router is '9'"),
                (Change("../outside.router"), "outside the folder of the fleet file"),
                (Change("../nothing.router"), "outside the folder of the fleet file"),
                (Change("2", sha256="0" * 64), "has the digest"),
                (Change("2", share=0.95), "a candidate decides 0 to 0.9"),
                (Change("2", margin=2.0), "margin is 2"),
            ):
                with pytest.raises(InvalidRequest, match=message):
                    await rollouts.propose("answer", change)
            with pytest.raises(Conflict, match="is in service for 'answer'"):
                await rollouts.propose("answer", Change("1"))
            with pytest.raises(NotFound, match="has no router"):
                await rollouts.propose("answers", Change("1"))
            assert rollouts.course("answer").rollout.candidate is None
            assert routers_of(fleet, await serve(fleet, 3)) == {"1": 3}

    asyncio.run(live())
    outside.unlink()


def test_a_candidate_that_cannot_predict_is_rolled_back_and_costs_no_request(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semaforo.live import scoring

    real, calls = scoring.gains_of, [0]

    async def live() -> None:
        path = stated(place, "{file: routers/chat, version: '1', candidate: '2', share: 0.5}")
        async with AsyncFleet.open(path) as fleet:
            course = fleet.engine.learning.rollouts.course("answer")
            service = course._scorers[course.rollout.service.digest]

            def failing(scorer: object, *rest: object) -> object:
                calls[0] += 1
                if scorer is not service:
                    raise ValueError("no such thing")
                return real(scorer, *rest)  # type: ignore[arg-type]  # as it was given

            monkeypatch.setattr(scoring, "gains_of", failing)
            answers = await serve(fleet, 4)
            assert routers_of(fleet, answers) == {"1": 4}
            assert course.rollout.candidate is None
            assert "could not predict: no such thing" in course.ended[0].why

    asyncio.run(live())
    assert calls[0] == 5
