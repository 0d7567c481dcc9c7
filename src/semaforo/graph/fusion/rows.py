"""Fusing rows of which not every member has an answer.

Rows with the same members are fused together; a row that no member has stays without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.graph.condition import Rows
from semaforo.graph.fusion.method import Member, Method, Options

Array = NDArray[Any]
Answers = Mapping[str, Mapping[str, Rows]]
"""Member → output → value, in the order of the file."""


def fuse_rows(
    method: Method, answers: Answers, rows: int, weights: Mapping[str, float], options: Options
) -> tuple[dict[str, Array], Array | None]:
    """Fuse what members gave.

    Args:
        method: How.
        answers: What they gave, members without any left out.
        rows: Rows of the request.
        weights: Of members; 1 where it is not named.
        options: Of the step.

    Returns:
        Output → ``(rows that have one, …)``, and the numbers of those rows, None = all.
    """
    names = list(answers)
    have = [next(iter(answers[name].values())).rows for name in names]
    if all(one is None for one in have):
        return method.fuse(_members(answers, names, None, weights), options), None
    there = np.zeros((len(names), rows), bool)
    for i, one in enumerate(have):
        there[i, slice(None) if one is None else one] = True
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    parts: list[tuple[Array, dict[str, Array]]] = []
    for number in range(patterns.shape[1]):
        present = [name for name, is_there in zip(names, patterns[:, number], strict=True) if is_there]
        if present:
            chosen = np.flatnonzero(which.ravel() == number)
            parts.append((chosen, method.fuse(_members(answers, present, chosen, weights), options)))
    at = np.concatenate([chosen for chosen, _ in parts])
    order = np.argsort(at, kind="stable")
    fused = {name: np.concatenate([arrays[name] for _, arrays in parts])[order] for name in parts[0][1]}
    return fused, None if len(at) == rows else at[order]


def agreeing_rows(
    method: Method, answers: Answers, rows: int, weights: Mapping[str, float], options: Options
) -> int:
    """Return how many members at least agree on each row, over all rows; 0 where a row has no answer."""
    names = list(answers)
    least = rows and len(names)
    have = [next(iter(answers[name].values())).rows for name in names]
    if all(one is None for one in have):
        return int(method.agreeing(_members(answers, names, None, weights), options).min(initial=least))
    there = np.zeros((len(names), rows), bool)
    for i, one in enumerate(have):
        there[i, slice(None) if one is None else one] = True
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        present = [name for name, is_there in zip(names, patterns[:, number], strict=True) if is_there]
        if not present:
            return 0
        chosen = np.flatnonzero(which.ravel() == number)
        agreeing = method.agreeing(_members(answers, present, chosen, weights), options)
        least = min(least, int(agreeing.min(initial=least)))
    return least


def _members(
    answers: Answers, names: Sequence[str], rows: Array | None, weights: Mapping[str, float]
) -> list[Member]:
    return [
        Member(
            name,
            {output: _of(value, rows) for output, value in answers[name].items()},
            weights.get(name, 1.0),
        )
        for name in names
    ]


def _of(value: Rows, rows: Array | None) -> Array:
    if rows is None:
        return value.array
    return value.array[rows if value.rows is None else np.searchsorted(value.rows, rows)]
