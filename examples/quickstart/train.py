"""Trains small real models on data that ships with scikit-learn, and measures each on rows it has not seen.

| task | model | what it is |
| --- | --- | --- |
| digits | digits-linear | logistic regression on 64 pixels |
| digits | digits-net | one hidden layer of 48 |
| digits | digits-large | two hidden layers of 512 and 256, trained on shifted copies too; fp32 and int8 |
| tumour | tumour-linear | logistic regression on 30 measurements |
| tumour | tumour-forest | 200 trees |
| tumour | tumour-rule | three lines of Python, in rule.py |
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rule import tumour
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

SEED = 7


def train(folder: Path) -> dict[str, float]:
    """Train all models into ``folder/models`` and return the measured quality of each, by name.

    Held-out rows are kept in ``<task>-test.npz``, under the names of the task, for `semaforo evaluate`.
    """
    digits, tumours = load_digits(), load_breast_cancer()
    images, test_images, labels, test_labels = split(digits.data, digits.target, 450)
    cells, test_cells, kinds, test_kinds = split(tumours.data, tumours.target, 143)
    np.savez(folder / "digits-test.npz", image=test_images, label=test_labels)
    np.savez(folder / "tumour-test.npz", cells=test_cells, malignant=test_kinds == 0)

    large = make_pipeline(
        MinMaxScaler(), MLPClassifier((512, 256), alpha=1e-3, batch_size=64, random_state=SEED)
    )
    shifted = with_shifts(images, labels)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("digits-linear", lambda: keep("digits-linear", "image", linear().fit(images, labels))),
        ("digits-net", lambda: keep("digits-net", "image", net(48, 120).fit(images, labels))),
        *[(f"digits-large, pass {n + 1} of 10", lambda: one_pass(large, *shifted)) for n in range(10)],
        ("digits-large", lambda: keep("digits-large", "image", large)),
        ("digits-large as int8", lambda: quantise(folder / "models" / "digits-large" / "1" / "model.onnx")),
        ("tumour-linear", lambda: keep("tumour-linear", "cells", linear().fit(cells, kinds))),
        ("tumour-forest", lambda: keep("tumour-forest", "cells", forest().fit(cells, kinds))),
    ]

    def keep(name: str, input_name: str, model: Any) -> None:
        width = model.n_features_in_
        options = {id(model[-1]): {"zipmap": False}} if hasattr(model, "steps") else {"zipmap": False}
        onnx = to_onnx(
            model,
            initial_types=[(input_name, FloatTensorType([None, width]))],
            options=options,
            target_opset=17,
        )
        path = folder / "models" / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(onnx.SerializeToString())

    with warnings.catch_warnings(), bar() as progress:
        warnings.simplefilter("ignore")  # a net that is stopped early says so
        task = progress.add_task("", total=len(steps))
        for title, step in steps:
            progress.update(task, description=title)
            step()
            progress.advance(task)
        progress.update(task, description="trained")

    found: dict[str, float] = {}
    for path in sorted((folder / "models").glob("*/1/*.onnx")):
        model = path.parent.parent.name
        rows = (
            ("cells", test_cells, test_kinds)
            if model.startswith("tumour")
            else ("image", test_images, test_labels)
        )
        found[f"{model}/{path.stem}"] = measure(path, *rows)
    found["tumour-rule"] = float(np.mean(tumour(test_cells)["malignant"] == (test_kinds == 0)))
    return found


def split(data: Any, target: Any, held_out: int) -> Any:
    """Return rows to learn from and `held_out` rows to measure on: data, data, target, target."""
    return train_test_split(
        data.astype(np.float32),
        target.astype(np.int64),
        test_size=held_out,
        random_state=SEED,
        stratify=target,
    )


def linear() -> Any:
    """Return a logistic regression on scaled inputs."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.05))


def net(hidden: int, passes: int) -> Any:
    """Return a net with one hidden layer."""
    return make_pipeline(MinMaxScaler(), MLPClassifier((hidden,), max_iter=passes, random_state=SEED))


def forest() -> Any:
    """Return a forest."""
    return RandomForestClassifier(200, random_state=SEED)


def with_shifts(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and their copies shifted by one pixel in each direction."""
    square = images.reshape(-1, 8, 8)
    padded = np.pad(square, ((0, 0), (1, 1), (1, 1)))
    shifts = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    copies = [padded[:, y : y + 8, x : x + 8].reshape(-1, 64) for y, x in shifts]
    return np.concatenate(copies), np.tile(labels, len(shifts))


def one_pass(model: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """Train a pipeline of scaler and net for one pass over the images."""
    scaler, classifier = model[0], model[-1]
    if not hasattr(scaler, "scale_"):
        scaler.fit(images)
    classifier.partial_fit(scaler.transform(images), labels, classes=np.unique(labels))


def quantise(path: Path) -> None:
    """Write an int8 copy of a model beside it; only matrix products are quantised, as the rest gains nothing."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    quantize_dynamic(
        path, path.with_name("model.int8.onnx"), op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8
    )


def measure(path: Path, name: str, rows: np.ndarray, truth: np.ndarray) -> float:
    """Measure the share of right answers, and note it in ``quality.json`` beside the model."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    labels = session.run([session.get_outputs()[0].name], {name: rows})[0]
    quality = float(np.mean(labels == truth))
    note = path.with_name("quality.json")
    notes = json.loads(note.read_text()) if note.exists() else {}
    notes[path.name] = {
        "quality": round(quality, 4),
        "metric": "accuracy",
        "rows": len(rows),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    note.write_text(json.dumps(notes, indent=2) + "\n")
    return quality


def bar() -> Progress:
    """Return the progress bar."""
    return Progress(TextColumn("{task.description:<28}"), BarColumn(40), TimeElapsedColumn())
