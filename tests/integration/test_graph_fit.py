"""Fitting graphs on labelled rows: fusions learn, cascades find their thresholds, and the file is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaforo import Fleet
from semaforo.errors import InvalidRequest
from semaforo.graph.condition import Rows, condition

MODELS = '''\
import numpy as np


def one_hot(label, sure):
    p = np.full((len(label), 3), (1 - sure) / 2, np.float32)
    p[np.arange(len(label)), label] = sure
    return {"label": label.astype(np.int64), "p": p}


def low(x):
    """Knows class 0 from the rest, and takes 1 for 2."""
    x = np.asarray(x)[:, 0]
    return one_hot(np.where(x < 1, 0, 2), 0.6)


def high(x):
    """Knows class 2 from the rest, and takes 1 for 0."""
    x = np.asarray(x)[:, 0]
    return one_hot(np.where(x > 2, 2, 0), 0.6)


def wise(x):
    x = np.asarray(x)[:, 0]
    return one_hot(np.where(x < 1, 0, np.where(x > 2, 2, 1)), 0.9)


def unsure(x):
    """As good as the wise one far from the middle, and knows that it is not in the middle."""
    x = np.asarray(x)[:, 0]
    found = one_hot(np.where(x < 1.5, 0, 2), 0.5)
    found["p"][np.arange(len(x)), found["label"]] += np.abs(x - 1.5).astype(np.float32) * 0.1
    return found


def broken(x):
    raise RuntimeError("this model always fails")
'''
FLEET = """\
tasks:
  third: {inputs: {x: "fp32[1]"}, outputs: {label: int64, p: "fp32[3]"}}
models:
  low: {task: third, python: "models.py:low", isolation: thread}
  high: {task: third, python: "models.py:high", isolation: thread}
  wise: {task: third, python: "models.py:wise", isolation: thread}
  unsure: {task: third, python: "models.py:unsure", isolation: thread}
  broken: {task: third, python: "models.py:broken", isolation: thread}
  learned:
    task: third
    graph:
      steps: {low: low, high: high, both: {fuse: METHOD, of: [low, high], fitted: both.json}}
      answer: {label: both.label, p: low.p}
  stepwise:
    task: third
    graph:
      steps:
        quick: unsure
        sure: {ask: wise, when: "max(quick.p) < 0.99"}
        best: {fuse: first, of: [sure, quick]}
  plain: {task: third, graph: {steps: {low: low, high: high, both: {fuse: first, of: [low, high]}}}}
  failing: {task: third, graph: {steps: {low: low, no: broken, both: {fuse: mean, of: [low, no]}}}}
"""


def written(folder: Path, method: str = "stack") -> Path:
    (folder / "models.py").write_text(MODELS)
    (folder / "fleet.yaml").write_text(FLEET.replace("METHOD", method))
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 3, (300, 1)).astype(np.float32)
    np.savez(folder / "rows.npz", x=x, label=np.floor(x[:, 0]).astype(np.int64))
    return folder / "fleet.yaml"


def fit(folder: Path, *words: str, ok: bool = True) -> Any:
    """Run the command and return what it printed: JSON, or the error."""
    command = [sys.executable, "-m", "semaforo", "graph", "fit", *words, "--fleet", "fleet.yaml"]
    run = subprocess.run(
        [*command, "--json"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode == 0) == ok, run.stderr
    return json.loads(run.stdout) if ok else run.stderr


@pytest.mark.parametrize("method", ["stack", "bayes"])
def test_a_combiner_learns_what_no_member_knows(tmp_path: Path, method: str) -> None:
    fleet = written(tmp_path, method)
    (found,) = fit(tmp_path, "learned", "--data", "rows.npz")["fusions"]
    assert max(found["members"].values()) < 0.75
    assert found["fused"] == 1.0
    with Fleet.open(fleet) as served:
        x = np.array([[0.5], [1.5], [2.5]], np.float32)
        assert served.infer("learned", x=x)["label"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("method", "kind"), [("mean", "weights"), ("product", "exponents"), ("vote", "votes")]
)
def test_weights_are_fitted_for_each_method(tmp_path: Path, method: str, kind: str) -> None:
    written(tmp_path, method)
    (found,) = fit(tmp_path, "learned", "--data", "rows.npz")["fusions"]
    assert found["kind"] == kind
    assert json.loads((tmp_path / "both.json").read_text())["weights"].keys() == {"low", "high"}


def test_a_fleet_is_not_served_before_it_is_fitted(tmp_path: Path) -> None:
    fleet = written(tmp_path)
    with pytest.raises(Exception, match="semaforo graph fit"):
        Fleet.open(fleet)


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    written(tmp_path)
    fit(tmp_path, "learned", "--data", "rows.npz", "--dry-run")
    assert not (tmp_path / "both.json").exists()


def test_a_cascade_asks_as_seldom_as_it_may(tmp_path: Path) -> None:
    written(tmp_path)
    exact = ("--give-up", "0", "--confidence", "0.5")
    (found,) = fit(tmp_path, "stepwise", "--data", "rows.npz", *exact)["cascades"]
    assert found["cascade"]["value"] == found["large"]["value"] == 1.0
    assert found["small"]["value"] < 0.8
    # A third of the rows, those in the middle, are beyond the small model.
    assert 0.3 < found["calls"] < 0.45
    text, sign, limit = found["when"].rpartition(" < ")
    assert (text, sign) == ("max(quick.p)", " < ")
    assert 0.5 < float(limit) < 0.6
    (bounded,) = fit(tmp_path, "stepwise", "--data", "rows.npz", "--most", "0.1")["cascades"]
    assert 0.05 < bounded["calls"] <= 0.1
    assert not bounded["promised"]
    # Of 300 rows nobody can promise a loss of 0; one of 0.03 takes some rows more than it seems.
    careful, careless = (
        fit(tmp_path, "stepwise", "--data", "rows.npz", "--give-up", "0.03", "--confidence", sure)["cascades"]
        for sure in ("0.95", "0.5")
    )
    assert careless[0]["calls"] < careful[0]["calls"] < 1.0
    assert careful[0]["promised"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("learnd", "--data", "rows.npz"), "Did you mean 'learned'"),
        (("plain", "--data", "rows.npz"), "nothing to fit"),
        (("learned", "--step", "bth", "--data", "rows.npz"), "Did you mean 'both'"),
        (("learned",), "--data"),
        (("failing", "--data", "rows.npz"), "this model always fails"),
        (("learned", "--data", "no.npz"), "no.npz"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    written(tmp_path)
    assert says in fit(tmp_path, *words, ok=False)


def test_conditions_are_taken_apart() -> None:
    found = condition("max(a.p) - min(a.p) >= 0.5").compared()
    assert found is not None
    expression, sign, limit = found
    assert (expression.names, sign, limit) == (("a.p",), ">=", 0.5)
    numbers, known = expression.number({"a.p": Rows(np.array([[0.25, 1.0]]), np.array([1]))}, 2)
    assert numbers[1] == 0.75
    assert known.tolist() == [False, True]
    assert condition("a.p < b.p").compared() is None
    assert condition("a.p < 1 and b.p < 1").compared() is None
    with pytest.raises(InvalidRequest, match="not one number"):
        condition("a.p").number({"a.p": Rows(np.ones((2, 3)))}, 2)


def test_graphs_are_drawn(tmp_path: Path) -> None:
    written(tmp_path)

    def show(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "semaforo", "graph", "show", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    drawn = show()
    assert all(name in drawn.stdout for name in ("learned · third", "stepwise · third", "asks wise"))
    assert show("stepwise", "--svg", "g.svg").returncode == 0
    assert (tmp_path / "g.svg").read_text().startswith("<svg")
    wrong = show("stepwize")
    assert wrong.returncode == 1
    assert "Did you mean 'stepwise'" in wrong.stderr
    assert "--svg takes one graph" in show("--svg", "g.svg").stderr
    assert "cannot be written" in show("stepwise", "--svg", "no/such/folder.svg").stderr
