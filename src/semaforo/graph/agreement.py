"""Whether several answers to one question say the same.

Texts do where they come to the same (`final_answer`), scores of classes where the same class is best, numbers where
they are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities.final import final_answer
from semaforo.errors import InvalidRequest

Array = NDArray[Any]


def agreement(values: Sequence[Array], known: Array) -> Array:
    """Return the share of pairs that say the same, ``(rows,)``; of two values 0 or 1.

    Args:
        values: Each ``(rows, …)``.
        known: Rows that all of them have; of the others nothing is said (0).

    Raises:
        InvalidRequest: Texts are compared with numbers.
    """
    at = np.flatnonzero(known)
    said = [_said(value[at]) for value in values]
    if len({array.dtype == object for array in said}) > 1:
        raise InvalidRequest("agree compares texts with texts, and numbers with numbers")
    pairs = list(combinations(said, 2))
    found = np.zeros(len(known))
    found[at] = sum(np.asarray(a == b, float) for a, b in pairs) / len(pairs)
    return found


def most_said(texts: Sequence[str]) -> tuple[int, float, int]:
    """Return which of several texts says what most of them say, the share that does, and how many differ."""
    finals = [final_answer(text) for text in texts]
    counts = Counter(finals)
    final, count = counts.most_common(1)[0]
    return finals.index(final), count / len(texts), len(counts)


def _said(value: Array) -> Array:
    if value.dtype == object:
        flat = value.reshape(len(value), -1)
        if flat.shape[1] > 1:
            raise InvalidRequest("agree compares one text of each row")
        found = np.empty(len(value), object)
        found[:] = [final_answer(_text(cell)) for cell in flat[:, 0]]
        return found
    flat = value.reshape(len(value), -1)
    return flat.argmax(axis=1) if flat.shape[1] > 1 else flat[:, 0]


def _text(cell: Any) -> str:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
