"""Two fleets of the same models: the largest of each task alone, and all of them under routers and cascades.

Nothing is set by hand: thresholds come from ``semaforo graph fit`` on one part of the rows, qualities are measured
on another, and routers are trained there by ``semaforo router train``.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.fusion.data import Array
from benchmarks.processes import environment
from benchmarks.report import ROOT
from benchmarks.savings.data import Data, Part
from benchmarks.savings.training import Models
from semaforo import Fleet
from semaforo.entities import TaskType
from semaforo.features.extract import text_of
from semaforo.features.plan import looked_at, plan_of
from semaforo.features.signals import Signals

PRICE = 0.04
"""US dollars for an hour of a core."""
GIVE_UP, CONFIDENCE, KEEP = 0.0075, 0.9, 0.9925
"""What a cascade may lose, with which confidence not more, and the share of the best quality that routers keep."""
ROUTED = ("intent", "kind")
"""Tasks with a trained router; to look at an image or a sound takes longer than to ask their narrow net."""
_ROWS = 64
_COMMAND_S = 600


class Fleets:
    """Two fleet files in a folder, and what was found while they were made.

    Attributes:
        alone, whole: The fleet files.
        qualities: Model → accuracy on the rows that judge.
        conditions: Task → condition of its cascade.
        routed: Tasks with a trained router.
    """

    def __init__(self, folder: Path, tasks: list[Data], models: Mapping[str, Models], quick: bool) -> None:
        self.alone, self.whole = folder / "alone.yaml", folder / "whole.yaml"
        self.qualities: dict[str, float] = {}
        self.conditions: dict[str, str] = {}
        self._folder, self._tasks, self._models = folder, tasks, models
        self._routers: dict[str, Path] = {}
        self.routed = [data.name for data in tasks if data.name in ROUTED]
        # A smoke test tries its router out as little as can be.
        self._folds = 2 if quick else 5

    def make(self) -> None:
        """Fit, judge, train and write."""
        self._write_alone()
        self._write_whole()
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(self._fit, self._tasks))
        self.conditions = {data.name: when for data, when in zip(self._tasks, found, strict=True)}
        self._write_whole()
        with Fleet.open(self.whole) as fleet:
            tables = {data.name: self._judge(fleet, data) for data in self._tasks}
        with ThreadPoolExecutor(2) as pool:
            files = list(pool.map(self._train, [tables[name] for name in self.routed]))
        self._routers = dict(zip(self.routed, files, strict=True))
        self._write_whole()

    # --- files --------------------------------------------------------------------------------------------

    def _write_alone(self) -> None:
        models = {}
        for data in self._tasks:
            found = self._models[data.name]
            models[found.largest] = {"task": data.name, **found.entries[found.largest]}
        self._save(self.alone, models, {})

    def _write_whole(self) -> None:
        models: dict[str, Any] = {}
        for data in self._tasks:
            found = self._models[data.name]
            for name, entry in found.entries.items():
                models[name] = {"task": data.name, **entry}
            when = self.conditions.get(data.name, "max(quick.probabilities) < 0.9")
            steps = {
                "quick": found.quick,
                "sure": {"ask": found.dear, "when": when},
                "best": {"fuse": "first", "of": ["sure", "quick"]},
            }
            models[f"{data.name}-sure"] = {"task": data.name, "graph": {"steps": steps}}
        for name, quality in self.qualities.items():
            models[name]["quality"] = round(quality, 5)
        prefer: dict[str, Any] = {"prefer": {"minimise": "cost", "keep_quality": KEEP}}
        self._save(self.whole, models, prefer)

    def _save(self, file: Path, models: dict[str, Any], more: dict[str, Any]) -> None:
        tasks = {}
        for data in self._tasks:
            tasks[data.name] = {
                "inputs": {data.field: {"type": data.kind, **data.looks}},
                "outputs": {"probabilities": f"fp32[{data.classes}]"},
                **more,
            }
            if more and data.name in self._routers:
                tasks[data.name]["router"] = {"file": str(self._routers[data.name])}
        whole = {"devices": {"cpu": {"price": f"{PRICE}/h"}}, "tasks": tasks, "models": models}
        file.write_text(yaml.safe_dump(whole, sort_keys=False))

    # --- what is learned ------------------------------------------------------------------------------------

    def _fit(self, data: Data) -> str:
        """Return the condition of a task's cascade."""
        rows = self._labelled(data, data.fit)
        found = self._command(
            "graph", "fit", f"{data.name}-sure", "--fleet", str(self.whole), "--data", str(rows), "--json",
            "--give-up", str(GIVE_UP), "--confidence", str(CONFIDENCE), "--most", "1",
        )  # fmt: skip
        (cascade,) = found["cascades"]
        return str(cascade["when"])

    def _judge(self, fleet: Fleet, data: Data) -> Path:
        """Ask every model of a task for the rows that judge; note its quality, and write a table of scores."""
        table = self._folder / f"{data.name}-scores.csv"
        task = next(task for task in fleet.tasks() if task.name == data.name)
        signals = [seen(task, given(data, data.judge, i, i + 1)) for i in range(len(data.judge))]
        names = sorted({name for signal in signals for name in signal.numbers})
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["id", "task", "model", "score", "cost", "prompt", *(f"feature.{n}" for n in names)]
            )
            for model in [*self._models[data.name].entries, f"{data.name}-sure"]:
                right, cost = self._asked(fleet, model, data)
                self.qualities[model] = float(right.mean())
                for i, signal in enumerate(signals):
                    numbers = [signal.numbers.get(name, "") for name in names]
                    writer.writerow([i, data.name, model, int(right[i]), cost, signal.text, *numbers])
        return table

    def _asked(self, fleet: Fleet, model: str, data: Data) -> tuple[Array, float]:
        right, cost = [], 0.0
        for start in range(0, len(data.judge), _ROWS):
            end = min(start + _ROWS, len(data.judge))
            answer = fleet.infer(model, inputs={data.field: given(data, data.judge, start, end)})
            right.append(np.asarray(answer["probabilities"]).argmax(axis=1) == data.judge.truth[start:end])
            cost += answer.cost
        return np.concatenate(right), cost / len(data.judge)

    def _train(self, table: Path) -> Path:
        file = table.with_suffix(".router")
        self._command("router", "train", str(table), "-o", str(file), "--folds", str(self._folds), "--json")
        return file

    def _labelled(self, data: Data, part: Part) -> Path:
        if isinstance(part.rows, list):
            file = self._folder / f"{data.name}-fit.jsonl"
            pairs = zip(part.rows, part.truth.tolist(), strict=True)
            file.write_text(
                "\n".join(json.dumps({data.field: text, "label": label}) for text, label in pairs)
            )
        else:
            file = self._folder / f"{data.name}-fit.npz"
            np.savez(file, **{data.field: part.rows, "label": part.truth})
        return file

    def _command(self, *words: str) -> Any:
        run = subprocess.run(
            [sys.executable, "-m", "semaforo", *words], cwd=ROOT, env=environment(), capture_output=True,
            text=True, timeout=_COMMAND_S, check=False,
        )  # fmt: skip
        if run.returncode:
            raise SystemExit(f"semaforo {' '.join(words)}\n{run.stderr}")
        return json.loads(run.stdout)


def seen(task: TaskType, array: Array) -> Signals:
    """Return what a router sees of one row ``(1, …)``, as the server looks at it."""
    plan = plan_of(task)
    numbers: dict[str, float] = {}
    for part in plan.parts:
        numbers |= looked_at(part, array)
    return Signals(text_of([array] if plan.texts else []), numbers)


def given(data: Data, part: Part, start: int, end: int) -> Array:
    """Return some rows of a part as a tensor."""
    some = part.rows[start:end]
    return np.array([text.encode() for text in some], object) if isinstance(some, list) else some
