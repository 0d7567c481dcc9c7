"""A verifier in use: what a dear model is predicted to gain where a cheap one has answered as it did.

Rules this module keeps:

1. What a verifier sees in service is made here, and here alone, so that it is what it was trained on.
2. A verifier is of one model's answers: it says nothing of another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.errors import ArtefactError, nearest
from semaforo.features.answer import scores_numbers
from semaforo.features.extract import tensor_signals
from semaforo.features.signals import Signals
from semaforo.routing.cascade import answer_signals
from semaforo.routing.router import Router
from semaforo.routing.scorer import Scorer

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Verifier:
    """A trained verifier.

    Args:
        router: A router that was trained to look at a model's answers.
        task: The task of its requests.
        against: The dear model; "" = the only other one.
        name: How messages call it.

    Attributes:
        cheap: The model whose answers it looks at.
        dear: The model whose gain it predicts.

    Raises:
        ArtefactError: It is no verifier, knows no such model, or none of the task.
    """

    def __init__(self, router: Router, task: str, against: str = "", name: str = "verifier") -> None:
        models = router.predictor.models
        self.cheap = router.verifies
        if not self.cheap:
            raise ArtefactError(
                f"{name} looks at requests alone: `semaforo router train --cascade MODEL` trains a verifier"
            )
        others = [model for model in models if model != self.cheap]
        if against and against not in others:
            told = f"{name} knows no '{against}' beside '{self.cheap}'.{nearest(against, others)}"
            raise ArtefactError(f"{told} It was trained on {', '.join(models)}")
        if not against and len(others) != 1:
            raise ArtefactError(
                f"{name} was trained on {', '.join(models)}: say `against`, one of the others"
            )
        self.dear = against or others[0]
        tasks = router.tasks
        if task not in tasks and len(tasks) != 1:
            raise ArtefactError(f"{name} was trained on the tasks {', '.join(tasks)}, not on '{task}'")
        self._task = task if task in tasks else tasks[0]
        self._columns = models.index(self.cheap), models.index(self.dear)
        self._scorer = Scorer(router.predictor)

    def gains(self, signals: Sequence[Signals]) -> tuple[Floats, Floats]:
        """Return the predicted gain of the dear model ``(n,)``, -1…1, and the trust in each, 0…1."""
        scores, trust = self._scorer.predict(self._task, signals)
        cheap, dear = self._columns
        return scores[:, dear] - scores[:, cheap], trust


def seen_of(
    question: Mapping[str, Array], answer: Array, sampled: Mapping[str, Array] | None = None
) -> list[Signals]:
    """Return what is known of each row once it was answered.

    Args:
        question: Name → ``(rows, …)``.
        answer: Texts, or scores of classes ``(rows, classes)``.
        sampled: ``agreement`` and ``unlike`` of several samples, ``(rows,)`` each.
    """
    found = []
    for row in range(len(answer)):
        asked = tensor_signals({name: array[row : row + 1] for name, array in question.items()})
        said = answer[row : row + 1].reshape(-1)
        if answer.dtype == object:
            looked = answer_signals(asked.text, _text(said[0]))
            signals = Signals(looked.text, {**asked.numbers, **looked.numbers})
        else:
            signals = Signals(asked.text, {**asked.numbers, **scores_numbers(said)})
        more = {f"answer.{name}": float(array[row]) for name, array in (sampled or {}).items()}
        found.append(Signals(signals.text, {**signals.numbers, **more}))
    return found


def _text(cell: Any) -> str:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
