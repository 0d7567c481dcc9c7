"""Boosted regression trees as plain arrays, evaluated by NumPy for all trees at once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


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
        found = np.empty((len(rows), len(self.ends)))
        starts = np.concatenate([[0], self.ends[:-1]])
        for i, row in enumerate(rows):
            goes = row[self.feature] <= self.threshold
            if np.isnan(row).any():
                goes |= np.isnan(row[self.feature]) & self.missing_left
            following = np.where(goes, self.left, self.right)
            at = self.roots
            for _ in range(self.depth):
                at = following[at]
            found[i] = np.add.reduceat(self.value[at], starts) + self.base
        return found


def joined(parts: Sequence[Trees]) -> Trees:
    """Return several sums of trees as one set of arrays."""
    offsets = np.cumsum([0, *(len(p.feature) for p in parts)])[:-1]
    return Trees(
        roots=np.concatenate([p.roots + o for p, o in zip(parts, offsets, strict=True)]).astype(np.int32),
        ends=np.cumsum([len(p.roots) for p in parts]).astype(np.int32),
        feature=np.concatenate([p.feature for p in parts]),
        threshold=np.concatenate([p.threshold for p in parts]),
        left=np.concatenate([p.left + o for p, o in zip(parts, offsets, strict=True)]).astype(np.int32),
        right=np.concatenate([p.right + o for p, o in zip(parts, offsets, strict=True)]).astype(np.int32),
        missing_left=np.concatenate([p.missing_left for p in parts]),
        value=np.concatenate([p.value for p in parts]),
        base=np.concatenate([p.base for p in parts]),
        depth=max(p.depth for p in parts),
    )
