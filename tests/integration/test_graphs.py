"""Graphs in a running fleet: cascades, fusions, maps, loops, functions, sessions, chats, nesting, cancelling."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from graph_fleet import FLEET, write_graphs
from semaforo import Client, Fleet
from semaforo.build import blueprint
from semaforo.config.fleet import FleetFileError
from semaforo.errors import Expired, ModelFailed
from semaforo.server.settings import ServerSettings
from served_fleet import Served, serving

ROWS = np.array([[1, 1, 1], [0.1, 0.1, 0.2], [-1, -1, -1]], np.float32)
V2 = {"inputs": [{"name": "x", "shape": [3, 3], "datatype": "FP32", "data": ROWS.ravel().tolist()}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graphs(tmp_path_factory.mktemp("graphs")).parent


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[Fleet]:
    with Fleet.open(folder / "fleet.yaml") as found:
        yield found


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(blueprint(folder / "fleet.yaml").catalog, ServerSettings(port=0, grpc_port=0)) as found:
        yield found


def models(folder: Path) -> Any:
    """Return the module in which the models of the fleet were imported."""
    return next(
        module
        for module in list(sys.modules.values())
        if {"GATE", "CALLS"} <= vars(module).keys() and module.__file__ == str(folder / "models.py")
    )


@pytest.fixture
def calls(folder: Path, fleet: Fleet) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = models(folder).CALLS
    found.clear()
    return found


@pytest.fixture
def hanging(folder: Path, fleet: Fleet) -> Iterator[None]:
    """Let the slow model hang until the test ends."""
    models(folder).GATE.clear()
    yield
    models(folder).GATE.set()


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_a_cascade_asks_the_large_model_only_for_rows_of_which_the_small_one_is_unsure(
    fleet: Fleet, calls: list[tuple[str, int]]
) -> None:
    answer = fleet.infer("cascade", x=ROWS)
    assert answer["label"].tolist() == [1, 1, 0]
    assert calls == [("quick", 3), ("sure", 1)]
    assert answer["p"][1].tolist() == [0, 1]
    assert answer["p"][0, 1] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-6)
    assert answer.without == ()
    calls.clear()
    fleet.infer("cascade", x=ROWS[:1])
    assert calls == [("quick", 1)]


def test_a_fusion_goes_on_without_a_member_that_fails_and_says_so(fleet: Fleet) -> None:
    answer = fleet.infer("robust", x=ROWS)
    assert answer["label"].tolist() == [1, 1, 0]
    assert answer.without == ("a: model_failed",)
    assert "without a: model_failed" in answer.why
    assert "step b: sure/default in" in answer.why


def test_where_nothing_is_left_the_error_is_that_of_the_step_at_fault(fleet: Fleet) -> None:
    with pytest.raises(ModelFailed, match="step 'a': the model raised RuntimeError"):
        fleet.infer("hopeless", x=ROWS)


@pytest.mark.usefixtures("hanging")
def test_a_member_that_is_late_is_left_out_after_the_wait(fleet: Fleet) -> None:
    answer = fleet.infer("patient", x=ROWS)
    assert answer.without == ("a: late",)
    assert answer["label"].tolist() == [1, 1, 0]


@pytest.mark.usefixtures("hanging")
def test_a_hedge_answers_while_the_first_hangs_and_is_never_begun_where_it_does_not(
    fleet: Fleet, calls: list[tuple[str, int]]
) -> None:
    answer = fleet.infer("hedged", x=ROWS)
    assert calls == [("quick", 3)]
    assert answer["label"].tolist() == [1, 1, 0]


def test_a_function_is_a_step(fleet: Fleet, calls: list[tuple[str, int]]) -> None:
    # Scaled by two, the second row is past the large model's bound of 0.3; half of it would not be.
    answer = fleet.infer("scaled", x=ROWS * 0.5)
    assert answer["label"].tolist() == [1, 1, 0]
    assert calls == [("sure", 3)]


def test_a_loop_ends_for_each_row_by_itself(fleet: Fleet) -> None:
    answer = fleet.infer("shrink", v=np.array([100.0, 3.0, 0.5]))
    assert answer["w"].tolist() == [0.390625, 0.375, 0.25]
    assert answer["small"].tolist() == [1, 1, 1]


def test_a_map_runs_on_every_item_of_lists_of_any_length(fleet: Fleet) -> None:
    even = fleet.infer("loud", text=["big world", "hello you"])
    assert even["words"].tolist() == [["BIG", "WORLD"], ["HELLO", "YOU"]]
    uneven = fleet.infer("loud", text=["hello big world", "hi"])
    assert [row.tolist() for row in uneven["words"]] == [["HELLO", "BIG", "WORLD"], ["HI"]]


def test_a_chat_goes_through_steps_and_streams_its_last(served: Served) -> None:
    body = {"model": "polite", "messages": [{"role": "user", "content": "sir or madam"}]}
    whole = httpx.post(f"{served.url}/v1/chat/completions", json=body).json()
    assert whole["choices"][0]["message"]["content"].split() == ["dear", "sir", "or", "madam"]
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json={**body, "stream": True}) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: {")]
    assert sum('"content":"' in line for line in lines) >= 4
    assert stream.headers["semaforo-model"] == "polite"


def test_a_session_remembers_by_tenant(served: Served) -> None:
    def say(text: str, **headers: str) -> int:
        body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]}
        reply = httpx.post(f"{served.url}/v2/models/counter/infer", json=body, headers=headers)
        found: int = reply.json()["outputs"][0]["data"][0]
        return found

    mine = {"semaforo-session": "s1", "semaforo-tenant": "acme"}
    assert [say("one two", **mine), say("three", **mine)] == [2, 3]
    assert say("one", **{**mine, "semaforo-tenant": "others"}) == 1
    assert say("one", **{**mine, "semaforo-session": "s2"}) == 1
    assert [say("a b"), say("a b")] == [2, 2]


def test_a_graph_is_a_model_in_every_protocol(served: Served) -> None:
    reply = httpx.post(f"{served.url}/v2/models/robust/infer", json=V2)
    assert reply.status_code == 200
    assert reply.headers["semaforo-without"] == "a: model_failed"
    assert (reply.headers["semaforo-model"], reply.json()["model_name"]) == ("robust", "robust")
    story = httpx.get(f"{served.url}/semaforo/v1/decisions/{reply.headers['semaforo-request-id']}").json()
    assert [step["request"]["step"]["name"] for step in story["steps"]] == ["a", "b"]
    assert story["without"] == ["a: model_failed"]
    with Client(served.url) as caller:
        assert caller.latest() == reply.headers["semaforo-request-id"], "not one of its steps"
    meta = httpx.get(f"{served.url}/v2/models/cascade").json()
    assert [tensor["name"] for tensor in meta["outputs"]] == ["label", "p"]
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(served.grpc) as client:
        tensor = triton.InferInput("x", [3, 3], "FP32")
        tensor.set_data_from_numpy(ROWS)
        assert client.infer("cascade", [tensor]).as_numpy("label").tolist() == [1, 1, 0]


@pytest.mark.usefixtures("hanging")
def test_a_client_that_goes_away_stops_every_step(folder: Path, served: Served) -> None:
    def idle() -> bool:
        return bool(served.call(lambda: not served.engine._dispatcher.state.jobs))

    eventually(idle)

    def ask() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}/v2/models/outermost/infer", json=V2, timeout=0.5)

    asking = threading.Thread(target=ask)
    asking.start()
    served.await_in_flight(4)
    asking.join()
    gone_at = time.monotonic()
    eventually(lambda: bool(served.call(lambda: not served.engine._waiters)))
    assert time.monotonic() - gone_at < 1.0
    models(folder).GATE.set()
    eventually(idle)
    models(folder).GATE.clear()


@pytest.mark.usefixtures("hanging")
def test_a_deadline_is_inherited_through_every_level(fleet: Fleet) -> None:
    begun = time.monotonic()
    with pytest.raises(Expired):
        fleet.infer("outermost", x=ROWS, deadline="300ms")
    assert time.monotonic() - begun < 0.6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{ask: sure, when:",
            "{ask: sur, when:",
            r"models.cascade.graph.steps.sure.ask: .*Did you mean 'sure'",
        ),
        (
            "fuse: first, of: [sure, quick]",
            "fuse: firs, of: [sure, quick]",
            r"best.fuse: no method .*'first'",
        ),
        ("max(quick.p)", "max(quick.q)", r"sure.when: 'quick.q': 'quick' gives no 'q'"),
        ("max(quick.p) < 0.9", "max(quick.p < 0.9", r"sure.when: .* is no condition"),
        (
            "of: [sure, quick]",
            "of: [sure, quik]",
            r"best.of.1: no step is named 'quik'. Did you mean 'quick'",
        ),
        ("{a: stuck}", "{a: outermost}", r"outer.graph: asks itself: outer → outermost → outer"),
        ("{fuse: first, of: [sure", "{fuse: first, ask: sure, of: [sure", r"says both ask and fuse"),
        ("{v: w}", "{v: big}", r"carry.v: 'halver' gives no 'big'"),
        ('outputs: {x: "fp32[3]"}}', 'outputs: {x: "fp32[4]"}}', r"best.inputs.x: x: fp32\[4\] cannot be"),
        ("each: [word]", "each: [wort]", r"each.each: 'shouter' takes no 'wort'"),
        ("{text: draft.text}", "{text: final.text}", r"'final.text' is the step itself"),
        ("remember: {n: add.n}", "remember: {m: add.n}", r"remember.m: the session has no 'm'"),
    ],
)
def test_what_cannot_run_is_told_with_its_line(folder: Path, old: str, new: str, message: str) -> None:
    assert FLEET.count(old) >= 1
    path = folder / "wrong.yaml"
    path.write_text(FLEET.replace(old, new, 1))
    with pytest.raises(FleetFileError, match=message) as caught:
        blueprint(path)
    assert caught.value.problems[0].line > 20


def test_check_and_evaluate_know_graphs(folder: Path, tmp_path: Path) -> None:
    def semaforo(*arguments: str) -> str:
        run = [sys.executable, "-m", "semaforo", *arguments]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "20 variants load" in semaforo("check", str(folder / "fleet.yaml"))
    rng = np.random.default_rng(0)
    rows = [{"x": row.tolist(), "label": int(row.sum() > 0.3)} for row in rng.normal(size=(30, 3))]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    fleet = str(folder / "fleet.yaml")
    asked = ["evaluate", "sign", "--model", "cascade", "--fleet", fleet, "--data", str(data), "--json"]
    (found,) = json.loads(semaforo(*asked))
    assert 0.7 < found["quality"] <= 1.0
