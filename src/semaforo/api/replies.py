"""What a client reads of the JSON that a server answers with; the rest of it is left unread."""

from __future__ import annotations

import msgspec

from semaforo.entities import TaskType
from semaforo.live.crew import ReplicaStatus


class Standing(msgspec.Struct):
    """How a queued request stands."""

    status: str


class Finish(msgspec.Struct):
    """How a request ended."""

    cost: float = 0.0


class Told(msgspec.Struct):
    """An explanation."""

    text: str
    finish: Finish | None = None


class StepOf(msgspec.Struct):
    """The request that a step belongs to."""

    parent: str


class Asked(msgspec.Struct):
    """What was asked, and for which request, where it is a step of one."""

    step: StepOf | None = None


class Decision(msgspec.Struct):
    """A request, by its id."""

    id: str
    request: Asked = msgspec.field(default_factory=Asked)


class Decisions(msgspec.Struct):
    """The latest decisions."""

    decisions: list[Decision]


class Names(msgspec.Struct):
    """Every name that can be asked for."""

    models: list[str]


class Variant(msgspec.Struct):
    """A variant with its replicas."""

    replicas: list[ReplicaStatus]


class Version(msgspec.Struct):
    """A version with its variants."""

    variants: list[Variant]


class Model(msgspec.Struct):
    """A model with its versions."""

    versions: list[Version]


class Fleet(msgspec.Struct):
    """Everything that may be served."""

    tasks: list[TaskType]
    models: list[Model]
