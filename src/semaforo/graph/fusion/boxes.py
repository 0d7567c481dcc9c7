"""Fusing detections: the boxes that several detectors found in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.classes import check_options
from semaforo.graph.fusion.method import Member, Options
from semaforo.graph.fusion.ragged import stacked

Array = NDArray[Any]


class _Cluster(msgspec.Struct):
    box: Array
    label: int
    boxes: list[Array]
    scores: list[float]


class Boxes:
    """Weighted boxes fusion (Solovyev, Wang and Gabruseva, 2021).

    Boxes that overlap become one, whose corners are the means of theirs, weighed by their scores; its score is
    their mean, the less the fewer of the members found it. Members give ``boxes: fp32[?, 4]`` (two corners),
    ``scores: fp32[?]`` and ``labels: int64[?]``. Options: ``iou`` from which boxes are one (0.55), ``skip`` scores
    below (0).
    """

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return boxes, scores and labels."""
        check_options(options, ("iou", "skip"))
        for name, usual in (("iou", 0.55), ("skip", 0.0)):
            value = options.get(name, usual)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise InvalidRequest(f"{name} is '{value}'; it takes a number from 0 to 1")
        found: tuple[TensorSpec, ...] = ()
        for member, specs in members.items():
            known = {spec.name: spec for spec in specs}
            for name, rank in (("boxes", 2), ("scores", 1), ("labels", 1)):
                if name not in known or len(known[name].shape) != rank:
                    raise InvalidRequest(
                        f"'{member}' does not give {name}; boxes: fp32[?, 4], scores: fp32[?] and "
                        "labels: int64[?] are fused"
                    )
            found = found or tuple(known[name] for name in ("boxes", "scores", "labels"))
        return tuple(msgspec.structs.replace(s, shape=(-1, *s.shape[1:])) for s in found)

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Fuse image after image."""
        rows = len(members[0].arrays["boxes"])
        found = [self._image(members, row, options) for row in range(rows)]
        kinds = members[0].arrays
        dtypes = {name: np.asarray(kinds[name][0]).dtype for name in ("boxes", "scores", "labels")}
        return {
            name: stacked([part[place].astype(dtypes[name]) for part in found])
            for place, name in enumerate(("boxes", "scores", "labels"))
        }

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members that found as many boxes of each label."""
        rows = len(members[0].arrays["labels"])
        counts = []
        for row in range(rows):
            seen = [tuple(sorted(np.asarray(m.arrays["labels"][row]).tolist())) for m in members]
            counts.append(max(seen.count(one) for one in seen))
        return np.array(counts)

    @staticmethod
    def _image(members: Sequence[Member], row: int, options: Options) -> tuple[Array, Array, Array]:
        least = float(str(options.get("skip", 0.0)))
        overlap = float(str(options.get("iou", 0.55)))
        total = sum(member.weight for member in members) or 1.0
        all_found: list[tuple[float, int, Array]] = []
        for member in members:
            boxes = np.asarray(member.arrays["boxes"][row], np.float64).reshape(-1, 4)
            scores = np.asarray(member.arrays["scores"][row], np.float64)
            labels = np.asarray(member.arrays["labels"][row]).astype(int)
            share = member.weight / total * len(members)
            for box, score, label in zip(boxes, scores, labels, strict=True):
                if score >= least:
                    all_found.append((float(score) * share, int(label), box))
        all_found.sort(key=lambda item: -item[0])
        clusters: list[_Cluster] = []
        for score, label, box in all_found:
            best, best_overlap = None, overlap
            for cluster in clusters:
                if cluster.label == label and (shared := _iou(cluster.box, box)) > best_overlap:
                    best, best_overlap = cluster, shared
            if best is None:
                clusters.append(_Cluster(box, label, [box], [score]))
                continue
            best.boxes.append(box)
            best.scores.append(score)
            best.box = np.average(best.boxes, axis=0, weights=np.maximum(best.scores, 1e-12))
        merged = [
            (c.box, float(np.mean(c.scores)) * min(len(c.boxes), len(members)) / len(members), c.label)
            for c in clusters
        ]
        merged.sort(key=lambda item: -item[1])
        return (
            np.array([box for box, _, _ in merged]).reshape(-1, 4),
            np.array([score for _, score, _ in merged], np.float64),
            np.array([label for _, _, label in merged], np.int64),
        )


def _iou(a: Array, b: Array) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0.0)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / union if union > 0 else 0.0
