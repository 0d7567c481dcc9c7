"""Fitting cascades: verifiers are trained on labelled rows, and thresholds promise what rows can promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade_fleet import write_cascades
from semaforo import Fleet
from semaforo.cli.graph_fit import Fitting, run
from semaforo.errors import InvalidRequest
from semaforo.jobs.cascades import Terms, _between
from semaforo.routing.router import Router

TERMS = Terms(0.1, 1.0, 0.9)


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    with (tmp_path / "sums.jsonl").open("w") as file:
        for _ in range(200):
            a, b = (int(n) for n in rng.integers(1, 99, 2))
            file.write(json.dumps({"prompt": f"{a} + {b}?", "answer": f"{a + b}"}) + "\n")
    x = rng.uniform(-3, 3, (400, 1)).astype(np.float32)
    np.savez(tmp_path / "sides.npz", x=x, label=(x[:, 0] > 0).astype(np.int64))
    return write_cascades(tmp_path)


def fit(
    fleet: Path, capsys: pytest.CaptureFixture[str], graph: str, data: str, *, as_json: bool = True,
    metric: str = "", terms: Terms = TERMS, retrain: bool = False, rows: int = 0,
) -> Any:  # fmt: skip
    """Run the command; return what it prints."""
    capsys.readouterr()
    asked = Fitting(graph, "", fleet.parent / data, rows, metric, terms, retrain, "public")
    run(asked, fleet, False, as_json)
    out = capsys.readouterr().out
    return json.loads(out)["cascades"][0] if as_json else out


def test_from_rows_to_a_verifier_to_a_threshold_to_a_fleet(
    fleet_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fleet_file.parent / "routers/chat.router"
    path.unlink()
    found = fit(fleet_file, capsys, "careful", "sums.jsonl", metric="final")
    assert found["verifier"] == ["check", 100]
    assert found["rows"] == 100, "what trained the verifier does not set the threshold"
    assert found["promised"]
    assert found["small"]["value"] < 0.4 < found["large"]["value"] == 1.0
    assert found["cascade"]["value"] >= 0.9
    assert 0.5 < found["calls"] < 0.9
    router = Router.decode(path.read_bytes())
    assert (router.verifies, router.tasks, router.rows) == ("small", ("chat",), 100)
    fleet_file.write_text(fleet_file.read_text().replace("check.gain > 0.5", found["when"]))
    with Fleet.open(fleet_file) as fleet:
        assert fleet.chat("careful", "61 + 30?").text() == "It is 91."
        assert fleet.chat("careful", "20 + 30?").text().startswith("20 + 30 = 50")
    # The rows that trained it are known to it, and left out again.
    again = fit(fleet_file, capsys, "careful", "sums.jsonl", metric="final")
    assert again["verifier"] is None
    assert 90 <= again["rows"] <= 100
    with pytest.raises(InvalidRequest, match="of 50 rows have not trained the verifier"):
        fit(fleet_file, capsys, "careful", "sums.jsonl", metric="final", rows=50)


def test_a_verifier_of_class_scores_is_trained_too(
    fleet_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fit(fleet_file, capsys, "sides", "sides.npz", retrain=True)
    assert found["verifier"] == ["check", 200]
    assert found["promised"]
    assert found["cascade"]["value"] >= 0.9 > found["small"]["value"]
    router = Router.decode((fleet_file.parent / "routers/side.router").read_bytes())
    assert {"answer.confidence", "answer.margin", "answer.entropy", "x.mean"} <= set(
        router.predictor.features
    )


def test_thresholds_of_agreement(fleet_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampled = fit(fleet_file, capsys, "consistent", "sums.jsonl", metric="final", rows=80)
    assert sampled["when"].startswith("cheap.agreement < ")
    assert sampled["cascade"]["value"] == 1.0
    assert sampled["calls"] < 0.9
    two = fit(fleet_file, capsys, "agreeing", "sums.jsonl", metric="final", rows=80)
    assert two["when"].startswith("agree(one.text, other.text) < ")
    assert two["promised"]


def test_what_cannot_be_promised_is_said(fleet_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hard = Terms(0.001, 1.0, 0.95)
    text = " ".join(fit(fleet_file, capsys, "sides", "sides.npz", terms=hard, as_json=False).split())
    assert "cannot promise a loss of 0.001 at most with 95% confidence, which takes" in text
    assert "asks as often as it may" in text
    kept = " ".join(fit(fleet_file, capsys, "sides", "sides.npz", as_json=False).split())
    assert "Promised with 90% confidence" in kept
    seen = fit(fleet_file, capsys, "sides", "sides.npz", terms=Terms(0.0, 1.0, 0.5), as_json=False)
    assert "no more than that is promised" in " ".join(seen.split())
    few = fit(fleet_file, capsys, "sides", "sides.npz", terms=Terms(0.1, 0.05, 0.9))
    assert few["calls"] <= 0.05
    assert not few["promised"]


def test_answers_that_are_never_right_fit_nothing(
    fleet_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fleet_file.parent / "routers/chat.router"
    path.unlink()
    with (fleet_file.parent / "no.jsonl").open("w") as file:
        file.writelines(json.dumps({"prompt": f"{n} + 1?", "answer": "none"}) + "\n" for n in range(60))
    with pytest.raises(
        InvalidRequest, match="is right on any of 60 rows by the metric 'exact'; 'contains' and"
    ):
        fit(fleet_file, capsys, "careful", "no.jsonl", metric="exact")
    assert not path.exists()


@pytest.mark.parametrize("highest", [0.0, -0.25, 0.5])
def test_a_condition_that_always_holds_is_written_shortly(highest: float) -> None:
    sure = np.array([highest - 0.1234567, highest])
    limit = _between(sure, np.array([True, True]))
    assert highest < limit < highest + 0.1
    assert len(str(limit)) <= 7


def test_a_cascade_of_numbers_is_not_fitted(fleet_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.zeros((40, 1), np.float32)
    np.savez(fleet_file.parent / "numbers.npz", x=x, p=np.full((40, 2), 0.5, np.float32))
    with pytest.raises(InvalidRequest, match="right or wrong"):
        fit(fleet_file, capsys, "sides", "numbers.npz")
