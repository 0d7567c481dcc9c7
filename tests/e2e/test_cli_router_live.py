"""Routers of a running server, as an operator lists, tries, promotes and rolls them back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from router_fleet import routers, shelved, stated
from semaforo import Fleet
from semaforo.build import blueprint
from semaforo.cli import router as commands
from semaforo.cli.check import run as check
from semaforo.errors import ArtefactError, InvalidRequest, NotFound
from semaforo.routing.router import Router
from semaforo.server.settings import KeySettings, ServerSettings
from served_fleet import Served, serving


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelved(tmp_path_factory.mktemp("live"), routers())


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    plan = blueprint(stated(place, "{file: routers/chat, version: '1'}"))
    with serving(plan.catalog, routers=plan.routers) as found:
        yield found


def semaforo(served: Served, *words: str) -> str:
    """Run a command on the server and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "semaforo", "router", *words, "--url", served.url],
        capture_output=True, text=True, timeout=50, check=False, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(http: httpx.Client, text: str) -> httpx.Response:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    return http.post("/v2/models/answer/infer", json={"inputs": [tensor]})


def now(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/semaforo/v1/routers").json()["routers"][0]
    return found


def change(http: httpx.Client, what: str, **body: Any) -> dict[str, Any]:
    answer = http.post(f"/semaforo/v1/routers/answer/{what}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_commands(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    listed = semaforo(served, "list")
    assert "in service" in listed
    assert "0.900" in listed
    commands.candidate("answer", "2", share=0.2, url=served.url)
    tried = capsys.readouterr().out
    assert "2 decides 20% of the requests, promoted by hand" in tried
    assert "verdict: cannot tell yet" in tried
    commands.promote("answer", why="looks fine", url=served.url)
    assert "2 promoted: looks fine" in capsys.readouterr().out
    commands.rollback("answer", url=served.url, as_json=True)
    back = json.loads(capsys.readouterr().out)
    assert (back["in_service"]["name"], back["before"]) == ("1", None)
    assert [e["what"] for e in back["ended"]] == ["promoted", "rolled back"]


def test_a_candidate_that_never_saw_the_task_is_warned_of(
    served: Served, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    known = Router.decode((place / "routers/chat/1/chat.router").read_bytes(), "1")
    others = msgspec.structs.replace(known.predictor, tasks={"reply": known.predictor.tasks["answer"]})
    (place / "foreign.router").write_bytes(msgspec.structs.replace(known, predictor=others).encode())
    commands.candidate("answer", "foreign.router", url=served.url)
    said = capsys.readouterr().out
    assert "warning: foreign.router was trained on 'reply' and never on 'answer'" in said
    assert said.count("warning") == 1
    commands.rollback("answer", url=served.url)


def test_no_request_is_lost_while_routers_come_and_go(served: Served) -> None:
    stop, seen = threading.Event(), []

    def requests() -> None:
        with httpx.Client(base_url=served.url) as http:
            while not stop.is_set():
                seen.append(ask(http, "red hard").status_code)

    thread = threading.Thread(target=requests)
    thread.start()
    try:
        with httpx.Client(base_url=served.url) as http:
            for _ in range(3):
                assert change(http, "candidate", candidate="2", share=0.5)["candidate"]["name"] == "2"
                assert change(http, "promote")["in_service"]["name"] == "2"
                assert change(http, "rollback")["in_service"]["name"] == "1"
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 3
    assert set(seen) == {200}


def test_what_comes_of_a_candidate_is_scraped(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        change(http, "candidate", candidate="2", share=0.4)
        for n in range(40):
            assert ask(http, f"red {'hard' if n % 2 else 'easy'}").status_code == 200
        lines = http.get("/metrics").text.splitlines()
        change(http, "rollback")
    figures = {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[:1] != "#"
    }

    def figure(name: str, role: str) -> float:
        version = "1" if role == "service" else "2"
        return figures[f'semaforo_router_{name}{{role="{role}",router="{version}",task="answer"}}']

    assert (figure("share", "service"), figure("share", "candidate")) == (0.6, 0.4)
    answered = [figure("answered_total", role) for role in ("service", "candidate")]
    assert sum(answered) == 40
    assert min(answered) > 0
    assert figures['semaforo_router_candidate_seen_total{router="2",task="answer"}'] == 40


def test_feedback_over_http_rolls_a_bad_candidate_back(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        body = {"candidate": "2", "share": 0.5}
        assert http.post("/semaforo/v1/routers/answer/candidate", json=body).status_code == 200
        for i in range(150):
            hard = i % 2
            answer = ask(http, f"blue tree {'hard' if hard else 'easy'}")
            score = float(answer.json()["outputs"][0]["data"][0] == hard)
            said = {"request_id": answer.headers["semaforo-request-id"], "score": score}
            assert http.post("/semaforo/v1/feedback", json=said).status_code == 200
            if i % 10 == 9 and now(served)["candidate"] is None:
                break
        found = now(served)
        assert found["in_service"]["name"] == "1"
        assert found["ended"][-1]["why"].startswith("shown to be worse")


def test_what_is_wrong_is_refused_and_the_old_one_serves_on(served: Served, place: Path) -> None:
    (place / "broken.router").write_bytes(b"no router at all")
    with httpx.Client(base_url=f"{served.url}/semaforo/v1/routers") as http:
        for path, body, status, message in (
            ("answer/candidate", {"candidate": "broken.router"}, 400, "is no trained router"),
            ("answer/candidate", {"candidate": "../../etc/passwd"}, 400, "outside the folder"),
            ("answer/candidate", {"candidate": "1"}, 409, "in service"),
            ("answer/candidate", {"candidat": "1"}, 400, "not a change of a router"),
            ("answer/candidate", {"candidate": "2", "promote": "maybe"}, 400, "not a change of a router"),
            ("nothing/promote", {}, 404, "has no router"),
            ("answer/promote", {}, 409, "no candidate"),
        ):
            answer = http.post(path, json=body)
            assert (answer.status_code, message in answer.text) == (status, True), answer.text
    assert now(served)["in_service"]["name"] == "1"
    with pytest.raises(InvalidRequest, match="Nothing has changed: 1 serves 'answer'"):
        commands.candidate("answer", "broken.router", url=served.url)


def test_the_frontier_of_a_running_fleet(
    served: Served, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with httpx.Client(base_url=served.url) as http:
        answers = [ask(http, f"green car {'hard' if i % 3 else 'easy'}") for i in range(6)]
        said = {"request_id": answers[0].headers["semaforo-request-id"], "score": 1.0}
        http.post("/semaforo/v1/feedback", json=said).raise_for_status()
        found = http.get("/semaforo/v1/frontier", params={"task": "answer"}).json()["tasks"][0]
        assert http.get("/semaforo/v1/frontier", params={"task": "anser"}).status_code == 404
    assert {v["variant"].split("/")[0] for v in found["variants"]} == {"small", "large"}
    assert all(v["low"] < v["quality"] < v["high"] for v in found["variants"])
    assert all(v["cost"] > 0.0 and v["latency_s"] > 0.0 for v in found["variants"])
    assert sum(v["share"] for v in found["variants"]) == pytest.approx(1.0)
    now = found["now"]
    assert now["answers"] >= 6
    assert now["judged"] >= 1
    # The router knows which of the two is right, which no mixture does.
    assert now["quality"] > max(v["quality"] for v in found["variants"])
    assert found["aim"]["goal"] == "the best"
    drawn = place / "frontier.png"
    commands.frontier(None, task="answer", png=drawn, url=served.url)
    shown = capsys.readouterr().out
    assert "goal: the best" in shown
    assert "now: quality" in shown
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_the_frontier_of_a_history(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Fleet.open(place / "fleet.yaml", journal=False) as fleet:
        for i in range(4):
            answer = fleet.infer("answer", text=f"tree {'hard' if i % 2 else 'easy'}")
            fleet.feedback(answer, score=1.0)
    commands.frontier(place / "history.db", task="answer", as_json=True)
    found = json.loads(capsys.readouterr().out)[0]
    assert {v["variant"].split("/")[0]: v["feedback"] for v in found["variants"]} == {"small": 2, "large": 2}
    assert found["now"]["score"] == 1.0
    commands.frontier(place / "history.db")
    assert "now: quality" in capsys.readouterr().out
    with pytest.raises(NotFound, match="no answers of 'answers' lately"):
        commands.frontier(place / "history.db", task="answers")
    with pytest.raises(InvalidRequest, match="needs a table"):
        commands.frontier(None, file=place / "broken.router")


def test_a_folder_stands_for_its_newest_version(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (place / "routers/chat", place / "routers/chat/3"):
        commands.explain(folder, as_json=True)
        assert json.loads(capsys.readouterr().out)["made"] == "2026-01-01"
    with pytest.raises(ArtefactError, match=r"holds no \.router file"):
        commands.explain(place / "routers")
    check(place / "fleet.yaml", upstreams=False)
    assert "in service" in capsys.readouterr().out


def test_only_operators_change_routers(place: Path) -> None:
    plan = blueprint(place / "fleet.yaml")
    keys = {
        "key-of-a-reader": KeySettings("ops", ("read",)),
        "key-of-an-operator": KeySettings("ops", ("operate",)),
    }
    settings = ServerSettings(port=0, grace_s=2.0, keys=keys)
    with serving(plan.catalog, settings, routers=plan.routers) as served:
        at = f"{served.url}/semaforo/v1/routers"
        reader, operator = ({"authorization": f"Bearer {key}"} for key in keys)
        assert httpx.get(at).status_code == 401
        assert httpx.get(at, headers=reader).status_code == 200
        change = {"candidate": "3"}
        assert httpx.post(f"{at}/answer/candidate", json=change, headers=reader).status_code == 403
        assert httpx.post(f"{at}/answer/candidate", json=change, headers=operator).status_code == 200
