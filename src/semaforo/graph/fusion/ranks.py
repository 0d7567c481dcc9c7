"""Fusing ranked lists: of ids, best first, of which members know different ones.

Ids stand in one tensor (text or whole numbers); lists may differ in length. Fused is the list of all ids, the best
first, with the score of each.
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
from semaforo.graph.fusion.ragged import stacked

Array = NDArray[Any]
_K = 60.0


class Ranks:
    """Reciprocal-rank fusion (Cormack et al., 2009), or Borda's count.

    Options: ``by`` (``rrf`` or ``borda``), ``k`` of the reciprocal ranks (60), ``field`` (the ids), ``most`` ids.
    """

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the ids and their scores."""
        check_options(options, ("by", "k", "field", "most"))
        if options.get("by", "rrf") not in ("rrf", "borda"):
            raise InvalidRequest(f"by is '{options['by']}'; it takes rrf or borda")
        k = options.get("k", _K)
        if not isinstance(k, int | float) or isinstance(k, bool) or k < 0:
            raise InvalidRequest(f"k is '{k}'; it takes a number, 0 or more")
        first, *others = members.values()
        fits = [
            spec
            for spec in first
            if len(spec.shape) == 1
            and (spec.dtype == "BYTES" or "INT" in spec.dtype)
            and all(
                any((s.name, s.dtype, len(s.shape)) == (spec.name, spec.dtype, 1) for s in o) for o in others
            )
        ]
        if "field" in options:
            fits = [spec for spec in fits if spec.name == options["field"]]
        if len(fits) != 1:
            raise InvalidRequest(
                f"{', '.join(members)} do not share one list of ids (text[?] or int64[?]); name it by "
                "options: {field: …}"
            )
        return (TensorSpec(fits[0].name, fits[0].dtype, (-1,)), TensorSpec("scores", "FP32", (-1,)))

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Add up what each list gives each id."""
        field = self._field(members, options)
        rows = len(members[0].arrays[field])
        ids, scores = [], []
        for row in range(rows):
            lists = [_plain(member.arrays[field][row]) for member in members]
            ranked = self._ranked(lists, [member.weight for member in members], options)
            ids.append(np.array([one for one, _ in ranked], members[0].arrays[field].dtype))
            scores.append(np.array([score for _, score in ranked], np.float32))
        return {field: stacked(ids), "scores": stacked(scores)}

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members with the same first id."""
        field = self._field(members, options)
        found = []
        for row in range(len(members[0].arrays[field])):
            heads = [ids[0] for m in members if (ids := _plain(m.arrays[field][row]))]
            found.append(max((heads.count(head) for head in heads), default=0))
        return np.array(found)

    @staticmethod
    def _ranked(
        lists: Sequence[Sequence[Any]], weights: Sequence[float], options: Options
    ) -> list[tuple[Any, float]]:
        borda = options.get("by", "rrf") == "borda"
        k = float(str(options.get("k", _K)))
        known = {one for ids in lists for one in ids}
        total: dict[Any, float] = {}
        for ids, weight in zip(lists, weights, strict=True):
            for place, one in enumerate(dict.fromkeys(ids)):
                # Borda: the last of all known ids gets one point, what a list leaves out none.
                points = float(len(known) - place) if borda else 1.0 / (k + place + 1)
                total[one] = total.get(one, 0.0) + weight * points
        # Of equal ones the first that was met: the order of members decides.
        ranked = sorted(total.items(), key=lambda item: -item[1])
        most = options.get("most")
        return ranked[: int(str(most))] if most is not None else ranked

    @staticmethod
    def _field(members: Sequence[Member], options: Options) -> str:
        if "field" in options:
            return str(options["field"])
        return next(n for n, a in members[0].arrays.items() if a.dtype.kind != "f")


def _plain(ids: Array) -> list[Any]:
    found: list[Any] = np.asarray(ids).tolist()
    return found
