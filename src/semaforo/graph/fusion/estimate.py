"""Fusing estimates: means with covariances, of sensors or filters.

Members give a vector and a matrix, ``mean: fp64[d]`` and ``covariance: fp64[d, d]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.classes import check_options
from semaforo.graph.fusion.method import Member, Options

Array = NDArray[Any]
_REGULAR = 1e-9
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
_ROUNDS = 24


class Estimate:
    """The estimate of least variance.

    Options: ``by``: ``independent`` weighs by the inverse covariances, as the update of a Kalman filter does;
    ``intersection`` (Julier and Uhlmann, 1997) holds for errors that are correlated in unknown ways. ``tolerance``
    in standard deviations, within which estimates agree (3).
    """

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return mean and covariance."""
        check_options(options, ("by", "tolerance"))
        if options.get("by", "independent") not in ("independent", "intersection"):
            raise InvalidRequest(f"by is '{options['by']}'; it takes independent or intersection")
        first: tuple[TensorSpec, TensorSpec] | None = None
        for name, specs in members.items():
            known = {spec.name: spec for spec in specs}
            mean, covariance = known.get("mean"), known.get("covariance")
            if mean is None or covariance is None:
                raise InvalidRequest(f"'{name}' gives no mean with its covariance")
            if len(mean.shape) != 1 or covariance.shape != mean.shape * 2:
                raise InvalidRequest(
                    f"'{name}' gives {mean} and {covariance}: a vector and its matrix are wanted"
                )
            if first is not None and mean.shape != first[0].shape:
                raise InvalidRequest(f"'{name}' gives {mean}, and the others {first[0]}")
            first = first or (mean, covariance)
        assert first is not None
        return first

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Fuse member after member."""
        mean, covariance = _of(members[0])
        by = options.get("by", "independent")
        for member in members[1:]:
            other_mean, other = _of(member)
            share = _shares(covariance, other) if by == "intersection" else None
            mean, covariance = _joined(mean, covariance, other_mean, other, share)
        kinds = members[0].arrays
        return {
            "mean": mean.astype(kinds["mean"].dtype),
            "covariance": covariance.astype(kinds["covariance"].dtype),
        }

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members whose means are within so many standard deviations of each other."""
        limit = float(str(options.get("tolerance", 3.0)))
        means = [_of(member) for member in members]
        near = np.ones((len(members), len(members), len(means[0][0])), bool)
        for i, (a, p) in enumerate(means):
            for j, (b, q) in enumerate(means[:i]):
                gap = a - b
                distance = np.einsum("rd,rd->r", gap, np.linalg.solve(p + q, gap[..., None])[..., 0])
                near[i, j] = near[j, i] = distance <= limit * limit
        return np.asarray(near.sum(axis=1).max(axis=0))


def _of(member: Member) -> tuple[Array, Array]:
    mean = member.arrays["mean"].astype(np.float64)
    matrix = member.arrays["covariance"].astype(np.float64)
    matrix = (matrix + matrix.transpose(0, 2, 1)) / 2
    size = matrix.shape[-1]
    # A direction of no variance at all would stop every inverse; next to none says the same.
    scale = np.maximum(np.trace(matrix, axis1=1, axis2=2) / size, _REGULAR)
    return mean, matrix + _REGULAR * scale[:, None, None] * np.eye(size)


def _joined(
    mean: Array, covariance: Array, other_mean: Array, other: Array, share: Array | None
) -> tuple[Array, Array]:
    own, its = (1.0, 1.0) if share is None else (share[:, None, None], 1.0 - share[:, None, None])
    size = covariance.shape[-1]
    eye = np.broadcast_to(np.eye(size), covariance.shape)
    information = own * np.linalg.solve(covariance, eye) + its * np.linalg.solve(other, eye)
    state = own * np.linalg.solve(covariance, mean[..., None]) + its * np.linalg.solve(
        other, other_mean[..., None]
    )
    fused = np.linalg.solve(information, eye)
    return np.linalg.solve(information, state)[..., 0], (fused + fused.transpose(0, 2, 1)) / 2


def _shares(covariance: Array, other: Array) -> Array:
    """Return, for each row, the share of the first estimate whose fused covariance has the least trace."""
    eye = np.broadcast_to(np.eye(covariance.shape[-1]), covariance.shape)
    own, its = np.linalg.solve(covariance, eye), np.linalg.solve(other, eye)

    def trace(share: Array) -> Array:
        mixed = share[:, None, None] * own + (1.0 - share[:, None, None]) * its
        return np.asarray(np.trace(np.linalg.solve(mixed, eye), axis1=1, axis2=2))

    low, high = np.zeros(len(covariance)), np.ones(len(covariance))
    # The trace is convex in the share: a golden section finds its least value.
    for _ in range(_ROUNDS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        better = trace(left) < trace(right)
        low, high = np.where(better, low, left), np.where(better, right, high)
    return np.asarray((low + high) / 2)
