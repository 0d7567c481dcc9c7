"""The last level of a predictor: what the embedding of a request tells beyond the stack of the others.

It is stacked on the others as a whole, so that they serve with their own weights where there is no embedding.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PARTS = ("without", "linear", "neighbours")
"""What is weighed: the stack of the other levels, linear in the embedding, the nearest requests by embedding."""


class Embedded(msgspec.Struct, frozen=True):
    """What was learned of embeddings.

    Attributes:
        space: ``model/version`` that made them; "" = not said.
        middle: (d,) mean of the embeddings of training, each of length 1.
        linear: (d, h) weights of what an embedding is beyond that.
        points: (p, d) requests of training beyond it, of length 1.
        targets: (p, h) what was scored on them, less the base.
        sharpness: Of the weights by likeness.
        inside: (3, h) weights of `PARTS` in the domain of training.
        outside: (3, h) the same out of it.
    """

    space: str
    middle: NDArray[np.float32]
    linear: NDArray[np.float32]
    points: NDArray[np.float32]
    targets: Floats
    sharpness: float
    inside: Floats
    outside: Floats

    def fits(self, space: str, vector: NDArray[np.float32]) -> bool:
        """Tell whether an embedding is of the kind that was learned of."""
        return len(vector) == len(self.middle) and self.space in ("", space)

    def told(self, targets: Floats, vector: NDArray[np.float32], trust: float) -> Floats:
        """Return the targets ``(h,)`` once an embedding ``(d,)`` of length 1 is known.

        Args:
            targets: What the other levels say.
            vector: The embedding.
            trust: How much the request is in the domain, 0…1.
        """
        place = vector - self.middle
        length = float(np.sqrt(place @ place))
        near = np.zeros_like(targets)
        if length:
            alike = np.float32(self.sharpness) * (self.points @ (place / np.float32(length)))
            weights = np.exp(alike - alike.max())
            near = (weights @ self.targets) / float(weights.sum())
        said = np.stack([targets, place @ self.linear, near])
        found: Floats = (said * (trust * self.inside + (1.0 - trust) * self.outside)).sum(axis=0)
        return found
