"""Feedback from callers: over HTTP, by clients and in a program, and what is kept of it over a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest

from semaforo import AsyncFleet, Client, Fleet
from semaforo.errors import BudgetSpent, ConfigError, Conflict, InvalidRequest, NotFound
from semaforo.repository.history import HistoryStore, in_use
from semaforo.server.settings import KeySettings, ServerSettings
from served_fleet import only, serving, small_fleet

FLEET = """\
tasks:
  side:
    inputs:  {x: fp32[1]}
    outputs: {label: int64}
    prefer:  {minimise: cost, keep_quality: 0.9}
devices: {cpu: {price: 1/h}}
models:
  cheap: {task: side, python: "sides.py:cheap", quality: 0.94, isolation: thread}
  dear: {task: side, python: "sides.py:dear", quality: 0.96, isolation: thread}
history: kept/history.db
"""

SIDES = """\
import pathlib
import time

import numpy as np

broken = pathlib.Path(__file__).with_name("broken")


def cheap(x: np.ndarray) -> np.ndarray:
    side = (x[:, 0] > 0).astype(np.int64)
    return 1 - side if broken.exists() else side


def dear(x: np.ndarray) -> np.ndarray:
    time.sleep(0.003)
    return (x[:, 0] > 0).astype(np.int64)
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "sides.py").write_text(SIDES)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


def ask(fleet: Fleet, side: int) -> tuple[str, str]:
    """Ask once, say what was right, and return who answered and the id."""
    answer = fleet.infer("side", x=np.array([1.0 if side else -1.0], np.float32))
    fleet.feedback(answer, label=side)
    return answer.model, answer.request_id


def test_traffic_leaves_a_degraded_model_and_is_back_after_its_repair_is_seen(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        assert {ask(fleet, n % 2)[0] for n in range(20)} == {"cheap"}
        (fleet_file.parent / "broken").touch()
        models = [ask(fleet, n % 2)[0] for n in range(200)]
        assert models[-1] == "dear"
        assert models.count("cheap") < 40
        assert "quality 0.9" not in fleet.explain(ask(fleet, 1)[1]).splitlines()[1]
        (fleet_file.parent / "broken").unlink()
        for _ in range(40):
            fleet.feedback(fleet.infer("cheap", x=np.float32([1.0])), label=1)
        assert ask(fleet, 1)[0] == "cheap"


def test_what_was_learned_outlives_the_fleet(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        answer = fleet.infer("side", x=np.float32([1.0]))
        assert answer.model == "cheap"
        late = answer.request_id
        for _ in range(15):
            fleet.feedback(fleet.infer("cheap", x=np.float32([1.0])), correct=False)
    with Fleet.open(fleet_file) as fleet:
        assert fleet.infer("side", x=np.float32([1.0])).model == "dear"
        fleet.feedback(late, score=1)
        with pytest.raises(Conflict, match="given before"):
            fleet.feedback(late, score=1)
    store = HistoryStore(fleet_file.parent / "kept/history.db")
    kept = {a.id: a for a in store.answers()}
    assert kept[late].score == 1.0
    assert kept[late].variant == "cheap/1/default"
    assert sum(a.score == 0.0 for a in store.answers(judged=True)) == 15
    store.close()


def test_another_artefact_under_the_same_name_begins_anew(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        for _ in range(15):
            fleet.feedback(fleet.infer("cheap", x=np.float32([1.0])), correct=False)
    (fleet_file.parent / "other.py").write_text(SIDES)
    fleet_file.write_text(fleet_file.read_text().replace("sides.py:cheap", "other.py:cheap"))
    with Fleet.open(fleet_file) as fleet:
        assert fleet.infer("side", x=np.float32([1.0])).model == "cheap"


def test_bad_feedback_is_told_what_is_wrong(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        answer = fleet.infer("side", x=np.float32([[1.0], [2.0]]))
        with pytest.raises(NotFound, match="no answer is known under 'nobody'"):
            fleet.feedback("nobody", score=1)
        with pytest.raises(InvalidRequest, match="of an answer, or of the id of its request, not of 5"):
            fleet.feedback(5, score=1)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="score is 'good'; it takes a number"):
            fleet.feedback(answer, score="good")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match=r"score is 1\.5; it takes 0"):
            fleet.feedback(answer, score=1.5)
        with pytest.raises(InvalidRequest, match="score is nan"):
            fleet.feedback(answer, score=float("nan"))
        with pytest.raises(InvalidRequest, match="one of: score, correct"):
            fleet.feedback(answer)
        with pytest.raises(InvalidRequest, match="one of: score, correct"):
            fleet.feedback(answer, score=1, correct=True)
        with pytest.raises(InvalidRequest, match="correct is 'no'; it takes True or False"):
            fleet.feedback(answer, correct="no")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="the label has 1 rows, the answer 2"):
            fleet.feedback(answer, label=1)
        with pytest.raises(InvalidRequest, match=r"no output 'labels'.*Did you mean 'label'"):
            fleet.feedback(answer, label={"labels": [1, 1]})
        with pytest.raises(InvalidRequest, match="another request than its own"):
            fleet.feedback(answer, better_than=answer)
        with pytest.raises(InvalidRequest, match=r"'label' is a number, which a label of 'one' cannot be"):
            fleet.feedback(answer, label=["one", 0])
        fleet.feedback(answer, label=[1, 0])
        with pytest.raises(Conflict, match="given before; it counts once"):
            fleet.feedback(answer, score=1)
        assert "feedback: 0.5 by label" in fleet.explain(answer.request_id)


def test_a_preference_speaks_of_two_answers(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        one, other = fleet.infer("dear", x=np.float32([1.0])), fleet.infer("cheap", x=np.float32([1.0]))
        fleet.feedback(one, better_than=other)
        assert "feedback: 1 by preference" in fleet.explain(one.request_id)
        assert "feedback: 0 by preference" in fleet.explain(other.request_id)
        with pytest.raises(Conflict):
            fleet.feedback(other, score=1)


def test_one_history_is_kept_by_one_fleet(fleet_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = fleet_file.parent / "kept/history.db"
    with Fleet.open(fleet_file):
        assert in_use(path)
        with pytest.raises(ConfigError, match="is in use: stop the fleet"):
            HistoryStore(path)
        with Fleet.open(fleet_file) as second:
            assert second.infer("side", x=np.float32([1.0])).model == "cheap"
        assert "is kept by another fleet" in caplog.text
    assert not in_use(path)


def test_a_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("a text" * 200)
    with pytest.raises(ConfigError, match="cannot keep the history in"):
        HistoryStore(tmp_path / "notes.db")


def test_feedback_before_the_answer_is_a_conflict(fleet_file: Path) -> None:
    slow = fleet_file.parent / "sides.py"
    slow.write_text(SIDES.replace("    side = ", "    time.sleep(0.2)\n    side = "))

    async def early() -> None:
        async with AsyncFleet.open(fleet_file) as fleet:
            asked = asyncio.ensure_future(fleet.infer("cheap", x=np.float32([1.0])))
            while not (recent := fleet.engine.ring.recent(1)):
                await asyncio.sleep(0.005)
            with pytest.raises(Conflict, match="is not answered yet"):
                await fleet.feedback(recent[0].request.id, score=1)
            await asked

    asyncio.run(early())


def test_over_http(tmp_path: Path) -> None:
    with (
        serving(only(small_fleet(tmp_path), "digits")) as server,
        Client(server.url) as client,
        httpx.Client(base_url=server.url) as http,
    ):
        answer = client.infer("digits", image=np.zeros(4, np.float32))
        client.feedback(answer, score=0.25)
        told = http.post("/semaforo/v1/feedback", json={"request_id": answer.request_id, "score": 1})
        assert told.status_code == 409
        again = client.infer("digits", image=np.zeros(4, np.float32))
        told = http.post("/semaforo/v1/feedback", json={"request_id": again.request_id, "score": 1})
        assert told.json()["learned"][0]["score"] == 1.0
        for body, status in (
            ({"request_id": "x", "score": 1}, 404),
            ({"request_id": again.request_id, "score": 7}, 400),
            ({"request_id": again.request_id, "stars": 7}, 400),
            ({"score": 1}, 400),
            ([], 400),
        ):
            refused = http.post("/semaforo/v1/feedback", json=body)
            assert (refused.status_code, bool(refused.json()["error"])) == (status, True)
        known = http.get("/semaforo/v1/quality").json()["variants"]
        (mine,) = (v for v in known if v.get("feedback") == 2)
        assert mine["low"] < mine["believed"] < mine["high"]
        assert mine["latency_s"][0] > 0.0


def test_a_tenant_speaks_of_its_own_answers_only(tmp_path: Path) -> None:
    keys = {
        name: KeySettings(tenant=name, roles=frozenset({"infer"}), may_set_tenant=False)
        for name in ("one", "two")
    }
    settings = ServerSettings(port=0, keys=keys, allow_anonymous=False)
    with (
        serving(only(small_fleet(tmp_path), "digits"), settings) as server,
        Client(server.url, key="one") as one,
        Client(server.url, key="two") as two,
    ):
        answer = one.infer("digits", image=np.zeros(4, np.float32))
        with pytest.raises(NotFound):
            two.feedback(answer.request_id, score=0)
        one.feedback(answer.request_id, score=1)


def test_what_was_spent_counts_after_a_restart(fleet_file: Path) -> None:
    text = fleet_file.read_text().replace("1/h", "3600/s")
    fleet_file.write_text(text + "budgets: {fleet: {spend: 0.5, per: 1h}}\n")

    def spend(fleet: Fleet) -> None:
        for _ in range(10_000):
            fleet.infer("cheap", x=np.float32([1.0]))

    with Fleet.open(fleet_file) as fleet, pytest.raises(BudgetSpent, match="for fleet"):
        spend(fleet)
    with Fleet.open(fleet_file) as fleet:
        with pytest.raises(BudgetSpent, match="left of"):
            spend(fleet)
        assert len(fleet._inner.engine.ring.recent(1000)) < 20


def test_the_id_of_an_answer_as_openai_clients_have_it_names_the_request(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        one, other = (fleet.infer("side", x=np.float32([1.0])).request_id for _ in range(2))
        fleet.feedback(f"chatcmpl-{one}", better_than=f"cmpl-{other}")
        assert "feedback: 1 by preference" in fleet.explain(f"chatcmpl-{one}")
        assert "feedback: 0 by preference" in fleet.explain(other)
        with pytest.raises(Conflict, match=f"feedback on '{one}' was given before"):
            fleet.feedback(f"chatcmpl-{one}", score=1)
