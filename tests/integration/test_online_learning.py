"""A fleet that learns which model is good for which kind of request, from the answers alone that it gave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from semaforo import Fleet
from semaforo.server.feedback import FeedbackRoutes
from semaforo.sim.replay import replay

FLEET = """\
tasks:
  side:
    inputs:  {x: fp32[2]}
    outputs: {label: int64}
    prefer:  {maximise: quality}
    explore: {share: 0.15, by: METHOD, max_loss: 0.5}
models:
  lefty: {task: side, python: "sides.py:lefty", quality: 0.5, isolation: inline}
  righty: {task: side, python: "sides.py:righty", quality: 0.5, isolation: inline}
  steady: {task: side, python: "sides.py:steady", quality: 0.5, isolation: inline}
history: history.db
"""
SIDES = """\
import pathlib

import numpy as np

broken = pathlib.Path(__file__).with_name("broken")


def lefty(x: np.ndarray) -> np.ndarray:
    return np.zeros(len(x), np.int64)


def righty(x: np.ndarray) -> np.ndarray:
    return np.full(len(x), 2 if broken.exists() else 1)


def steady(x: np.ndarray) -> np.ndarray:
    wrong = (x[:, 0] * 1e4).astype(np.int64) % 10 < 3
    return ((x.sum(axis=1) > 0) ^ wrong).astype(np.int64)
"""


def asked(fleet: Fleet, n: int, seed: int) -> list[tuple[int, str, bool]]:
    """Ask of both kinds, say what was right, and return the kind, who answered and whether it was right."""
    rng = np.random.default_rng(seed)
    found: list[tuple[int, str, bool]] = []
    for _ in range(n):
        side = int(rng.random() < 0.5)
        x = rng.normal(1.0 if side else -1.0, 0.4, 2).astype(np.float32)
        answer = fleet.infer("side", x=x)
        fleet.feedback(answer, label=side)
        found.append((side, answer.model, int(answer["label"]) == side))
    return found


def written(folder: Path, method: str) -> Path:
    """Write the fleet."""
    (folder / "sides.py").write_text(SIDES)
    (folder / "fleet.yaml").write_text(FLEET.replace("METHOD", method))
    return folder / "fleet.yaml"


def right(found: list[tuple[int, str, bool]]) -> float:
    """Return the share of answers that were right."""
    return float(np.mean([good for _, _, good in found]))


@pytest.mark.parametrize("method", ["linucb", "thompson"])
def test_each_kind_goes_to_the_model_that_is_good_at_it_and_does_after_a_restart(
    tmp_path: Path, method: str
) -> None:
    file = written(tmp_path, method)
    with Fleet.open(file) as fleet:
        asked(fleet, 200, 1)
        late = asked(fleet, 200, 2)
        assert right(late) > 0.85
        assert sum(model == ("lefty", "righty")[side] for side, model, _ in late) > 150
        answer = fleet.infer("side", x=np.float32([1.0, 1.0]))
        assert "as learned from requests like this one" in answer.why
    with Fleet.open(file) as fleet:
        assert right(asked(fleet, 100, 3)) > 0.85
        engine = fleet._inner.engine
        shown = json.loads(asyncio.run(FeedbackRoutes(engine).quality(None)).body)["variants"]  # type: ignore[arg-type]
        alike = {v["variant"].split("/")[0]: v["alike"] for v in shown}
        assert alike["lefty"]["trust"] > 0.9
        assert alike["lefty"]["weights"]["x.mean"] < 0.0 < alike["righty"]["weights"]["x.mean"]


def test_late_feedback_knows_what_the_request_looked_like(tmp_path: Path) -> None:
    file = written(tmp_path, "linucb")
    late: list[tuple[int, str, int]] = []
    with Fleet.open(file) as fleet:
        for n in range(80):
            side = n % 2
            answer = fleet.infer("side", x=np.float32([1.0, 1.2] if side else [-1.0, -0.8]))
            late.append((side, answer.request_id, int(answer["label"])))
    with Fleet.open(file) as fleet:
        for side, request_id, said in late:
            fleet.feedback(request_id, score=float(said == side))
        ridges = [h.ridge for h in fleet._inner.engine.history.values() if h.ridge is not None]
        assert sum(ridge.answers for ridge in ridges) == pytest.approx(80, rel=0.05)
        assert all("x.mean" in ridge.names for ridge in ridges)


def test_a_fleet_that_learns_is_replayed_exactly(tmp_path: Path) -> None:
    file = written(tmp_path, "thompson, shadow: 0.2")
    file.write_text(file.read_text() + "journal: fleet.journal\n")
    with Fleet.open(file) as fleet:
        asked(fleet, 120, 1)
    found = replay(tmp_path / "fleet.journal")
    assert found.difference is None
    assert found.kinds["Scored"] == 120
    assert found.kinds["Feedback"] > 120


def test_without_looking_at_requests_no_such_thing_is_learned(tmp_path: Path) -> None:
    with Fleet.open(written(tmp_path, "epsilon")) as fleet:
        asked(fleet, 200, 1)
        assert right(asked(fleet, 200, 2)) < 0.8


def test_a_model_that_gets_worse_loses_its_kind_and_has_it_back_when_it_is_good_again(tmp_path: Path) -> None:
    file = written(tmp_path, "linucb, shadow: 0.3")
    with Fleet.open(file) as fleet:
        asked(fleet, 200, 1)
        (tmp_path / "broken").touch()
        during = [model for side, model, _ in asked(fleet, 150, 2) if side]
        assert during[40:].count("righty") < 0.3 * len(during[40:])
        (tmp_path / "broken").unlink()
        asked(fleet, 300, 3)
        after = [model for side, model, _ in asked(fleet, 100, 4) if side]
        assert after.count("righty") > 0.5 * len(after)
