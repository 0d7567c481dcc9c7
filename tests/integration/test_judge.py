"""Judges: chats of the fleet that say what answers are worth, off the way of whoever asks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from semaforo import AsyncFleet, Fleet
from semaforo.config.fleet import FleetFileError
from semaforo.errors import Conflict
from semaforo.live.judging import score_in
from upstream import Upstream

FLEET = """\
tasks:
  sum:
    inputs:  {a: int64[1], b: int64[1]}
    outputs: {c: int64[1]}
    prefer:  {maximise: quality}
    judge:   {model: critic, share: 1}
  chat:
    kind: chat
    prefer: {maximise: quality}
    judge: {model: critic, share: 1, prompt: "Q={question} A={answer}"}
  verdict: {kind: chat, judge: {model: talker, share: 1}}
models:
  wrong: {task: sum, python: "said.py:wrong", quality: 0.9, isolation: inline}
  right: {task: sum, python: "said.py:right", quality: 0.7, isolation: inline}
  talker: {task: chat, python: "said.py:talk", isolation: thread}
  critic: {task: verdict, python: "said.py:critic", isolation: thread}
history: history.db
"""
SAID = """\
import re
import time

import numpy as np


def wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a + b + 1


def right(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a + b


def talk(messages):
    yield "You said "
    yield messages[-1]["content"].upper()


def critic(messages):
    text = messages[-1]["content"]
    if "slow" in text:
        time.sleep(0.3)
    if "broken" in text:
        raise RuntimeError("no opinion")
    numbers = dict(re.findall(r"^([abc]): (-?\\d+)$", text, re.M))
    if numbers:
        good = int(numbers["a"]) + int(numbers["b"]) == int(numbers["c"])
        yield "Score: " + ("1.0" if good else "0")
    else:
        yield "7/10"
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "said.py").write_text(SAID)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


async def settled(fleet: AsyncFleet) -> None:
    """Wait until no judge is at work."""
    for _ in range(500):
        if not fleet.engine.learning._judging._running:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the judge does not come back")


def test_a_judge_alone_moves_traffic_to_the_model_that_is_right(fleet_file: Path) -> None:
    async def live() -> list[str]:
        models = []
        async with AsyncFleet.open(fleet_file) as fleet:
            for n in range(40):
                answer = await fleet.infer("sum", a=np.int64([n]), b=np.int64([3]))
                models.append(answer.model)
                await settled(fleet)
            assert "feedback: 1 by judge" in (await fleet.explain(answer.request_id))
        return models

    models = asyncio.run(live())
    assert models[0] == "wrong"
    assert set(models[-5:]) == {"right"}


def test_a_chat_is_judged_by_all_that_was_said(fleet_file: Path) -> None:
    async def live() -> None:
        async with AsyncFleet.open(fleet_file) as fleet:
            chat = await fleet.chat("chat", "hello there")
            await chat.text()
            answer = chat.answer
            assert answer is not None
            await settled(fleet)
            history = fleet.engine.history["talker/1/default"]
            assert history.quality is not None
            assert history.quality.given == 1
            assert history.quality.good == pytest.approx(0.5 * 0.7)
            # A critic's verdicts are steps: nobody judges them.
            assert (
                "critic/1/default" not in fleet.engine.history
                or not fleet.engine.history["critic/1/default"].quality
            )
            explained = await fleet.explain(answer.request_id)
            assert "feedback: 0.7 by judge" in explained
            # Whoever knows better is heard beside the judge, once.
            await fleet.feedback(answer, score=0.1)
            with pytest.raises(Conflict):
                await fleet.feedback(answer, score=0.2)

    asyncio.run(live())


def test_nobody_waits_for_a_judge(fleet_file: Path) -> None:
    async def live() -> None:
        async with AsyncFleet.open(fleet_file) as fleet:
            chat = await fleet.chat("chat", "a slow thing")
            await chat.text()
            assert chat.answer is not None
            assert "feedback" not in await fleet.explain(chat.answer.request_id)
            await settled(fleet)
            assert "feedback: 0.7 by judge" in await fleet.explain(chat.answer.request_id)

    asyncio.run(live())


def test_no_judge_judges_itself(fleet_file: Path) -> None:
    fleet_file.write_text(
        fleet_file.read_text().replace("{model: critic, share: 1, prompt", "{model: talker, share: 1, prompt")
    )

    async def live() -> None:
        async with AsyncFleet.open(fleet_file) as fleet:
            await (await fleet.chat("chat", "hello")).text()
            assert not fleet.engine.learning._judging._running

    asyncio.run(live())


def test_who_asks_pays_for_the_judge_which_is_not_asked_beyond_the_budget(fleet_file: Path) -> None:
    async def live() -> float:
        async with AsyncFleet.open(fleet_file) as fleet:
            for n in range(5):
                answer = await fleet.infer("sum", a=np.int64([n]), b=np.int64([3]), tenant="acme")
                assert answer.model == "wrong"
                await settled(fleet)
            account = fleet.engine._dispatcher.state.accounts["tenant:acme"]
            assert account.reserved == 0.0
            return account.spent

    with Upstream("7/10 7/10 7/10 .") as upstream:
        url = upstream.url.removesuffix("/v1")
        paid = f"url: {url}/v1, cost: {{request: 0.4}}, options: {{model: bigram}}"
        text = fleet_file.read_text().replace('python: "said.py:critic", isolation: thread', paid)
        fleet_file.write_text(f"{text}budgets:\n  tenants: {{acme: {{spend: 1, per: 1h}}}}\n")
        assert asyncio.run(live()) == pytest.approx(0.8)
        assert len(upstream.seen) == 2


def test_its_failures_harm_nobody(fleet_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "semaforo.engine")

    async def live() -> None:
        async with AsyncFleet.open(fleet_file) as fleet:
            chat = await fleet.chat("chat", "a broken thing")
            assert "BROKEN" in await chat.text()
            answer = chat.answer
            assert answer is not None
            await settled(fleet)
            assert "feedback" not in (await fleet.explain(answer.request_id))

    asyncio.run(live())
    assert "could not judge the answer" in caplog.text


def test_what_a_judge_does_not_fit_is_said(fleet_file: Path) -> None:
    text = fleet_file.read_text()
    for old, new, message in (
        ("{model: critic, share: 1}", "{model: sum, share: 1}", "is of kind tensor"),
        ("{model: talker, share: 1}", "{model: verdict, share: 1}", "is the task itself"),
        ("A={answer}", "A={answers}", "has to hold {question} and {answer}"),
        ("A={answer}", "A={answer:d}", "has to hold {question} and {answer}"),
        ("A={answer}", "A={answer", "cannot be read"),
    ):
        assert old in text
        fleet_file.write_text(text.replace(old, new))
        with pytest.raises(FleetFileError, match=message):
            Fleet.open(fleet_file)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("0.8", 0.8), ("Score: 1.0", 1.0), ("I give 7/10.", 0.7), ("4 out of 5", 0.8), ("85 %", 0.85), (".5", 0.5),
        ("good", None), ("8", None), ("-1", None), ("3/0", None), ("", None), ("gpt4 says 1", 1.0),
    ],
)  # fmt: skip
def test_the_first_number_of_a_reply_is_the_score(text: str, score: float | None) -> None:
    assert score_in(text) == (None if score is None else pytest.approx(score))
