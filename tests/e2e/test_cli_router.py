"""The commands about trained routers, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def semaforo(*words: str | Path, code: int = 0) -> str:
    """Run a command and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "semaforo", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if not code else done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table to train on, one to judge by, and a log."""
    place = tmp_path_factory.mktemp("router")
    rng = np.random.default_rng(0)
    for name, rows in (("train", 240), ("test", 120), ("log", 160)):
        lines = ["id,task,prompt,model,score,cost,answer" + (",propensity" if name == "log" else "")]
        for i in range(rows):
            hard = rng.random() < 0.4
            words = " ".join(rng.choice(["red", "blue", "green"], int(rng.integers(2, 9))))
            prompt = f"{words} {'hard' if hard else 'easy'}"
            scores = {"small": int(rng.random() < (0.1 if hard else 0.9)), "large": int(rng.random() < 0.85)}
            asked = [str(rng.choice(list(scores)))] if name == "log" else list(scores)
            for model in asked:
                cost = 0.001 if model == "small" else 0.02
                end = ",0.5" if name == "log" else ""
                lines.append(
                    f"{i},colours,{prompt},{model},{scores[model]},{cost},1 + 1 = {3 - scores[model]}{end}"
                )
        (place / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return place


def test_a_router_is_trained_judged_and_explained(folder: Path) -> None:
    router, report = folder / "routers" / "a.router", folder / "report"
    said = json.loads(
        semaforo(
            "router",
            "train",
            folder / "train.csv",
            "-o",
            router,
            "--folds",
            "2",
            "--report",
            report,
            "--json",
        )
    )
    assert said["figures"]["apgr"] > 0.6
    page = (report / "index.html").read_text()
    assert "keeps 97%" in page
    assert {p.name for p in report.glob("*.png")} == {"frontier.png", "calibration.png", "gap.png"}
    judged = json.loads(semaforo("router", "evaluate", folder / "test.csv", "--router", router, "--json"))
    assert judged["score"] > judged["best_single"] - 0.02
    log = semaforo("router", "evaluate", folder / "log.csv", "--router", router)
    assert "doubly robust" in log
    assert "better" in log or "cannot tell" in log
    frontier = semaforo(
        "router", "frontier", folder / "test.csv", "--router", router, "--png", folder / "f.png"
    )
    assert "oracle" in frontier
    assert (folder / "f.png").read_bytes().startswith(b"\x89PNG")
    for command in ("evaluate", "frontier"):
        refused = semaforo("router", command, folder / "train.csv", "--router", router, code=1)
        assert "all of the 240 requests were in its training" in refused
    told = semaforo("router", "explain", router, "--prompt", "red hard")
    assert "colours" in told
    assert "in its domain" in told


def test_what_is_wrong_is_said(folder: Path) -> None:
    (folder / "no.router").write_text("no router")
    assert (
        "no column 'model'" in semaforo("router", "train", folder / "no.csv", code=1)
        if ((folder / "no.csv").write_text("a,b\n1,2\n"))
        else ""
    )
    assert "is no trained router" in semaforo("router", "explain", folder / "no.router", code=1)
    assert "cannot be read" in semaforo("router", "frontier", folder / "none.csv", code=1)
    assert "has no model 'x'" in semaforo("router", "train", folder / "train.csv", "--cascade", "x", code=1)
