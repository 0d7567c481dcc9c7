"""Answers to requests that mean the same: given once pairs have shown how alike is enough, and not before."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from semaforo import AsyncFleet, Fleet
from semaforo.build import blueprint
from semaforo.config.fleet import FleetFileError
from served_fleet import serving

FLEET = """\
tasks:
  meaning: {kind: embedding}
  topic:
    inputs: {text: bytes, x: fp32[1]}
    outputs: {label: int64}
    cache: {exact: true, semantic: {embedding: meaning, wait: 10s, most_wrong: 0.1, check: 0}}
  chat: {kind: chat, cache: {exact: true, semantic: {embedding: ngrams, wait: 10s, most_wrong: 0.1, check: 0}}}
  yes: {kind: chat}
models:
  ngrams: {task: meaning, python: "means.py:embed", isolation: inline}
  topics: {task: topic, python: "means.py:topic", isolation: inline}
  talker: {task: chat, python: "means.py:talk", isolation: thread}
  judge: {task: yes, python: "means.py:judge", isolation: thread}
history: history.db
"""
MEANS = """\
import time
import zlib

import numpy as np

calls = 0
seen = []


def embed(input: list[str]) -> np.ndarray:
    found = np.zeros((len(input), 256), np.float32)
    for row, text in enumerate(input):
        if text == "slow":
            time.sleep(1.0)
        if text == "broken":
            raise RuntimeError("no such word")
        seen.append(text)
        padded = f" {text.lower()} "
        for at in range(len(padded) - 2):
            found[row, zlib.crc32(padded[at : at + 3].encode()) % 256] += 1
    return found


def topic(text: list[str], x: np.ndarray) -> np.ndarray:
    global calls
    calls += 1
    return np.array([t.count("rain") for t in text])


def talk(messages):
    said = messages[-1]["content"]
    yield "It rains, " if "rain" in said else "It shines, "
    yield "of course." if said.endswith("?") else "indeed."


def judge(messages):
    text = messages[-1]["content"]
    yield "Yes." if "shine" not in text or "rain" not in text else "No."
"""
WORDS = (
    "paris", "rome", "oslo", "bern", "madrid", "lisbon", "vienna", "athens", "prague", "dublin", "warsaw",
    "zagreb", "sofia", "riga", "tallinn",
)  # fmt: skip
X = np.float32([1.0])


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "means.py").write_text(MEANS)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


def like(n: int, mark: str = "") -> str:
    """Return one of many questions, in one of several ways to put it."""
    return f"will there be rain in {WORDS[n % 15]} on day {n % 7} of month {n % 11} {mark}".strip()


def teach(fleet: Fleet, pairs: int = 60, bad: bool = False) -> None:
    """Ask pairs of questions that mean the same, or, where `bad`, do not though they look so."""
    for n in range(pairs):
        fleet.infer("topic", text=like(n, "please"), x=X)
        fleet.infer("topic", text=like(n, "please" if not bad else "rain please") + "!", x=X)


def test_answers_are_given_once_pairs_have_shown_that_they_may_be(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        fleet.infer("topic", text=like(0), x=X)
        first = fleet.infer("topic", text=like(0) + "?", x=X)
        assert first.model == "topics"
        assert first.replica != "cache/semantic"
        assert "how much is enough is not known yet" in first.why
        assert "step embedding: ngrams/default" in first.why
        teach(fleet)
        second = fleet.infer("topic", text=like(0) + "!?", x=X)
        assert (second.replica, second.cost, second["label"]) == ("cache/semantic", 0.0, 1)
        assert "given what was said to a request like it" in second.why
        assert fleet.infer("topic", text=like(0) + "!?", x=X, cache=False).replica.startswith("topics")
        assert fleet.infer("topic", text="something else altogether", x=X).replica.startswith("topics")
    with Fleet.open(fleet_file) as fleet:  # what was learned is known again, what was kept is not
        assert fleet.infer("topic", text=like(0), x=X).replica.startswith("topics")
        assert fleet.infer("topic", text=like(0) + "!", x=X).replica == "cache/semantic"


def test_what_differs_in_more_than_words_is_never_compared(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        teach(fleet)
        given = {"text": like(3) + " now", "x": X}
        assert fleet.infer("topic", **given).replica == "cache/semantic"
        for other in (
            {"tenant": "other"}, {"x": np.float32([2.0])}, {"parameters": {"way": 2}}, {"privacy": "site"},
        ):  # fmt: skip
            assert fleet.infer("topic", **{**given, **other}).replica.startswith("topics")
        assert fleet.infer("topics", **given).replica.startswith("topics")
        several = fleet.infer("topic", text=[like(3) + " so", like(4) + " so"], x=np.float32([[1], [1]]))
        assert several.replica.startswith("topics")


def test_where_what_looks_alike_is_not_nothing_is_given(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        teach(fleet, bad=True)
        answer = fleet.infer("topic", text=like(0, "rain please") + "?", x=X)
        assert answer.replica.startswith("topics")


def test_feedback_on_what_was_given_takes_it_away(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        teach(fleet)
        believed = dict(fleet._inner.engine.history)
        for n in range(12):
            answer = fleet.infer("topic", text=f"{like(0)} {'!' * (n + 1)}", x=X)
            if answer.replica != "cache/semantic":
                break
            fleet.feedback(answer, score=0)
        assert 0 < n < 12
        assert fleet._inner.engine.history == believed, "the variant never said so to these requests"


def test_an_answer_that_was_bad_is_not_given_again(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        text = "a question without company"
        fleet.infer("topic", text=text, x=X)
        again = fleet.infer("topic", text=text, x=X)
        assert again.replica == "cache"
        fleet.feedback(again, correct=False)
        anew = fleet.infer("topic", text=text, x=X)
        assert anew.replica.startswith("topics")
        assert fleet.infer("topic", text=text, x=X).replica == "cache"


def test_an_embedding_that_is_late_or_fails_or_may_not_see_the_data_holds_nobody_up(fleet_file: Path) -> None:
    text = fleet_file.read_text().replace("wait: 10s, most_wrong: 0.1, check: 0}}\n", "wait: 30ms}}\n", 1)
    fleet_file.write_text(text.replace("isolation: inline}\n  topics", "isolation: thread}\n  topics"))
    with Fleet.open(fleet_file) as fleet:
        slow = fleet.infer("topic", text="slow", x=X)
        assert slow["label"] == 0
        assert slow.latency_s < 0.9
        assert fleet.infer("topic", text="broken", x=X)["label"] == 0
    fleet_file.write_text(text.replace('means.py:embed"', 'means.py:embed", sees: [public]'))
    with Fleet.open(fleet_file) as fleet:
        seen = fleet.infer("topic", text="seen by all", x=X)
        hidden = fleet.infer("topic", text="seen by few", x=X, privacy="site")
        assert "step embedding: ngrams" in seen.why
        assert re.search("step embedding: refused", hidden.why)
        assert hidden["label"] == 0


def test_who_goes_away_while_his_words_are_embedded_is_let_go(fleet_file: Path) -> None:
    fleet_file.write_text(
        fleet_file.read_text().replace('embed", isolation: inline', 'embed", isolation: thread')
    )

    async def live() -> None:
        async with AsyncFleet.open(fleet_file) as fleet:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(fleet.infer("topic", text="slow", x=X), 0.1)
            engine = fleet.engine
            assert engine.ring.recent(2)[-1].finish is not None
            assert engine.ring.recent(2)[-1].finish.outcome == "cancelled"
            late = fleet.infer("topic", text="slow", x=X, deadline=0.4)
            assert (await late)["label"] == 0

    asyncio.run(live())


def test_a_chat_is_compared_by_its_last_words_and_judged_by_a_judge(fleet_file: Path) -> None:
    text = fleet_file.read_text()
    fleet_file.write_text(text.replace("embedding: ngrams, wait", "embedding: ngrams, judge: yes, wait"))
    with Fleet.open(fleet_file) as fleet:

        def ask(n: int, mark: str, **more: object) -> str:
            chat = fleet.chat("chat", like(n, mark), temperature=0, **more)
            chat.text()
            assert chat.answer is not None
            return chat.answer.replica

        for n in range(60):
            ask(n, "please")
            assert ask(n, "please?") != "cache", n  # other words are said, so that a judge is asked
        assert ask(3, "please, yes") == "cache/semantic"
        assert ask(3, "please, yes", max_tokens=50).startswith("talker")
        turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": like(3)}]
        other = fleet.chat("chat", turns, temperature=0)
        other.text()
        assert other.answer is not None
        assert other.answer.replica.startswith("talker")


def test_over_http_and_in_the_figures(fleet_file: Path) -> None:
    plan = blueprint(fleet_file)
    with serving(plan.catalog) as served, httpx.Client(base_url=served.url) as http:

        def ask(text: str, **headers: str) -> httpx.Response:
            inputs = [
                {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]},
                {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]},
            ]
            found = http.post("/v2/models/topic/infer", json={"inputs": inputs}, headers=headers)
            assert found.status_code == 200, found.text
            return found

        for n in range(60):
            ask(like(n))
            ask(like(n) + "?")
        given = ask(like(1) + "!")
        assert given.headers["semaforo-cache"] == "semantic"
        assert given.headers["semaforo-model"] == "topics"
        assert "semaforo-cache" not in ask(like(1) + "!", **{"semaforo-cache": "off"}).headers
        metrics = http.get("/metrics").text
        assert re.search(r'semaforo_cache_semantic_hits_total\{task="topic"\} [1-9]', metrics)
        assert 'semaforo_cache_threshold{task="chat"} +Inf' in metrics
        body = {"request_id": given.headers["semaforo-request-id"], "score": 1}
        assert http.post("/semaforo/v1/feedback", json=body).status_code == 200
        story = http.get(f"/semaforo/v1/decisions/{given.headers['semaforo-request-id']}").json()
        assert story["likened"]["given"] is True


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "embedding: meaning",
            "embedding: topic",
            "is of kind tensor: name a task or model of kind embedding",
        ),
        ("embedding: meaning", "embedding: meanign", "no model or task is named 'meanign'"),
        (
            "exact: true, semantic: {embedding: meaning",
            "semantic: {embedding: meaning",
            "goes with `exact: true`",
        ),
        ("embedding: meaning", "embedding: meaning, input: x", "no input of texts is named 'x'"),
        ("text: bytes, x: fp32[1]", "text: bytes, x: bytes", "has text, x: name one by `input`"),
        ("embedding: meaning", "embedding: meaning, judge: yes", "judges chats"),
        ("embedding: ngrams", "embedding: ngrams, judge: topic", "name a task or model of kind chat"),
    ],
)
def test_what_cannot_be_compared_is_refused(fleet_file: Path, old: str, new: str, message: str) -> None:
    text = fleet_file.read_text()
    assert old in text
    fleet_file.write_text(text.replace(old, new))
    with pytest.raises(FleetFileError, match=re.escape(message)):
        Fleet.open(fleet_file)


def test_many_at_once_and_many_that_go_away_leave_nothing_behind(fleet_file: Path) -> None:
    text = fleet_file.read_text().replace('embed", isolation: inline', 'embed", isolation: thread')
    fleet_file.write_text(text)

    async def live() -> None:
        rng = np.random.default_rng(0)
        async with AsyncFleet.open(fleet_file) as fleet:
            engine = fleet.engine

            async def ask(n: int, patience: float) -> str:
                try:
                    answer = await asyncio.wait_for(fleet.infer("topic", text=like(n % 40), x=X), patience)
                except TimeoutError:
                    return "gone"
                return str(answer.replica)

            async def chat(n: int) -> str:
                stream = await fleet.chat("chat", like(n % 40, "?" * (n % 3)), temperature=0)
                if n % 5 == 0:
                    stream.close()
                    return "gone"
                await stream.text()
                return "said"

            patience = rng.choice([0.0, 0.001, 0.004, 30.0], 300)
            ended = await asyncio.gather(
                *(ask(n, float(patience[n])) for n in range(300)), *(chat(n) for n in range(60))
            )
            assert "gone" in ended
            assert sum(end.startswith("topics") for end in ended) >= 40 - 30
            await asyncio.sleep(0.05)
            meanings, before = engine.learning._meanings, engine.learning._before
            for left in (
                engine._waiters, engine._streams, engine._payloads, meanings._held, meanings._placed,
                meanings._near, before._asked, engine.learning._embeddings._coming,
            ):  # fmt: skip
                assert not left
            kept = before.caches()["topic"]
            assert len(meanings._where) == len(kept) + len(before.caches()["chat"]), "all is found by meaning"
            assert kept.bytes > 0
            kept.forget({"topics/1/default"})
            assert {task for task, _ in meanings._where} == {"chat"}
            assert all(place[0] == "chat" for place in meanings._indexes)

    asyncio.run(live())
