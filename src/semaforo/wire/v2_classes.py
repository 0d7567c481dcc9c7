"""The classification extension of V2: the best classes of an output as ``value:index[:label]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semaforo.errors import InvalidRequest
from semaforo.wire.payload import Array


def classify(name: str, array: Array, count: int, labels: Sequence[str]) -> Array:
    """Return the best `count` classes of each row, best first, ties in order of index.

    Args:
        name: Name of the output, for messages.
        array: Scores ``(rows, …)``; the dimensions after the first are taken together.
        count: Number of classes; more than there are gives all.
        labels: Names of the classes; an index beyond them has no label.

    Returns:
        An object array ``(rows, classes)`` of strings.

    Raises:
        InvalidRequest: The output holds no numbers to rank.
    """
    if array.dtype.kind not in "iuf":
        raise InvalidRequest(f"output '{name}' holds no numbers, so no classes can be made of it")
    scores = array.reshape(array.shape[0], -1) if array.ndim else array.reshape(1, 1)
    # NaN sorts last, as the least likely; a stable sort keeps the lower index first among equals.
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
    result = np.empty(best.shape, object)
    for row, indices in enumerate(best.tolist()):
        for place, index in enumerate(indices):
            text = f"{scores[row, index]!s}:{index}"
            result[row, place] = f"{text}:{labels[index]}" if index < len(labels) else text
    return result
