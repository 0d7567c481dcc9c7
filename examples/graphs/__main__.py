"""Models that work together: trains six small ones, fits what can be fitted, asks three graphs, says what came.

python examples/graphs [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from parts import Array, cut
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from semaforo import Fleet

HERE = Path(__file__).parent
Rows = tuple[Array, "np.ndarray"]


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python examples/graphs", description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE / "fleet", help="where models and fleet file go")
    folder = parser.parse_args().folder.resolve()
    images, labels = load_digits(return_X_y=True)
    images, labels = images.astype(np.float32), labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    train, fit, test = ((images[part], labels[part]) for part in np.split(order, [900, 1350]))
    prepare(folder, train, fit, test)
    semaforo(folder, "graph", "fit", "four-eyes", "--data", "fit.npz")
    found = json.loads(
        semaforo(
            folder,
            "graph",
            "fit",
            "sure",
            "--data",
            "fit.npz",
            "--give-up",
            "0.002",
            "--most",
            "0.25",
            "--json",
        )
    )
    when = found["cascades"][0]["when"]
    file = folder / "fleet.yaml"
    file.write_text(file.read_text().replace("max(quick.probabilities) < 0.9", when))
    print(f"fitted: {when}\n\n{semaforo(folder, 'graph', 'show', 'four-eyes')}")
    with Fleet.open(file) as fleet:
        ask(fleet, *test)


def prepare(folder: Path, train: Rows, fit: Rows, test: Rows) -> None:
    """Train the models and write what the fleet file names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("fleet.yaml", "parts.py"):
        shutil.copy(HERE / name, folder)
    for name, (rows, truth) in {"fit": fit, "test": test}.items():
        np.savez(folder / f"{name}.npz", image=rows, label=truth)
    images, labels = train
    views: dict[str, tuple[str, Array, Callable[[], object]]] = {
        "small": ("image", images, lambda: LogisticRegression(C=0.05, max_iter=500)),
        "large": ("image", images, network),
        **{name: ("pixels", part, network) for name, part in cut(images).items()},
    }
    for name, (entry, rows, make) in views.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a network that is stopped early says so
            model = make_pipeline(StandardScaler(), make()).fit(rows, labels)
        onnx = to_onnx(
            model,
            initial_types=[(entry, FloatTensorType([None, rows.shape[1]]))],
            options={id(model[-1]): {"zipmap": False}},
            target_opset=17,
        )
        path = folder / "models" / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(onnx.SerializeToString())


def network() -> MLPClassifier:
    """Return a network with one hidden layer."""
    return MLPClassifier((64,), alpha=1e-2, max_iter=400, random_state=0)


def semaforo(folder: Path, *words: str) -> str:
    """Run a command in the folder of the fleet and return what it printed."""
    command = [sys.executable, "-m", "semaforo", *words]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    return ran.stdout


def ask(fleet: Fleet, images: Array, labels: np.ndarray) -> None:
    """Ask every way to read a digit, and the reader of lines."""
    for name in ("small", "large", "sure", "four-eyes"):
        answers = [fleet.infer(name, image=rows)["label"] for rows in np.array_split(images, 8)]
        print(f"{name:10} {np.mean(np.concatenate(answers) == labels):.4f} of {len(labels)} right")
    strip = images[:6].reshape(-1, 8, 8).swapaxes(0, 1).reshape(8, -1)
    answer = fleet.infer("reader", strip=strip)
    print(
        f"\na line of {labels[:6].tolist()} is read as {np.asarray(answer['labels']).tolist()}\n\n{answer.why}"
    )


if __name__ == "__main__":
    main()
