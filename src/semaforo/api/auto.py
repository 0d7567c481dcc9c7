"""Values for a target that is not named, as a client sends them: in the form that the tasks they fit agree on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from semaforo.api.inputs import tensors_of
from semaforo.entities import Ref, TaskType
from semaforo.errors import InvalidRequest
from semaforo.wire.payload import Tensors

_Fit = tuple[Tensors, Ref, bool]


def fitting(tasks: Sequence[TaskType], values: Mapping[str, Any]) -> tuple[TaskType, _Fit]:
    """Return a task that the values fit, and them in its form; the server tells those of one form apart.

    Raises:
        InvalidRequest: They fit none, or would be sent in several forms.
    """
    forms = {_form(fit): (task, fit) for task, fit in reversed(fits(tasks, values))}
    if not forms:
        raise InvalidRequest("no task takes such inputs: name the task, or send what one of them takes")
    if len(forms) > 1:
        names = ", ".join(found[0].name for found in forms.values())
        raise InvalidRequest(
            f"several tasks take this, each in a form of its own: name one, or give arrays of its types ({names})"
        )
    return next(iter(forms.values()))


def fits(tasks: Iterable[TaskType], values: Mapping[str, Any]) -> list[tuple[TaskType, _Fit]]:
    """Return the tasks that values fit, and them in the form of each.

    An array says of which type it is: where some tasks take that, those that take another one are left out.
    """
    fit: list[tuple[TaskType, _Fit]] = []
    for task in tasks:
        with suppress(InvalidRequest):
            fit.append((task, tensors_of(task, values)))
    return [found for found in fit if _as_given(found[1][0], values)] or fit


def _form(fit: _Fit) -> tuple[object, ...]:
    tensors, _, single = fit
    return single, *((name, a.dtype.str, a.shape) for name, a in sorted(tensors.arrays.items()))


def _as_given(tensors: Tensors, values: Mapping[str, Any]) -> bool:
    return all(
        not isinstance(value, np.ndarray | np.generic) or value.dtype == tensors.arrays[name].dtype
        for name, value in values.items()
    )
