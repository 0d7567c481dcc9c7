"""What each model is likely to score on one request: a base for every request of the task, and what this one adds.

Rules this module keeps:

1. It begins with the mean score of each model over all tasks. The first level of the stack is the task's own mean,
   drawn towards that where there is little data: the base, which serves wherever the others have nothing to say.
2. The others predict *differences*: between the dear and the cheap model where there are two, else of
   each model from the mean of all. That the cheap model fails says nothing where the dear one fails as well.
3. Each level of the stack counts with a weight (0 or more) that cross-validation has given it: once for requests
   like those of training, and once for those of another domain, found by leaving groups out. A request counts as
   partly the one and partly the other, by how new its words are. Out of its domain it falls back to what travels:
   to the base alone where nothing was seen to.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.routing.embedded import Embedded
from semaforo.routing.table import ANY_TASK
from semaforo.routing.trees import Trees
from semaforo.routing.words import Words

Floats = NDArray[np.float64]

PARTS = ("task", "words", "topics", "trees")
"""Levels of the stack, in order: the mean of the task; linear in the words; what the groups that the words speak of
score; boosted trees over what a request looks like and over the other levels."""


class Topics(msgspec.Struct, frozen=True):
    """Which group (or task) of training a request speaks of, and what models score on each of them.

    Attributes:
        centroids: (v, g) mean direction of each group's words, of length 1.
        sharpness: Of the softmax over likeness.
        means: (g, h) mean of each group, less the base.
    """

    centroids: NDArray[np.float16]
    sharpness: float
    means: NDArray[np.float64]


class Predictor(msgspec.Struct, frozen=True):
    """Predicts the scores of `models` on requests of the tasks that it was trained on.

    `h` is the number of targets: the differences (one for two models, else one for each model), and the mean of all
    models, which says how hard a request is.

    Attributes:
        models: (m,) names.
        basis: (h, m) turns targets into deviations of each model's score.
        base: (m,) mean scores over all tasks.
        tasks: Task → (h,) what it adds to that.
        words: The words, or None where no row of training had any.
        linear: (v, h) weights of words.
        topics: See there; None where there are no groups.
        features: Names of features beside those of the text.
        looks: How many features of a text the trees know; those that later versions add come after them.
        trees: (h,) boosted trees.
        inside: (parts, h) weights of the stack in the domain of training.
        outside: (parts, h) the same out of it.
        embedded: What the embedding of a request adds; None where training had none.
        domain: (3,) logistic regression that tells requests of another domain: on the share of unknown words, the
            likeness to the nearest group, and 1.
    """

    models: tuple[str, ...]
    basis: Floats
    base: Floats
    tasks: dict[str, Floats]
    words: Words | None
    linear: NDArray[np.float32] | None
    topics: Topics | None
    features: tuple[str, ...]
    trees: tuple[Trees, ...]
    inside: Floats
    outside: Floats
    domain: Floats
    embedded: Embedded | None = None
    looks: int = 29

    def own(self, task: str) -> Floats | None:
        """Return what a task adds to the base ``(h,)``; None where it was not in training."""
        return self.tasks.get(task, self.tasks.get(ANY_TASK))

    def usual(self, task: str) -> Floats:
        """Return the mean scores ``(m,)`` of a task, or of all tasks where it is not known."""
        own = self.own(task)
        return self.base if own is None else np.clip(self.base + own @ self.basis, 0.0, 1.0)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Return probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    found: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return found
