"""Taking one member's answer as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.method import Array, Member, Options


class First:
    """The first member, in the order of the file, that has an answer: for cascades, switches and hedges."""

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the outputs that all members have."""
        first, *others = members.values()
        known = [{spec.name: spec for spec in specs} for specs in others]
        shared = tuple(
            spec
            for spec in first
            if all(
                spec.name in specs
                and (specs[spec.name].dtype, len(specs[spec.name].shape)) == (spec.dtype, len(spec.shape))
                for specs in known
            )
        )
        if not shared:
            raise InvalidRequest(f"{', '.join(members)} have no output in common")
        return shared

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Return the first member's answer."""
        first, *others = members
        return {name: array for name, array in first.arrays.items() if all(name in m.arrays for m in others)}

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count every member: whichever answers first will do."""
        rows = len(next(iter(members[0].arrays.values())))
        return np.full(rows, len(members))
