"""Pictures, sounds and rows of a table in good and bad condition, and models that bear that well or badly.

Of each modality there is a cheap model that was trained on what is in good condition, and a dear one that was
trained on all. Every answer comes from a model that has not seen its row; a request has one condition, drawn by
chance and as strong as chance has it. Nothing here was chosen by how a router does on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import Look, TaskType, TensorSpec
from semaforo.features.plan import plan_of
from semaforo.live.looking import everything
from semaforo.routing.table import Table
from semaforo.wire.payload import Tensors

Floats = NDArray[np.float64]
Draws = np.random.Generator

PRICES = (1e-5, 1e-4)
"""US dollars for an answer of the cheap and of the dear model."""
RATE = 8000
_SAMPLES = 2000
_SOUNDS = ("tone", "chord", "rising", "falling", "beating", "clicks", "noise")


class Modality(msgspec.Struct, frozen=True):
    """One kind of input.

    Attributes:
        name: Of it.
        task: With the input `x`, and as what it is looked at.
        conditions: Names of the conditions, the first of which is good.
        rows: (n, …) as they come.
        condition: (n,) which each row is in.
        right: (n, 2) whether the cheap and the dear model answer rightly.
    """

    name: str
    task: TaskType
    conditions: tuple[str, ...]
    rows: NDArray[Any]
    condition: NDArray[np.int64]
    right: Floats

    def table(self) -> Table:
        """Return what a router learns from: what was seen of each request, and what the models scored."""
        plan = plan_of(self.task)
        seen = [everything(plan, Tensors({"x": row[None]})).numbers for row in self.rows]
        names = tuple(dict.fromkeys(name for numbers in seen for name in numbers))
        numbers = np.array([[one.get(name, np.nan) for name in names] for one in seen])
        n = len(seen)
        costs = np.tile(PRICES, (n, 1))
        return Table(("cheap", "dear"), (self.name,) * n, ("",) * n, self.right, costs, names, numbers)


Model = Callable[[], Any]
Damage = Callable[[NDArray[Any], int, Draws], NDArray[Any]]


def pictures(quick: bool) -> Modality:
    """Digits of 8 × 8 pixels: clean, blurred, noisy."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    data = load_digits()
    most = 240 if quick else len(data.target)
    return _modality(
        "image", TensorSpec("x", "FP32", (64,)), Look("image"), ("clean", "blurred", "noisy"),
        (data.data[:most] / 16.0).astype(np.float32), data.target[:most], _damaged_picture,
        (lambda: LogisticRegression(max_iter=2000), lambda: SVC()), 2 if quick else 5,
    )  # fmt: skip


def _damaged_picture(row: NDArray[Any], condition: int, draws: Draws) -> NDArray[Any]:
    from scipy.ndimage import gaussian_filter

    if condition == 1:
        return gaussian_filter(row.reshape(8, 8), draws.uniform(0.5, 1.5)).ravel()
    return row + draws.normal(0.0, draws.uniform(0.1, 0.6), row.shape) if condition == 2 else row


def sounds(quick: bool) -> Modality:
    """A quarter of a second of one of seven kinds of sound: clean, with some noise, with much."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    draws = np.random.default_rng(0)
    kinds = draws.integers(0, len(_SOUNDS), 200 if quick else 2000)
    rows = np.stack([_sound(int(kind), draws) for kind in kinds]).astype(np.float32)
    return _modality(
        "audio", TensorSpec("x", "FP32", (_SAMPLES,)), Look("audio", RATE), ("clean", "some noise", "much noise"),
        rows, kinds, _damaged_sound,
        (
            lambda: make_pipeline(FunctionTransformer(_bands), StandardScaler(), LogisticRegression(max_iter=2000)),
            lambda: make_pipeline(FunctionTransformer(_spectrogram), ExtraTreesClassifier(30 if quick else 200)),
        ), 2 if quick else 5,
    )  # fmt: skip


def _sound(kind: int, draws: Draws) -> Floats:
    at = np.arange(_SAMPLES) / RATE
    hertz = draws.uniform(200.0, 1500.0)
    level = 10 ** draws.uniform(-1.2, -0.3)
    turn = 2 * np.pi * hertz * at + draws.uniform(0.0, 2 * np.pi)
    slope = 2 * np.pi * draws.uniform(1000.0, 4000.0) * at * at / 2
    found = {
        "tone": lambda: np.sin(turn),
        "chord": lambda: (np.sin(turn) + np.sin(1.26 * turn) + np.sin(1.5 * turn)) / 3,
        "rising": lambda: np.sin(turn + slope),
        "falling": lambda: np.sin(turn + slope[-1] * at / at[-1] * 2 - slope),
        "beating": lambda: np.sin(turn) * (0.5 + 0.5 * np.sin(2 * np.pi * draws.uniform(15.0, 40.0) * at)),
        "clicks": lambda: (np.arange(_SAMPLES) % draws.integers(150, 400) < 4).astype(float),
        "noise": lambda: draws.normal(0.0, 0.4, _SAMPLES),
    }
    return level * found[_SOUNDS[kind]]()


def _damaged_sound(row: NDArray[Any], condition: int, draws: Draws) -> NDArray[Any]:
    if not condition:
        return row
    ratio = draws.uniform(5.0, 20.0) if condition == 1 else draws.uniform(-10.0, 5.0)
    power = float((row.astype(float) ** 2).mean())
    return row + draws.normal(0.0, np.sqrt(power / 10 ** (ratio / 10)), row.shape)


def _spectrogram(rows: NDArray[Any]) -> Floats:
    """Return 15 frames of 32 bands, in decibels and whatever the level."""
    starts = np.arange(0, _SAMPLES - 255, 124)
    frames = rows[:, starts[:, None] + np.arange(256)] * np.hanning(256)
    power = np.abs(np.fft.rfft(frames, axis=2))[:, :, 1:] ** 2
    bands = 10 * np.log10(power.reshape(len(rows), len(starts), 32, 4).sum(axis=3) + 1e-9)
    return (bands - bands.max(axis=(1, 2), keepdims=True)).reshape(len(rows), -1)


def _bands(rows: NDArray[Any]) -> Floats:
    """Return the mean and the spread of each of 32 bands over time."""
    bands = _spectrogram(rows).reshape(len(rows), -1, 32)
    return np.hstack([bands.mean(axis=1), bands.std(axis=1)])


def rows(quick: bool) -> Modality:
    """Thirty measurements of a tumour: whole, with columns missing, with columns in another unit."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    return _modality(
        "table", TensorSpec("x", "FP64", (30,)), Look("table"), ("whole", "missing", "shifted"),
        data.data, data.target, _damaged_row,
        (
            lambda: make_pipeline(
                SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=2000)
            ),
            lambda: HistGradientBoostingClassifier(max_iter=15 if quick else 100),
        ), 2 if quick else 5,
    )  # fmt: skip


def _damaged_row(row: NDArray[Any], condition: int, draws: Draws) -> NDArray[Any]:
    if condition == 1:
        return np.where(draws.random(row.shape) < draws.uniform(0.1, 0.7), np.nan, row)
    if condition == 2:
        return np.where(draws.random(row.shape) < 1 / 3, row * draws.uniform(1.3, 3.0), row)
    return row


def _modality(
    name: str,
    spec: TensorSpec,
    look: Look,
    conditions: tuple[str, ...],
    clean: NDArray[Any],
    truth: NDArray[Any],
    damage: Damage,
    models: tuple[Model, Model],
    folds: int,
) -> Modality:
    """Damage each row once, and have both models answer it who have not seen it."""
    draws = np.random.default_rng(1)
    n = len(clean)
    condition = draws.integers(0, len(conditions), n)
    asked = np.stack([damage(row, int(c), draws) for row, c in zip(clean, condition, strict=True)])
    asked = asked.astype(clean.dtype)
    right = np.zeros((n, 2))
    for part in np.array_split(draws.permutation(n), folds):
        rest = np.setdiff1d(np.arange(n), part)
        seen = [np.stack([damage(row, c, draws) for row in clean[rest]]) for c in range(len(conditions))]
        trained = ((clean[rest], truth[rest]), (np.concatenate(seen), np.tile(truth[rest], len(seen))))
        for column, (make, (x, y)) in enumerate(zip(models, trained, strict=True)):
            model = make()
            last = model[-1] if hasattr(model, "__getitem__") else model
            if "random_state" in last.get_params():
                last.set_params(random_state=0)
            model.fit(x.astype(clean.dtype), y)
            right[part, column] = model.predict(asked[part]) == truth[part]
    task = TaskType(name, inputs=(spec,), looks={"x": look})
    return Modality(name, task, conditions, asked, condition, right)
