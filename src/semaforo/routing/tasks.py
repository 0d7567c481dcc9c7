"""Which task a request asks for, when it says ``auto``.

Rules this module keeps:

1. Its signature decides first: a task whose inputs cannot take what was sent is out, whatever it holds.
2. Content decides among those that are left, with a probability that is calibrated on requests which were not
   trained on.
3. What is not sure enough, or like nothing that was trained on, is not guessed: the candidates are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TaskType
from semaforo.errors import InvalidRequest
from semaforo.features.signals import Signals
from semaforo.features.text import words_of
from semaforo.routing.artefact import pack, unpack
from semaforo.routing.predictor import softmax
from semaforo.routing.words import Words

Floats = NDArray[np.float64]

KIND = "tasks"
_CLIP = 5.0


class Given(msgspec.Struct, frozen=True):
    """One input of a request: its datatype and the shape of one row, as `TensorSpec` has them."""

    dtype: str
    shape: tuple[int, ...]


class TaskModel(msgspec.Struct, frozen=True):
    """Tells tasks apart by content.

    Attributes:
        tasks: (k,) names.
        words: The words; None where no example had any.
        word_weights: (v, k).
        centroids: (v, k) mean direction of each task's words, of length 1.
        numbers: (f,) names of features.
        means, spreads: (k, f) of each task's features; NaN where a task has none.
        middle, scale: (f,) of all tasks'.
        number_weights: (f, k).
        bias: (k,).
        sharpness: Of the softmax, as calibrated.
        least: Probability from which an answer is sure enough.
        alike: (k,) least likeness to a task's words.
        far: (k,) largest mean distance from a task's features, in spreads.
        figures: Out of fold, for people.
    """

    tasks: tuple[str, ...]
    words: Words | None
    word_weights: NDArray[np.float32]
    centroids: NDArray[np.float32]
    numbers: tuple[str, ...]
    means: Floats
    spreads: Floats
    middle: Floats
    scale: Floats
    number_weights: Floats
    bias: Floats
    sharpness: float
    least: float
    alike: Floats
    far: Floats
    figures: dict[str, float] = {}

    def encode(self) -> bytes:
        """Return the artefact."""
        return pack(KIND, self)

    @classmethod
    def decode(cls, data: bytes, name: str) -> TaskModel:
        """Read an artefact.

        Args:
            data: Its bytes.
            name: How messages call it.

        Raises:
            ArtefactError: It is no model of tasks, or is damaged.
        """
        return unpack(KIND, data, cls, name, "semaforo router tasks")

    def logits(self, signals: Signals) -> Floats:
        """Return a score for each task ``(k,)``, not yet calibrated."""
        found = self.bias.copy()
        if self.words is not None and signals.text:
            at, values, _ = self.words.vector(words_of(signals.text))
            found += values @ self.word_weights[at]
        if self.numbers:
            found += self._row(signals) @ self.number_weights
        return found

    def strange(self, signals: Signals, task: int) -> float:
        """Return how unlike a task's examples a request is: above 1 is more than 19 of 20 of them are."""
        worst = 0.0
        if self.words is not None and signals.text and self.alike[task] > 0.0:
            at, values, unknown = self.words.vector(words_of(signals.text))
            # Words that nobody has seen count as unlike all.
            likeness = float(values @ self.centroids[at, task]) * (1.0 - unknown) ** 0.5 if len(at) else 0.0
            worst = float(self.alike[task] / max(likeness, 1e-6))
        if self.numbers and not np.isnan(self.means[task]).all() and not signals.text:
            worst = max(worst, self.distance(signals, task) / max(self.far[task], 1e-9))
        return worst

    def distance(self, signals: Signals, task: int) -> float:
        """Return the mean distance of a request's features from a task's, in spreads."""
        given = np.array([signals.numbers.get(name, np.nan) for name in self.numbers])
        away = np.abs(given - self.means[task]) / self.spreads[task]
        return float(np.nanmean(np.minimum(away, 20.0))) if not np.isnan(away).all() else 0.0

    def _row(self, signals: Signals) -> Floats:
        given = np.array([signals.numbers.get(name, np.nan) for name in self.numbers])
        return np.clip(np.nan_to_num((given - self.middle) / self.scale), -_CLIP, _CLIP)


class Inferred(msgspec.Struct, frozen=True):
    """The task that was found.

    Attributes:
        task: Its name.
        probability: 0…1; 1 where the signature left no other.
    """

    task: str
    probability: float


def fitting(tasks: Mapping[str, TaskType], given: Mapping[str, Given] | None) -> list[str]:
    """Return the tasks that can take what was sent: tensors by name, or a chat (None)."""
    if given is None:
        return [name for name, task in tasks.items() if task.kind == "chat"]
    return [name for name, task in tasks.items() if task.kind != "chat" and _takes(task, given)]


def infer(model: TaskModel | None, candidates: Sequence[str], signals: Signals) -> Inferred:
    """Find the task among those that can take the request.

    Raises:
        InvalidRequest: None can; or several can, and none of them is sure enough. The message lists them.
    """
    if not candidates:
        raise InvalidRequest("no task takes such inputs: name the task, or send what one of them takes")
    if len(candidates) == 1 and (model is None or candidates[0] not in model.tasks):
        return Inferred(candidates[0], 1.0)
    known = [name for name in candidates if model is not None and name in model.tasks]
    if model is None or len(known) < len(candidates):
        raise InvalidRequest(
            f"several tasks take this: {', '.join(candidates)}. Name one of them, or train what tells them apart: "
            "`semaforo router tasks`"
        )
    at = [model.tasks.index(name) for name in known]
    chances = softmax(model.sharpness * model.logits(signals)[at])
    best = int(chances.argmax())
    told = ", ".join(f"{known[i]} {chances[i]:.0%}" for i in np.argsort(-chances)[:5])
    if model.strange(signals, at[best]) > 1.0:
        raise InvalidRequest(
            f"this is like nothing that the tasks were trained on: name the task. Nearest: {told}"
        )
    if chances[best] < model.least:
        raise InvalidRequest(f"it is not clear which task is asked for: {told}. Name one of them")
    return Inferred(known[best], float(chances[best]))


def _takes(task: TaskType, given: Mapping[str, Given]) -> bool:
    specs = {spec.name: spec for spec in task.inputs}
    if not given.keys() <= specs.keys():
        return False
    if any(name not in given and not spec.optional for name, spec in specs.items()):
        return False
    return all(specs[name].dtype == g.dtype and specs[name].accepts(g.shape) for name, g in given.items())
