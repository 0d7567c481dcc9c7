"""Which extractors look at a request of a task.

How an input is looked at:

1. As the fleet file says (`looks`); ``none`` is not looked at, and is no text either.
2. The input of a transcription is a sound. One that says its rate is one, too.
3. Bytes in the shape of pictures, ``uint8[height, width]`` with channels or without, are pictures.
4. Other bytes and words (``bytes``) are texts.
5. Anything else has the general figures of a tensor, which all numbers have beside their own.

The features of an extractor are named ``input.feature``. Texts go to predictors as they are, who count their words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities.task import Look, TaskType
from semaforo.entities.tensor import TensorSpec
from semaforo.features.audio import audio_numbers
from semaforo.features.image import image_numbers
from semaforo.features.profile import DataProfile
from semaforo.features.table import table_numbers
from semaforo.features.tensor import array_numbers

Extractor = Callable[[NDArray[Any], Look], Mapping[str, float]]
"""Looks at one input of a request ``(rows, …)``; several rows are one request, and what is said is their mean."""

Own = Callable[[Any], Mapping[str, float]]
"""Looks at a whole request: at its inputs by name, each ``(rows, …)``, or at the body of a chat."""

BUILT_IN: dict[str, Extractor] = {"image": image_numbers, "audio": audio_numbers, "table": table_numbers}
GENERAL = ("tensor", "text", "none")
"""Words of `looks` that are no extractors."""
MOST_FEATURES = 256
"""Features that an extractor may give."""
_CHANNELS = (1, 3, 4)
_LEAST_SIDE = 16


class Sources(msgspec.Struct, frozen=True):
    """What looks at payloads.

    Attributes:
        extractors: By the name under which `looks` asks for them.
        own: By task, its own function.
        profiles: By id of a variant, what it was measured on.
    """

    extractors: dict[str, Extractor] = msgspec.field(default_factory=lambda: dict(BUILT_IN))
    own: dict[str, Own] = {}
    profiles: dict[str, DataProfile] = {}


class Part(msgspec.Struct, frozen=True):
    """One look at one input.

    Attributes:
        kind: Name of the extractor.
        input: Name of the input.
        extract: The extractor; None = the general figures of a tensor.
        look: What it is told.
    """

    kind: str
    input: str
    extract: Extractor | None
    look: Look


_NO_OTHERS = Sources()


class Plan(msgspec.Struct, frozen=True):
    """How requests of a task are looked at.

    Attributes:
        parts: In order.
        texts: Inputs that are texts.
        own: A function of the task's own, or None.
    """

    parts: tuple[Part, ...] = ()
    texts: tuple[str, ...] = ()
    own: Own | None = None


def plan_of(task: TaskType, sources: Sources = _NO_OTHERS) -> Plan:
    """Return the plan of a task; of a kind that nobody knows only general figures are had."""
    parts: list[Part] = []
    texts: list[str] = []
    for spec in task.inputs:
        look = task.looks.get(spec.name, Look())
        kind = look.kind or kind_of(task, spec, look)
        if kind == "none":
            continue
        words = spec.dtype == "BYTES"
        if kind == "text":
            texts.append(spec.name)
        if not words:
            parts.append(Part("tensor", spec.name, None, look))
        if kind in sources.extractors:
            parts.append(Part(kind, spec.name, sources.extractors[kind], look))
    return Plan(tuple(parts), tuple(texts), sources.own.get(task.name))


def kind_of(task: TaskType, spec: TensorSpec, look: Look) -> str:
    """Return as what an input is looked at where the fleet file does not say."""
    if look.rate or (task.interface == "transcription" and not spec.optional):
        return "audio"
    if spec.dtype == "UINT8" and _is_picture(spec.shape):
        return "image"
    return "text" if spec.dtype == "BYTES" else "tensor"


def _is_picture(shape: tuple[int, ...]) -> bool:
    if len(shape) == 3:
        if shape[2] in _CHANNELS:
            shape = shape[:2]
        elif shape[0] in _CHANNELS:
            shape = shape[1:]
    return len(shape) == 2 and all(side < 0 or side >= _LEAST_SIDE for side in shape)


def looked_at(part: Part, array: NDArray[Any]) -> Mapping[str, float]:
    """Return what one part of a plan says of an input ``(rows, …)``, by the names that it has in signals.

    Raises:
        TypeError: An extractor of somebody's own gives no mapping.
    """
    if part.extract is None:
        return array_numbers(part.input, array) if array.size and array.dtype.kind in "fiub" else {}
    return named(part.input, part.extract(array, part.look))


def named(prefix: str, found: object) -> dict[str, float]:
    """Return what an extractor gave as features ``prefix.name``; what is no finite number is left as NaN.

    Raises:
        TypeError: It gave no mapping.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"it gave {type(found).__name__}, not a mapping of names to numbers")
    if len(found) > MOST_FEATURES:
        raise TypeError(f"it gave {len(found)} features; {MOST_FEATURES} is the most")
    return {f"{prefix}.{name}": _number(value) for name, value in found.items()}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | np.integer | np.floating | np.bool_) else nan
