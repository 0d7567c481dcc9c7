"""Averages of what members say: of numbers, of probabilities, and of their logarithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.classes import check_options, layout, layout_of, same, with_labels
from semaforo.graph.fusion.method import Member, Options

Array = NDArray[Any]
_TINY = 1e-12


class _Average(ABC):
    """What the methods of this module share."""

    vector = True

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the fused field and its labels."""
        check_options(options, ("field", "tolerance"))
        tolerance = options.get("tolerance", 0.0)
        if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or tolerance < 0:
            raise InvalidRequest(f"tolerance is '{tolerance}'; it takes a number, 0 or more")
        return layout(members, options, vector=self.vector).outputs

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Fuse the field and take the labels from it."""
        field, labels = layout_of(members, options)
        values = [member.arrays[field] for member in members]
        weights = [member.weight for member in members]
        return with_labels(field, labels, self._fused(values, weights), values[0])

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members of the largest group with the same class, or numbers within the tolerance."""
        field, _ = layout_of(members, options)
        values = np.stack([member.arrays[field] for member in members])
        if values.ndim == 3:
            return same(values.argmax(axis=-1))
        tolerance = float(str(options.get("tolerance", 0.0)))
        flat = values.reshape(len(members), values.shape[1], -1)
        near = (np.abs(flat[:, None] - flat[None, :]) <= tolerance).all(axis=-1)
        return np.asarray(near.sum(axis=1).max(axis=0))

    @abstractmethod
    def _fused(self, values: Sequence[Array], weights: Sequence[float]) -> Array: ...


def _normal(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    # Nobody has any say: all have the same.
    return [w / total for w in weights] if total > 0 else [1.0 / len(weights)] * len(weights)


class Mean(_Average):
    """The weighted mean: of probabilities the linear opinion pool."""

    vector = False

    def _fused(self, values: Sequence[Array], weights: Sequence[float]) -> Array:
        shares = _normal(weights)
        total = values[0] * shares[0]
        for value, share in zip(values[1:], shares[1:], strict=True):
            total = total + value * share
        return np.asarray(total)


class Product(_Average):
    """The product of experts, weights as exponents: the logarithmic opinion pool (Genest and Zidek, 1986)."""

    def _fused(self, values: Sequence[Array], weights: Sequence[float]) -> Array:
        shares = [w if sum(weights) > 0 else 1.0 for w in weights]
        logs = np.zeros(values[0].shape)
        for value, share in zip(values, shares, strict=True):
            logs += share * np.log(np.maximum(value, _TINY, dtype=np.float64))
        logs -= logs.max(axis=-1, keepdims=True)
        found = np.exp(logs)
        return np.asarray(found / found.sum(axis=-1, keepdims=True))


class Median(_Average):
    """The weighted median of each number; probabilities are made to sum to one again."""

    vector = False

    def _fused(self, values: Sequence[Array], weights: Sequence[float]) -> Array:
        stacked = np.stack(values)
        if len(set(weights)) == 1:
            found = np.median(stacked, axis=0)
        else:
            order = stacked.argsort(axis=0, kind="stable")
            shares = np.asarray(_normal(weights))[order]
            at = (shares.cumsum(axis=0) >= 0.5 - _TINY).argmax(axis=0)
            place = np.take_along_axis(order, at[None], axis=0)
            found = np.take_along_axis(stacked, place, axis=0)[0]
        if found.ndim == 2 and (stacked >= 0).all() and np.allclose(stacked.sum(axis=-1), 1.0, atol=1e-3):
            found = found / np.maximum(found.sum(axis=-1, keepdims=True), _TINY)
        return np.asarray(found)


class Confident(_Average):
    """For each row the answer of the member whose largest probability, times its weight, is the largest."""

    def _fused(self, values: Sequence[Array], weights: Sequence[float]) -> Array:
        stacked = np.stack(values)
        sure = stacked.max(axis=-1) * np.asarray(weights)[:, None]
        return np.asarray(stacked[sure.argmax(axis=0), np.arange(stacked.shape[1])])


class Vote:
    """The label with the most weight behind it; of equal ones the first member's."""

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the label that is voted on."""
        check_options(options, ("field",))
        first, *others = members.values()
        fits = [
            spec
            for spec in first
            if not spec.shape
            and spec.dtype not in ("FP16", "FP32", "FP64", "BF16")
            and all(any((s.name, s.dtype, s.shape) == (spec.name, spec.dtype, ()) for s in o) for o in others)
        ]
        chosen = options.get("field")
        if chosen is not None:
            fits = [spec for spec in fits if spec.name == chosen]
        if len(fits) != 1:
            what = f"'{chosen}'" if chosen is not None else "one label"
            raise InvalidRequest(
                f"{', '.join(members)} do not all give {what} to vote on: a number or text for each row; "
                "name it by options: {field: …}"
            )
        return (fits[0],)

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Count the votes."""
        field = self._field(members, options)
        votes = np.stack([member.arrays[field] for member in members])
        weights = np.asarray([member.weight for member in members])
        if weights.sum() <= 0:
            weights = np.ones(len(members))
        # What stands behind each member's choice; the first of the strongest wins.
        behind = ((votes[:, None, :] == votes[None, :, :]) * weights[None, :, None]).sum(axis=1)
        chosen = behind.argmax(axis=0)
        return {field: votes[chosen, np.arange(votes.shape[1])]}

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members of the largest group with the same label."""
        field = self._field(members, options)
        return same(np.stack([member.arrays[field] for member in members]))

    @staticmethod
    def _field(members: Sequence[Member], options: Options) -> str:
        chosen = options.get("field")
        if chosen is not None:
            return str(chosen)
        arrays = members[0].arrays
        return next(
            name
            for name, array in arrays.items()
            if array.ndim == 1 and array.dtype.kind != "f" and all(name in m.arrays for m in members)
        )
