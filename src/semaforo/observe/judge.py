"""What an answer is worth once its right answer is known: 0…1, in the words of the task's outputs.

Which output a label without a name judges: the first of whole numbers, words or truth values; where there is
none, the best-scored class of the first output that scores classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from semaforo.entities import TaskType
from semaforo.errors import InvalidRequest, nearest
from semaforo.wire.payload import Array

_WHOLE = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "BYTES")


def label_score(task: TaskType, outputs: Mapping[str, Array], label: Any) -> float:
    """Return the share of rows (0…1) that were answered rightly.

    Args:
        task: The task that was asked.
        outputs: The answer, in the task's names.
        label: The right answer: a value or a list of one for each row; or a mapping from an output to that.

    Raises:
        InvalidRequest: The label does not fit the answer, or the output can only be scored.
    """
    if isinstance(label, Mapping):
        if len(label) != 1:
            raise InvalidRequest(f"a label names one output, this one {len(label)}")
        ((name, truth),) = label.items()
    else:
        name, truth = _judged(task), label
    if name not in outputs:
        raise InvalidRequest(
            f"the answer has no output '{name}'; it has {', '.join(outputs)}.{nearest(str(name), outputs)}"
        )
    said = outputs[name]
    if said.dtype.kind == "f":
        if said.ndim < 2 or said.shape[-1] < 2:
            raise InvalidRequest(
                f"'{name}' is a number, of which a label tells no score: give a score instead"
            )
        said = said.argmax(axis=-1)
    said = said.reshape(len(said), -1)
    right = truth if isinstance(truth, list) else [truth]
    if (strange := next((v for v in _values(right) if not _comparable(said, v)), None)) is not None:
        kind = "a text" if said.dtype.kind in "OSU" else "a number"
        raise InvalidRequest(
            f"'{name}' is {kind}, which a label of {strange!r} cannot be: give the label as the answer has it"
        )
    if len(right) != len(said):
        raise InvalidRequest(f"the label has {len(right)} rows, the answer {len(said)}")
    return float(np.mean([_same(a, b) for a, b in zip(said, right, strict=True)]))


def agreement(task: TaskType, given: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """Return the share of rows (0…1) in which another answer says the same as the one that was given.

    Raises:
        InvalidRequest: The answers cannot be compared.
    """
    said = given.get(_judged(task))
    if said is None:
        raise InvalidRequest("the answer lacks the output that is compared")
    if said.dtype.kind == "f":
        said = said.argmax(axis=-1)
    return label_score(task, other, {_judged(task): said.tolist()})


def _judged(task: TaskType) -> str:
    for spec in task.outputs:
        if spec.dtype in _WHOLE:
            return spec.name
    for spec in task.outputs:
        if spec.shape and spec.shape[-1] > 1:
            return spec.name
    raise InvalidRequest(f"no output of '{task.name}' can be compared with a label: give a score instead")


def _values(right: list[Any]) -> Iterator[Any]:
    for one in right:
        yield from one if isinstance(one, list) else (one,)


def _comparable(said: Array, right: Any) -> bool:
    if said.dtype.kind in "OSU":
        return isinstance(right, str | bytes)
    return isinstance(right, bool | int | float | np.bool_ | np.number)


def _same(said: Array, right: Any) -> bool:
    wanted = right if isinstance(right, list) else [right]
    given = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in said.tolist()]
    return given == [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in wanted]
