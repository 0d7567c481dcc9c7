"""The quickstart fleet learns: one model is degraded on purpose, traffic leaves it, and returns after its repair.

``make learn`` runs it. Every answer is judged by its label, as an application would do that knows the truth
later. The small model, which usually answers, is served by a function here that can be told to answer wrongly;
nobody else knows. A request asks for a page of digits, so that the small model costs clearly less than the large
one: of a single digit both cost little more than the call.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from prepare import HERE, prepare
from rich.console import Console
from rich.table import Table

from semaforo import Fleet

PHASES = (("as trained", 100), ("degraded", 200), ("repaired", 400))
STEP = 20
PAGE = 64
DEGRADABLE = '''"""Serves models, each of which answers wrongly as long as a file of its name stands here."""

from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


class Model:
    def load(self):
        self.session = onnxruntime.InferenceSession(HERE / "models" / self.name / "1" / "model.onnx")
        self.input = self.session.get_inputs()[0].name

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        label, probabilities = self.session.run(None, {self.input: image})
        if (HERE / f"degraded-{self.name}").exists():
            label, probabilities = (label + 1) % 10, np.roll(probabilities, 1, axis=1)
        return {"label": label.astype(np.int64), "probabilities": probabilities.astype(np.float32)}


class Linear(Model):
    name = "digits-linear"


class Large(Model):
    name = "digits-large"
'''
DEGRADABLES = {"digits-linear": "Linear", "digits-large": "Large"}
VICTIM = "digits-linear"


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(prog="make learn", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE / "fleet", help="where models and fleet file are")
    given = parser.parse_args()
    console = Console(highlight=False)
    folder = given.folder.resolve()
    prepare(folder, False, console)
    file = learning_fleet(folder)
    forget(folder)
    data = np.load(folder / "digits-test.npz")
    table = Table(title=f"who answers, {STEP} requests a line")
    for column in ("phase", "requests", f"{VICTIM} answers", "right", f"{VICTIM} is believed"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    broken = folder / f"degraded-{VICTIM}"
    asked = 0
    left_after = back_after = None
    with Fleet.open(file) as fleet:
        for phase, requests in PHASES:
            broken.unlink(missing_ok=True)
            if phase == "degraded":
                broken.touch()
            for begin in range(0, requests, STEP):
                mine, right = 0, 0.0
                for _ in range(STEP):
                    page = (asked * PAGE + np.arange(PAGE)) % len(data["label"])
                    answer = fleet.infer("digits", image=data["image"][page])
                    fleet.feedback(answer, label=data["label"][page])
                    mine += answer.model == VICTIM
                    right += float((answer["label"] == data["label"][page]).mean())
                    asked += 1
                if phase == "degraded" and left_after is None and mine <= STEP // 10:
                    left_after = begin + STEP
                if phase == "repaired" and back_after is None and mine >= STEP - STEP // 5:
                    back_after = begin + STEP
                believed = fleet.decide("digits", image=data["image"][0]).considered
                quality = next(c.quality for c in believed if c.variant.startswith(f"{VICTIM}/"))
                table.add_row(
                    phase if begin == 0 else "",
                    str(asked),
                    "█" * mine or "·",
                    f"{right / STEP:.0%}",
                    f"{quality:.2f}",
                )
    console.print(table)
    console.print(f"traffic left {VICTIM} within {left_after or 'no'} requests of its degradation")
    console.print(f"and was back within {back_after or 'no'} requests of its repair")
    return 0 if left_after and back_after else 1


def forget(folder: Path) -> None:
    """Begin anew: nothing is learned, nothing is degraded."""
    shutil.rmtree(folder / "learned", ignore_errors=True)
    for model in DEGRADABLES:
        (folder / f"degraded-{model}").unlink(missing_ok=True)


def learning_fleet(folder: Path) -> Path:
    """Write the fleet file of the demonstration, and return it."""
    text = (folder / "fleet.yaml").read_text()
    measured = json.loads((folder / "measured.json").read_text())
    (folder / "degradable.py").write_text(DEGRADABLE)
    for model, kind in DEGRADABLES.items():
        quality = next(value for name, value in measured.items() if name.split("/")[0] == model)
        served = (
            f"  {model}:\n    task: digits\n    python: degradable.py:{kind}\n"
            f"    quality: {quality:.4f}\n    isolation: inline\n"
        )
        text = re.sub(rf"^  {model}:\n(    .*\n)+", served, text, flags=re.MULTILINE)
    # Two that cost nearly the same take turns, which is no matter of learning.
    text = re.sub(r"^  digits-net:\n(    .*\n)+", "", text, flags=re.MULTILINE)
    text = re.sub(r"(    deadline: 1s\n)", r"\1    explore: {share: 0.02, shadow: 0.25}\n", text, count=1)
    text = re.sub(r"^journal: .*$", "history: learned/history.db", text, flags=re.MULTILINE)
    file = folder / "learning.yaml"
    file.write_text(text)
    return file


if __name__ == "__main__":
    sys.exit(main())
