"""A fleet that learns: it chooses by what a request says; what is degraded is left, and found again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from semaforo import AsyncFleet, Fleet
from semaforo.build import blueprint
from semaforo.config.fleet import FleetFileError
from semaforo.errors import InvalidRequest
from semaforo.jobs.learn.train import train
from semaforo.routing.router import Router
from semaforo.routing.table import Table
from served_fleet import serving

FLEET = """\
tasks:
  answer:
    inputs:  {text: bytes}
    outputs: {label: int64}
    prefer:  {minimise: cost, keep_quality: 0.97}
    router:  routers/answer.router
  side:
    inputs:  {x: fp32[1]}
    outputs: {label: int64}
    prefer:  {minimise: cost, keep_quality: 0.9}
    explore: {share: 0.02, shadow: 0.3}
devices: {cpu: {price: 1/h}}
models:
  small: {task: answer, python: "both.py:small", quality: 0.80, isolation: thread}
  large: {task: answer, python: "both.py:large", quality: 0.9, isolation: thread}
  cheap: {task: side, python: "both.py:cheap", quality: 0.95, isolation: thread}
  dear: {task: side, python: "both.py:dear", quality: 0.97, isolation: thread}
history: history.db
"""
BOTH = """\
import pathlib
import time

import numpy as np

broken = pathlib.Path(__file__).with_name("broken")


def small(text: list[str]) -> np.ndarray:
    return np.array([int("hard" not in t) for t in text])


def large(text: list[str]) -> np.ndarray:
    time.sleep(0.002)
    return np.ones(len(text), np.int64)


def cheap(x: np.ndarray) -> np.ndarray:
    side = (x[:, 0] > 0).astype(np.int64)
    return 1 - side if broken.exists() else side


def dear(x: np.ndarray) -> np.ndarray:
    time.sleep(0.002)
    return (x[:, 0] > 0).astype(np.int64)
"""


def router() -> Router:
    """Return a router that has seen the small model fail on what is hard."""
    rng = np.random.default_rng(0)
    prompts, scores = [], []
    for _ in range(600):
        hard = rng.random() < 0.25
        words = " ".join(rng.choice(["red", "blue", "green", "house", "tree", "car"], rng.integers(1, 9)))
        prompts.append(f"{words} {'hard' if hard else 'easy'}")
        scores.append((float(not hard), 0.9))
    values = np.array(scores)
    table = Table(
        ("small", "large"), ("answer",) * 600, tuple(prompts), values, np.full(values.shape, np.nan)
    )
    return Router(train(table), 600)


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "both.py").write_text(BOTH)
    (tmp_path / "routers").mkdir()
    (tmp_path / "routers/answer.router").write_bytes(router().encode())
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


def test_the_words_of_a_request_choose_its_model(fleet_file: Path) -> None:
    with Fleet.open(fleet_file) as fleet:
        easy = [fleet.infer("answer", text="red tree easy") for _ in range(5)]
        hard = [fleet.infer("answer", text="red tree hard") for _ in range(5)]
        assert {a.model for a in easy} == {"small"}
        assert {a.model for a in hard} == {"large"}
        assert "as predicted for this request" in hard[0].why
        strange = fleet.infer("answer", text="совсем другое")
        assert strange.model == "large"


def test_a_router_that_does_not_fit_is_refused(fleet_file: Path) -> None:
    text = fleet_file.read_text()
    for change, message in (
        ("routers/none.router", "No such file"),
        ("both.py", "is no trained router"),
        (f'{{file: routers/answer.router, sha256: "{"0" * 64}"}}', "has the digest"),
    ):
        fleet_file.write_text(text.replace("routers/answer.router", change))
        with pytest.raises(FleetFileError, match=message):
            Fleet.open(fleet_file)
    fleet_file.write_text(text.replace("small:", "little:").replace("large:", "big:"))
    with pytest.raises(FleetFileError, match="was trained on small, large; the task has little, big"):
        Fleet.open(fleet_file)


def test_a_router_of_other_tasks_warns(fleet_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Fleet.open(fleet_file):
        assert not caplog.messages
    fleet_file.write_text(
        fleet_file.read_text().replace("  answer:\n", "  reply:\n").replace("task: answer", "task: reply")
    )
    with Fleet.open(fleet_file) as fleet:
        assert fleet.infer("reply", text="red tree hard").model == "large"
    (message,) = [m for m in caplog.messages if "was trained on" in m]
    assert (
        "the router of 'reply', routers/answer.router, was trained on 'answer' and never on 'reply'"
        in message
    )


def test_what_is_degraded_is_left_within_200_requests_and_found_again(fleet_file: Path) -> None:
    broken = fleet_file.parent / "broken"

    async def live() -> tuple[list[str], list[str], list[str]]:
        async with AsyncFleet.open(fleet_file) as fleet:

            async def ask(n: int) -> list[str]:
                models = []
                for i in range(n):
                    answer = await fleet.infer("side", x=np.float32([1.0 if i % 2 else -1.0]))
                    models.append(answer.model)
                    while fleet.engine._waiters:  # a shadow that was asked as well
                        await asyncio.sleep(0)
                    await fleet.feedback(answer, label=i % 2)
                return models

            before = await ask(30)
            broken.touch()
            while_broken = await ask(200)
            broken.unlink()
            return before, while_broken, await ask(300)

    before, while_broken, after = asyncio.run(live())
    assert before.count("cheap") >= 28
    assert while_broken[60:].count("cheap") <= 5
    assert after[-50:].count("cheap") >= 45


AUTO = """\
tasks:
  weather: {inputs: {text: bytes}, outputs: {label: int64}, evaluate: weather.csv}
  food: {inputs: {text: bytes}, outputs: {label: int64}, evaluate: food.csv}
  side: {inputs: {x: fp32[1]}, outputs: {label: int64}}
models:
  w: {task: weather, python: "both.py:small", isolation: thread}
  f: {task: food, python: "both.py:large", isolation: thread}
  s: {task: side, python: "both.py:dear", isolation: thread}
auto: tasks.model
"""


def test_auto_is_the_task_that_a_request_looks_like(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "both.py").write_text(BOTH)
    for task, words in (("weather", "rain sun wind cloud storm"), ("food", "bread soup salt oven plate")):
        rows = [" ".join(rng.choice(words.split(), 4)) + ",1" for _ in range(60)]
        (tmp_path / f"{task}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "fleet.yaml").write_text(AUTO)
    command = ["router", "tasks", "fleet.yaml", "-o", "tasks.model"]
    words = [sys.executable, "-m", "semaforo", *command]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "side: no rows to learn from" in done.stdout
    plan = blueprint(tmp_path / "fleet.yaml")
    with Fleet.open(tmp_path / "fleet.yaml") as fleet:
        answer = fleet.infer("auto", text="rain wind cloud sun")
        assert answer.model == "w"
        assert "the task was not named: it is weather by" in answer.why
        assert fleet.infer("auto", text="soup oven bread").model == "f"
        assert fleet.infer("auto", x=np.float32([1.0])).model == "s"
        with pytest.raises(InvalidRequest, match="weather"):
            fleet.infer("auto", text="zzz qqq")
    with serving(plan.catalog, tasks=plan.tasks) as served, httpx.Client(base_url=served.url) as http:

        def ask(text: str) -> httpx.Response:
            tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
            return http.post("/v2/models/auto/infer", json={"inputs": [tensor]})

        good, bad = ask("salt plate soup"), ask("nothing of this")
        assert good.json()["model_name"] == "f"
        assert (bad.status_code, "food" in bad.json()["error"]) == (400, True)
        assert http.post("/v2/models/auto/infer", content=b"{").status_code == 400
