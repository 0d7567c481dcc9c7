"""A fleet of members, a graph that fuses them in every way at once, and a cascade: written, fitted and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import yaml

from benchmarks.fusion.members import Array, Predict
from benchmarks.report import ROOT
from semaforo import Fleet

FITTED = {"stack": "stack", "bayes": "bayes", "weighted_mean": "mean", "weighted_product": "product"}
PLAIN = {"mean": "mean", "product": "product", "median": "median", "confident": "confident"}
FUSIONS = (*FITTED, *PLAIN, "vote", "weighted_vote")
LARGE = "large"
GIVE_UP, MOST = 0.002, 0.25
"""What a cascade may lose, and of how many rows it may ask the large model."""
_ROWS = 64
_AT_ONCE = 2

SERVED = """\
from pathlib import Path

import joblib

FOLDER = Path(__file__).parent
MODELS = {path.stem: joblib.load(path) for path in FOLDER.glob("*.joblib")}


def answered(name, rows):
    if name == "large":
        with open(FOLDER / "calls.txt", "a") as file:
            file.write(f"{len(rows)}\\n")
    found = MODELS[name](rows)
    return {"label": found.argmax(axis=1), "probabilities": found}
"""


class Served:
    """A fleet in a folder.

    Args:
        folder: An empty folder.
        members: What it serves.
        classes: Number of classes.
        kind: Fleet file's type of an input row, such as ``fp32[64]``.
        fused: Members that are fused.
        small: The cascade's cheap member.
    """

    def __init__(
        self, folder: Path, members: dict[str, Predict], classes: int, kind: str, fused: list[str], small: str
    ) -> None:
        self.folder, self._kind, self._classes = folder, kind, classes
        self._members, self._fused, self._small = members, fused, small
        folder.mkdir(parents=True)
        for name, member in members.items():
            joblib.dump(member, folder / f"{name}.joblib")
        texts = kind == "bytes"
        argument = "rows: list[str]" if texts else "rows"
        functions = [f"\n\ndef {n}({argument}):\n    return answered({n!r}, rows)\n" for n in members]
        (folder / "served.py").write_text(SERVED + "".join(functions))
        self.file = folder / "fleet.yaml"
        self.write("max(quick.probabilities) < 0.9")

    def write(self, when: str) -> None:
        """Write the fleet file, with this condition on the cascade's dear step."""
        steps: dict[str, Any] = {name: name for name in self._fused}
        steps |= {f"by_{n}": {"fuse": method, "of": self._fused} for n, method in PLAIN.items()}
        steps |= {
            f"by_{n}": {"fuse": method, "of": self._fused, "fitted": f"{n}.json"}
            for n, method in FITTED.items()
        }
        steps["by_vote"] = {"fuse": "vote", "of": self._fused}
        steps["by_weighted_vote"] = {"fuse": "vote", "of": self._fused, "fitted": "weighted_vote.json"}
        said = {name: f"{name}.label" for name in self._fused}
        said |= {name.removeprefix("by_"): f"{name}.label" for name in steps if name.startswith("by_")}
        inputs = {"rows": self._kind}
        models: dict[str, Any] = {
            name: {"task": "class", "python": f"served.py:{name}", "isolation": "thread", "max_batch": 256}
            for name in self._members
        }
        models["every-way"] = {"task": "every", "graph": {"steps": steps, "answer": said}}
        cascade = {
            "quick": self._small,
            "sure": {"ask": LARGE, "when": when},
            "best": {"fuse": "first", "of": ["sure", "quick"]},
        }
        models["cascade"] = {"task": "class", "graph": {"steps": cascade}}
        tasks = {
            "class": {
                "inputs": inputs,
                "outputs": {"label": "int64", "probabilities": f"fp32[{self._classes}]"},
                "deadline": "10m",
            },
            "every": {"inputs": inputs, "outputs": dict.fromkeys(said, "int64"), "deadline": "10m"},
        }
        self.file.write_text(yaml.safe_dump({"tasks": tasks, "models": models}, sort_keys=False))

    def fit(self, rows: Any, labels: Array) -> None:
        """Fit fusions and the cascade by the command."""
        columns = {"rows": np.array(rows, dtype=object) if isinstance(rows, list) else rows, "label": labels}
        data = self.folder / "fit.npz"
        if isinstance(rows, list):
            data = self.folder / "fit.jsonl"
            lines = (
                json.dumps({"rows": text, "label": int(label)})
                for text, label in zip(rows, labels, strict=True)
            )
            data.write_text("\n".join(lines))
        else:
            np.savez(data, **columns)
        self._command("every-way", str(data))
        words = ("--give-up", str(GIVE_UP), "--most", str(MOST))
        (cascade,) = self._command("cascade", str(data), *words)["cascades"]
        self.write(cascade["when"])

    def _command(self, graph: str, data: str, *words: str) -> Any:
        command = [
            sys.executable,
            "-m",
            "semaforo",
            "graph",
            "fit",
            graph,
            "--fleet",
            str(self.file),
            "--data",
            data,
        ]
        run = subprocess.run(
            [*command, "--json", *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        if run.returncode:
            raise SystemExit(run.stderr)
        return json.loads(run.stdout)

    def calls(self) -> int:
        """Return how many rows the large model was asked since it was last looked at."""
        path = self.folder / "calls.txt"
        found = sum(map(int, path.read_text().split())) if path.exists() else 0
        path.unlink(missing_ok=True)
        return found


def ask(fleet: Fleet, model: str, rows: Any) -> dict[str, Array]:
    """Return what a model says of all rows."""

    def part(start: int) -> dict[str, Array]:
        answer = fleet.infer(model, rows=rows[start : start + _ROWS])
        assert not answer.without, answer.without
        return {name: np.asarray(answer[name]) for name in answer}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        parts = list(pool.map(part, range(0, len(rows), _ROWS)))
    return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
