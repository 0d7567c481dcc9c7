"""What has been seen of the members of a fusion: how long it takes, and how often each was with the rest.

A member's weight is what the file says, else what `fit` has found, else grows with its quality and with how often
it has agreed with what was fused; a member that turns bad loses its say within some hundred answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.graph.condition import Rows
from semaforo.graph.graph import Step

Array = NDArray[Any]
_MEMORY = 500.0
_PRIOR = 20.0
_PRIOR_SHARE = 0.8
_LEAST, _MOST = 0.05, 20.0


class History:
    """The history of one fusion.

    Attributes:
        usual_s: Seconds it usually takes.
    """

    def __init__(self, step: Step) -> None:
        self.usual_s = 50e-6
        fitted = step.options.get("fitted")
        weights = step.options.get("weights") or (fitted.get("weights") if isinstance(fitted, dict) else None)
        self._stated = {k: float(v) for k, v in weights.items()} if isinstance(weights, dict) else None
        self._agreed = dict.fromkeys(step.of, _PRIOR * _PRIOR_SHARE)
        self._seen = dict.fromkeys(step.of, _PRIOR)

    def weights(self, members: Mapping[str, Mapping[str, Rows]]) -> dict[str, float]:
        """Return the weights of members; of those the file weighs, what it says."""
        if self._stated is not None:
            return {name: self._stated.get(name, 1.0) for name in members}
        return {name: self._weight(name) for name in members}

    def agreement(self) -> dict[str, float]:
        """Return how often each member has been with the fused answer, 0…1."""
        return {name: self._agreed[name] / self._seen[name] for name in self._seen}

    def learn(
        self, members: Mapping[str, Mapping[str, Rows]], arrays: Mapping[str, Array], rows: Array | None
    ) -> None:
        """Note who was with the fused answer, row by row, where answers are labels."""
        if self._stated is not None or len(members) < 2:
            return
        agreed, total = agreeing(members, arrays, rows)
        count = float(total)
        for member, number in agreed.items():
            fade = max(0.0, 1.0 - count / _MEMORY)
            self._seen[member] = max(_PRIOR, self._seen[member] * fade) + count
            self._agreed[member] = self._agreed[member] * fade + float(number)
            self._agreed[member] = min(self._agreed[member], self._seen[member])

    def _weight(self, name: str) -> float:
        share = min(0.999, max(0.001, self._agreed[name] / self._seen[name]))
        # The log odds of being right, as for independent voters; never nothing, and never everything.
        return min(_MOST, max(_LEAST, math.log(share / (1.0 - share)) + 1.0))


def agreeing(
    members: Mapping[str, Mapping[str, Rows]], arrays: Mapping[str, Array], rows: Array | None
) -> tuple[dict[str, int], int]:
    """Return how many rows of each member say the same as what was fused, and of how many.

    Members that did not answer all rows are left out; so are all where the answer holds no labels.
    """
    name = next((n for n, a in arrays.items() if a.ndim == 1 and a.dtype.kind in "iuO"), None)
    if rows is not None or name is None:
        return {}, 0
    label = arrays[name]
    found = {}
    for member, outputs in members.items():
        said = outputs.get(name)
        if said is not None and said.rows is None and said.array.shape == label.shape:
            found[member] = int(np.sum(said.array == label))
    return found, len(label)
