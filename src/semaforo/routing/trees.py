"""Boosted regression trees as plain arrays, evaluated by NumPy for all trees at once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

LEAVES = 8
"""Leaves that a tree may have."""

_ALL = np.uint8(0xFF)
_LOWEST = np.array([0, *((n & -n).bit_length() - 1 for n in range(1, 256))], np.intp)


class Trees(msgspec.Struct, frozen=True):
    """One or several sums of regression trees.

    The nodes of all trees stand in one row of arrays; a leaf leads to itself, so that every tree can be walked for
    as many steps as the deepest one needs.

    Attributes:
        roots: (trees,) index of each tree's first node.
        ends: (k,) how many of the trees belong to the first sum, the first two, and so on.
        feature: (nodes,) feature that is compared; 0 at a leaf.
        threshold: (nodes,) goes left where the feature is at most this; infinite at a leaf.
        left, right: (nodes,) indices of the children.
        missing_left: (nodes,) whether a missing feature (NaN) goes left.
        value: (nodes,) value of a leaf, 0 elsewhere.
        base: (k,) what is added to each sum of leaves.
        depth: Steps from a root to the deepest leaf.
    """

    roots: NDArray[np.int32]
    ends: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    base: NDArray[np.float64]
    depth: int

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums ``(n, k)`` for features ``(n, f)``; NaN = missing."""
        forest = Forest((self,))
        return np.array([forest.predict(row) for row in rows]).reshape(len(rows), len(self.ends))


class Forest:
    """Several sums of trees, ready to be asked row by row.

    Every comparison of every tree is made at once. Leaves are numbered from left to right as bits; a comparison
    that
    fails strikes out the leaves to its left, and the first leaf that is left is where the row ends (QuickScorer,
    Lucchese et al., SIGIR 2015).

    Args:
        parts: The sums, in order.

    Raises:
        ValueError: A tree has more than `LEAVES` leaves.
    """

    def __init__(self, parts: Sequence[Trees]) -> None:
        trees = [_laid(part, int(root)) for part in parts for root in part.roots]
        ends = np.cumsum(np.concatenate([np.diff(part.ends, prepend=0) for part in parts]))
        self._starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)
        self._base = np.concatenate([part.base for part in parts])
        # Indices are of the machine's own width: NumPy would turn others into that at each look-up.
        self._feature = np.array([t[0] for t in trees], np.intp).T.copy()
        self._threshold = np.array([t[1] for t in trees]).T.copy()
        self._missing_left = np.array([t[2] for t in trees]).T.copy()
        self._kept = np.array([t[3] for t in trees], np.uint8).T.copy()
        self._value = np.array([t[4] for t in trees]).ravel()
        self._first = np.arange(len(trees), dtype=np.intp) * LEAVES

    def predict(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums ``(k,)`` for features ``(f,)``; NaN = missing."""
        seen = row.take(self._feature)
        goes = seen <= self._threshold
        if np.isnan(row).any():
            goes |= np.isnan(seen) & self._missing_left
        left = np.bitwise_and.reduce(np.where(goes, _ALL, self._kept))
        leaves = self._value.take(_LOWEST.take(left) + self._first)
        found: NDArray[np.float64] = np.add.reduceat(leaves, self._starts) + self._base
        return found


def _laid(trees: Trees, root: int) -> tuple[list[int], list[float], list[bool], list[int], list[float]]:
    """Return the comparisons of one tree and the values of its leaves, filled up with what changes nothing."""
    feature: list[int] = []
    threshold: list[float] = []
    missing: list[bool] = []
    kept: list[int] = []
    values: list[float] = []

    def walk(node: int) -> int:
        """Return the bits of the leaves under a node."""
        left = int(trees.left[node])
        if left == node:
            values.append(float(trees.value[node]))
            return 1 << (len(values) - 1)
        at = len(kept)
        feature.append(int(trees.feature[node]))
        threshold.append(float(trees.threshold[node]))
        missing.append(bool(trees.missing_left[node]))
        kept.append(0)
        mine = walk(left)
        kept[at] = int(_ALL) & ~mine
        return mine | walk(int(trees.right[node]))

    walk(root)
    if len(values) > LEAVES:
        raise ValueError(f"a tree has {len(values)} leaves: {LEAVES} is the most")
    more = LEAVES - 1 - len(kept)
    return (
        feature + [0] * more, threshold + [np.inf] * more, missing + [True] * more, kept + [int(_ALL)] * more,
        values + [0.0] * (LEAVES - len(values)),
    )  # fmt: skip
