"""What is alike: the nearest of what is kept, and how near is near enough for one to stand for another.

The second is learned from pairs: how alike two requests were, and what was lost, or would have been, where the
answer to one was given to the other. Until they bear a threshold out, none is alike enough.
"""

from __future__ import annotations

from collections import deque
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.routing.threshold import for_hits

Vector = NDArray[np.float32]

LEAST = 0.5
"""Cosine below which nothing is taken to be alike."""

CONFIDENCE = 0.9
_PAIRS = 4096
_CANDIDATES = 32
_EVERY = 16
_FIRST_ROWS = 1


class Index:
    """Vectors of length 1 by key, the oldest of which goes first.

    Args:
        width: Numbers in each.
        most: Vectors to keep.
    """

    def __init__(self, width: int, most: int) -> None:
        self._most = most
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}
        self._matrix = np.zeros((_FIRST_ROWS, width), np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes, vector: Vector) -> bytes | None:
        """Keep a vector; return the key of the one that had to go for it."""
        self.drop(key)
        gone = next(iter(self._rows)) if len(self._keys) >= self._most else None
        if gone is not None:
            self.drop(gone)
        row = len(self._keys)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._matrix[row] = vector
        self._keys.append(key)
        self._rows[key] = row
        return gone

    def drop(self, key: bytes) -> None:
        """Forget a vector, where it is there."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = self._keys.pop()
        if last != key:
            self._matrix[row] = self._matrix[len(self._keys)]
            self._keys[row] = last
            self._rows[last] = row

    def nearest(self, vector: Vector, most: int) -> list[tuple[bytes, float]]:
        """Return the keys that are nearest, with the cosine of each, nearest first."""
        if not self._keys or self._matrix.shape[1] != len(vector):
            return []
        cosines = self._matrix[: len(self._keys)] @ vector
        best = np.argsort(-cosines)[:most] if len(cosines) <= most else _top(cosines, most)
        return [(self._keys[i], float(cosines[i])) for i in best]


class Pairs(msgspec.Struct):
    """What pairs have shown, as it is kept over restarts.

    Attributes:
        likeness, loss: Of each pair, the oldest first.
    """

    likeness: list[float] = []
    loss: list[float] = []


class Alike:
    """How alike is alike enough.

    Args:
        most: What one standing for the other may lose on average, 0…1.
        known: Pairs of an earlier time.

    Attributes:
        threshold: Cosine from which on it is; ∞ while that cannot be told.
    """

    def __init__(self, most: float, known: Pairs | None = None) -> None:
        self._most = most
        found = zip(known.likeness, known.loss, strict=True) if known is not None else ()
        self._pairs: deque[tuple[float, float]] = deque(found, _PAIRS)
        self.threshold = inf
        self._since = 0
        if self._pairs:
            self._set()

    def __len__(self) -> int:
        return len(self._pairs)

    def learn(self, likeness: float, loss: float) -> None:
        """Take in a pair.

        Args:
            likeness: Cosine.
            loss: What was lost, -1…1.
        """
        self._pairs.append((likeness, min(1.0, max(-1.0, loss))))
        self._since += 1
        # What is bad counts at once: a threshold that no longer holds serves not one request more.
        if self._since >= max(_EVERY, len(self._pairs) // 32) or (loss > 0.0 and likeness >= self.threshold):
            self._set()

    def pairs(self) -> Pairs:
        """Return what is to be kept."""
        return Pairs([like for like, _ in self._pairs], [loss for _, loss in self._pairs])

    def _set(self) -> None:
        self._since = 0
        found = np.array(self._pairs)
        self.threshold = for_hits(
            found[:, 0], found[:, 1], most=self._most, delta=1.0 - CONFIDENCE, candidates=_CANDIDATES
        )


def unit(vector: NDArray[np.floating]) -> Vector | None:
    """Return a vector as one of length 1; None where it has no direction."""
    found = np.asarray(vector, np.float32).ravel()
    length = float(np.linalg.norm(found))
    return found / np.float32(length) if 0.0 < length < inf else None


def _top(cosines: NDArray[np.float32], most: int) -> NDArray[np.intp]:
    best = np.argpartition(-cosines, most)[:most]
    return best[np.argsort(-cosines[best])]
