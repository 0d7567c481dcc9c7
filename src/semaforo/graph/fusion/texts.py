"""Fusing texts: the one that the others come closest to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.classes import check_options
from semaforo.graph.fusion.method import Member, Options

Array = NDArray[Any]
_MOST_WORDS = 400
_WORD = re.compile(r"\w+")


class Consensus:
    """The member's text with the most in common with all others: the choice of least expected loss.

    Two texts have in common their longest common subsequence of words, over the mean of their lengths. Options:
    ``field``, and ``similar``, from which texts agree (0.9).
    """

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the text."""
        check_options(options, ("field", "similar"))
        similar = options.get("similar", 0.9)
        if not isinstance(similar, int | float) or isinstance(similar, bool) or not 0 <= similar <= 1:
            raise InvalidRequest(f"similar is '{similar}'; it takes a number from 0 to 1")
        first, *others = members.values()
        fits = [
            spec
            for spec in first
            if spec.dtype == "BYTES"
            and spec.shape in ((), (1,))
            and all(
                any((s.name, s.dtype, s.shape) == (spec.name, "BYTES", spec.shape) for s in o) for o in others
            )
            and options.get("field", spec.name) == spec.name
        ]
        if len(fits) != 1:
            raise InvalidRequest(
                f"{', '.join(members)} do not all give one text; name it by options: {{field: …}}"
            )
        return (fits[0],)

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Take the text that is nearest to the rest, by the weights of those."""
        field = self._field(members, options)
        alike = self._alike(members, field)
        weights = np.asarray([member.weight for member in members])
        for i in range(len(members)):
            alike[i, i] = 0.0
        # Alone, or of equal ones, the first.
        chosen = (alike * weights[None, :, None]).sum(axis=1).argmax(axis=0)
        texts = np.stack([member.arrays[field] for member in members])
        return {field: texts[chosen, np.arange(texts.shape[1])]}

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members whose texts are nearly the same."""
        near = self._alike(members, self._field(members, options)) >= float(str(options.get("similar", 0.9)))
        return np.asarray(near.sum(axis=1).max(axis=0))

    @staticmethod
    def _alike(members: Sequence[Member], field: str) -> Array:
        words = [[_words(text) for text in member.arrays[field].ravel()] for member in members]
        rows = len(words[0])
        alike = np.ones((len(members), len(members), rows))
        for i in range(len(members)):
            for j in range(i):
                for row in range(rows):
                    alike[i, j, row] = alike[j, i, row] = similarity(words[i][row], words[j][row])
        return alike

    @staticmethod
    def _field(members: Sequence[Member], options: Options) -> str:
        if "field" in options:
            return str(options["field"])
        return next(n for n, a in members[0].arrays.items() if a.dtype == object)


def similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the length of the longest common subsequence over the mean length, 0…1."""
    if a == b:
        return 1.0
    if not a or not b:
        return 0.0
    before = [0] * (len(b) + 1)
    for word in a:
        row = [0]
        for at, other in enumerate(b):
            row.append(before[at] + 1 if word == other else max(row[at], before[at + 1]))
        before = row
    return 2.0 * before[-1] / (len(a) + len(b))


def _words(text: bytes | str) -> list[str]:
    plain = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return _WORD.findall(plain.lower())[:_MOST_WORDS]
