"""Members that can run as one batch, side by side in memory.

Rules this module keeps:

1. Members share a block only where names, dtypes, row shapes, parameters and wanted outputs are equal.
2. The order of members is never changed: blocks follow each other as their members do.
3. One member is never copied; several are copied once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from semaforo.errors import SemaforoError
from semaforo.wire.payload import Array, Tensors


class Block(msgspec.Struct):
    """Equal members, concatenated.

    Attributes:
        columns: Name → array ``(rows of all members, …)``.
        counts: Rows of each member, in order.
        parameters: The parameters that every member has.
        outputs: The outputs that every member wants; empty = all.
    """

    columns: dict[str, Array]
    counts: list[int]
    parameters: dict[str, Any] = {}
    outputs: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all members."""
        return sum(self.counts)


Outcome = Block | SemaforoError
"""What became of one block (its output columns), or of one member (its error)."""


def uneven(columns: dict[str, Array], rows: int) -> str:
    """Name a column that has not this many rows, or return ""."""
    for name, array in columns.items():
        if array.ndim == 0 or array.shape[0] != rows:
            return name
    return ""


def _alike(first: Tensors, layout: list[tuple[str, Any, tuple[int, ...]]], other: Tensors) -> bool:
    arrays = other.arrays
    if len(arrays) != len(layout) or first.parameters != other.parameters or first.outputs != other.outputs:
        return False
    rows = -1
    for name, dtype, shape in layout:
        array = arrays.get(name)
        if array is None or array.dtype != dtype or array.shape[1:] != shape or array.ndim == 0:
            return False
        # Concatenated, the rows of a member that has more in one column than in another would shift the rest.
        if rows < 0:
            rows = array.shape[0]
        elif array.shape[0] != rows:
            return False
    return True


def group(members: Sequence[Tensors]) -> list[list[Tensors]]:
    """Cut members into runs of neighbours that can share a block."""
    groups: list[list[Tensors]] = []
    first: Tensors | None = None
    layout: list[tuple[str, Any, tuple[int, ...]]] = []
    for member in members:
        if first is not None and _alike(first, layout, member):
            groups[-1].append(member)
        else:
            groups.append([member])
            layout = [(name, array.dtype, array.shape[1:]) for name, array in member.arrays.items()]
            # What is uneven itself begins a group that nothing can join.
            first = member if _alike(member, layout, member) else None
    return groups


def join(members: Sequence[Tensors]) -> Block:
    """Make one block of members that are alike, see `group`."""
    first = members[0]
    if len(members) == 1:
        return Block(first.arrays, [first.rows], first.parameters, first.outputs)
    columns = {name: np.concatenate([m.arrays[name] for m in members]) for name in first.arrays}
    return Block(columns, [m.rows for m in members], first.parameters, first.outputs)


def members_of(block: Block) -> list[Block]:
    """Split a block into blocks of one member each (views, no copy)."""
    if len(block.counts) == 1:
        return [block]
    parts: list[Block] = []
    start = 0
    for count in block.counts:
        end = start + count
        columns = {name: array[start:end] for name, array in block.columns.items()}
        parts.append(Block(columns, [count], block.parameters, block.outputs))
        start = end
    return parts


def splice(outcomes: Sequence[Outcome], errors: Mapping[int, SemaforoError]) -> list[Outcome]:
    """Put errors of members that never ran among the outcomes of the others.

    Args:
        outcomes: What became of the members that ran, in order.
        errors: Place among all members → error.
    """
    single: list[Outcome] = []
    for outcome in outcomes:
        single += [outcome] if isinstance(outcome, SemaforoError) else members_of(outcome)
    for place in sorted(errors):
        single.insert(place, errors[place])
    return single


def expand(outcomes: Sequence[Outcome]) -> list[Tensors | SemaforoError]:
    """Turn outcomes into one result per member, in order (views, no copy)."""
    results: list[Tensors | SemaforoError] = []
    for outcome in outcomes:
        if isinstance(outcome, SemaforoError):
            results.append(outcome)
        else:
            results.extend(Tensors(part.columns) for part in members_of(outcome))
    return results
