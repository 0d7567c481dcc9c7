"""How OpenAI's protocol offers a tensor task: the tensors of agreed names that its routes read and write.

Rules this module keeps:

1. A task with an interface is an ordinary tensor task: what is agreed are names, dtypes and numbers of
   dimensions, never how the task is scheduled.
2. The one input that is not optional is what is asked about, whatever its name.
3. The output is the one of the agreed name; where none has it, the only one that is no extra.
4. An extra is an output that a task may declare to have more said; each has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from semaforo.entities.task import TaskType
from semaforo.entities.tensor import TensorSpec

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence",
    "violence/graphic",
)  # fmt: skip
"""What OpenAI's moderation scores, where a task names no categories of its own."""

_FLOATS = ("FP32", "FP16", "FP64")
_INTEGERS = ("INT64", "INT32")


class Interface(msgspec.Struct, frozen=True):
    """What an interface agrees on.

    Attributes:
        input: What is asked about, one row each.
        output: The answer.
        extras: Further outputs that a task may declare: ``tokens`` counts the tokens of a row, ``flagged`` and
            ``categories`` are the model's own verdicts, ``details`` is a JSON object with what is known of a
            transcription beside its text: ``language``, ``duration`` (seconds), ``segments``, ``words``.
    """

    input: TensorSpec
    output: TensorSpec
    extras: tuple[TensorSpec, ...] = ()


INTERFACES: dict[str, Interface] = {
    "embedding": Interface(
        TensorSpec("input", "BYTES"), TensorSpec("embedding", "FP32", (-1,)), (TensorSpec("tokens", "INT64"),)
    ),
    "moderation": Interface(
        TensorSpec("input", "BYTES"),
        TensorSpec("scores", "FP32", (len(CATEGORIES),), labels=CATEGORIES),
        (
            TensorSpec("flagged", "BOOL"),
            TensorSpec("categories", "BOOL", (len(CATEGORIES),), labels=CATEGORIES),
        ),
    ),
    "transcription": Interface(
        TensorSpec("audio", "BYTES"), TensorSpec("text", "BYTES"), (TensorSpec("details", "BYTES"),)
    ),
}


class Roles(msgspec.Struct, frozen=True):
    """Which tensors of a task are what.

    Attributes:
        input: Spec of the input.
        output: Spec of the answer.
        extras: Names of the extras that the task declares.
    """

    input: TensorSpec
    output: TensorSpec
    extras: frozenset[str] = frozenset()


def roles(task: TaskType) -> Roles:
    """Return which tensors of a task with an interface are what; `misfits` has found it fitting."""
    agreed = INTERFACES[task.interface]
    asked = next(spec for spec in task.inputs if not spec.optional)
    extras = frozenset(spec.name for spec in agreed.extras)
    answer = _answer(agreed, task.outputs)
    return Roles(asked, answer[0], extras & {spec.name for spec in task.outputs})


def misfits(interface: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[str]:
    """Say in what tensors differ from what an interface agrees on; nothing where they fit."""
    agreed = INTERFACES[interface]
    found: list[str] = []
    asked = [spec for spec in inputs if not spec.optional]
    if len(asked) != 1 or not _fits(asked[0], agreed.input):
        found.append(f"inputs: takes {_listed(asked)}, and {interface} takes one: {agreed.input}")
    answer = _answer(agreed, outputs)
    if len(answer) != 1 or not _fits(answer[0], agreed.output):
        found.append(f"outputs: gives {_listed(outputs)}, and {interface} gives {agreed.output}")
    elif agreed.output.labels and not answer[0].labels:
        found.append(f"outputs.{answer[0].name}: has no labels: name the categories that it scores")
    known = {spec.name: spec for spec in agreed.extras}
    for spec in outputs:
        if spec.name in known and not _fits(spec, known[spec.name]):
            found.append(f"outputs.{spec.name}: is {spec}, and {interface} gives {known[spec.name]}")
    return found


def _answer(agreed: Interface, outputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    named = [spec for spec in outputs if spec.name == agreed.output.name]
    extras = {spec.name for spec in agreed.extras}
    return named or [spec for spec in outputs if spec.name not in extras]


def _fits(spec: TensorSpec, wanted: TensorSpec) -> bool:
    alike = next((kinds for kinds in (_FLOATS, _INTEGERS) if wanted.dtype in kinds), (wanted.dtype,))
    return spec.dtype in alike and len(spec.shape) == len(wanted.shape)


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs) or "nothing"
