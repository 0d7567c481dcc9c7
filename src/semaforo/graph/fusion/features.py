"""Fusing features: embeddings of unlike models or modalities, for a model that takes them together."""

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


class Concat:
    """Embeddings side by side, in the order of the file; zeros stand for a member that is missing.

    The output ``present`` tells the model behind it which are there. Options: ``field``.
    """

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the long embedding, and who is in it."""
        check_options(options, ("field", "widths"))
        specs = _vectors(members, options)
        widths = [spec.shape[0] for spec in specs.values()]
        if -1 in widths:
            raise InvalidRequest(
                "the width of an embedding is not known: a missing one could not be stood in for"
            )
        first = next(iter(specs.values()))
        return (
            TensorSpec(first.name, first.dtype, (sum(widths),)),
            TensorSpec("present", "BOOL", (len(specs),)),
        )

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Put them side by side."""
        widths = options.get("widths")
        there = {member.name: member for member in members}
        field = _field(members, options)
        rows = len(members[0].arrays[field])
        dtype = members[0].arrays[field].dtype
        names = widths if isinstance(widths, Mapping) else {m.name: m.arrays[field].shape[1] for m in members}
        parts = [
            there[name].arrays[field] if name in there else np.zeros((rows, int(str(width))), dtype)
            for name, width in names.items()
        ]
        present = np.tile([name in there for name in names], (rows, 1))
        return {field: np.concatenate(parts, axis=1), "present": present}

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count every member: they say different things, and all of them are wanted."""
        return np.full(len(next(iter(members[0].arrays.values()))), len(members))


class Gate:
    """A mean of embeddings of equal width, each weighed by a gate that looks at it.

    The gate of a member is ``weight · exp(vector · embedding + bias)``, of all that are there made to sum to one;
    without ``fitted`` all gates are their weights. ``fitted`` may hold a projection for members of another width.
    """

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the embedding, and the gates."""
        check_options(options, ("field",))
        specs = _vectors(members, options)
        widths = {name: self._width(name, spec.shape[0], options) for name, spec in specs.items()}
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise InvalidRequest(f"embeddings differ in width ({told}): fit projections, or use concat")
        first = next(iter(specs.values()))
        return (
            TensorSpec(first.name, first.dtype, (next(iter(widths.values())),)),
            TensorSpec("gates", "FP32", (-1,)),
        )

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Weigh and add."""
        field = _field(members, options)
        learned = _gates(options)
        parts, logs = [], []
        for member in members:
            value = member.arrays[field].astype(np.float64)
            about = learned.get(member.name, {})
            if "projection" in about:
                value = value @ np.asarray(about["projection"], np.float64)
            score = np.full(len(value), float(about.get("bias", 0.0)))
            if "vector" in about:
                score = score + value @ np.asarray(about["vector"], np.float64)
            parts.append(value)
            logs.append(score + np.log(max(member.weight, 1e-12)))
        gates = np.stack(logs, axis=1)
        gates = np.exp(gates - gates.max(axis=1, keepdims=True))
        gates /= gates.sum(axis=1, keepdims=True)
        fused = sum(part * gates[:, i : i + 1] for i, part in enumerate(parts))
        return {
            field: np.asarray(fused).astype(members[0].arrays[field].dtype),
            "gates": gates.astype(np.float32),
        }

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count every member: all of them are wanted."""
        return np.full(len(next(iter(members[0].arrays.values()))), len(members))

    @staticmethod
    def _width(name: str, width: int, options: Options) -> int:
        projection = _gates(options).get(name, {}).get("projection")
        return len(projection[0]) if projection else width


def _gates(options: Options) -> dict[str, dict[str, Any]]:
    found = options.get("fitted")
    if not isinstance(found, Mapping):
        return {}
    members: dict[str, dict[str, Any]] = dict(found.get("members", {}))
    return members


def _vectors(members: Mapping[str, tuple[TensorSpec, ...]], options: Options) -> dict[str, TensorSpec]:
    found: dict[str, TensorSpec] = {}
    name = options.get("field")
    for member, specs in members.items():
        fits = [
            spec
            for spec in specs
            if spec.dtype in ("FP16", "FP32", "FP64") and len(spec.shape) == 1 and name in (None, spec.name)
        ]
        if len(fits) != 1:
            raise InvalidRequest(
                f"'{member}' does not give one embedding, fp32[…]; name it by options: {{field: …}}"
            )
        found[member] = fits[0]
    names = {spec.name for spec in found.values()}
    if len(names) > 1:
        raise InvalidRequest(
            f"the embeddings have different names ({', '.join(sorted(names))}): give them one"
        )
    return found


def _field(members: Sequence[Member], options: Options) -> str:
    if "field" in options:
        return str(options["field"])
    return next(n for n, a in members[0].arrays.items() if a.dtype.kind == "f" and a.ndim == 2)
