"""A table of scores: which model did how well on which request, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ANY_TASK = "*"
"""The task of requests of which no task is named: what is learned from them holds for every task."""


class Table(msgspec.Struct, frozen=True):
    """Requests in rows, models in columns; what was not asked is NaN.

    Attributes:
        models: (m,) names.
        tasks: (n,) task of each request.
        prompts: (n,) text of each request, "" where there is none.
        features: Names of further features.
        numbers: (n, f) further features.
        scores: (n, m) 0…1.
        costs: (n, m) US dollars; NaN where nobody said.
        answers: (n, m) what each model said, or None where no answers are known.
        groups: (n,) what is left out together when a new domain is tried; "" = each row by itself.
        propensities: (n, m) probability with which a model was asked; NaN where nobody said.
        embeddings: (n, d) embedding of each request, NaN where it has none; None where none has.
        space: ``model/version`` that made them; "" = not said.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    scores: Floats
    costs: Floats
    features: tuple[str, ...] = ()
    numbers: Floats = msgspec.field(default_factory=lambda: np.zeros((0, 0)))
    answers: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[str, ...] = ()
    propensities: Floats | None = None
    embeddings: NDArray[np.float32] | None = None
    space: str = ""

    def __len__(self) -> int:
        return len(self.tasks)

    def marks(self) -> NDArray[np.int32]:
        """Return what tells each request from others ``(n,)``: of its task and prompt, else of its numbers."""
        found = np.empty(len(self), np.int32)
        for i, (task, prompt) in enumerate(zip(self.tasks, self.prompts, strict=True)):
            said = f"{task}\n{prompt}".encode("utf-8", "surrogatepass")
            if not prompt:
                said += self.scores[i].tobytes() + (self.numbers[i].tobytes() if self.features else b"")
            found[i] = np.uint32(crc32(said)).view(np.int32)
        return found

    def rows(self, indices: NDArray[np.int64]) -> Table:
        """Return some of the requests."""
        at = indices.tolist()
        return Table(
            self.models,
            tuple(self.tasks[i] for i in at),
            tuple(self.prompts[i] for i in at),
            self.scores[indices],
            self.costs[indices],
            self.features,
            self.numbers[indices] if self.features else self.numbers,
            tuple(self.answers[i] for i in at) if self.answers is not None else None,
            tuple(self.groups[i] for i in at) if self.groups else (),
            self.propensities[indices] if self.propensities is not None else None,
            self.embeddings[indices] if self.embeddings is not None else None,
            self.space,
        )

    def of_models(self, wanted: Sequence[str]) -> Table:
        """Return the table of some of the models, in its own order."""
        at = [j for j, name in enumerate(self.models) if name in wanted]
        return msgspec.structs.replace(
            self,
            models=tuple(self.models[j] for j in at),
            scores=self.scores[:, at],
            costs=self.costs[:, at],
            answers=tuple(tuple(row[j] for j in at) for row in self.answers)
            if self.answers is not None
            else None,
            propensities=self.propensities[:, at] if self.propensities is not None else None,
        )
