"""The contract of a batch as far as a model that is served elsewhere can make use of it."""

from __future__ import annotations

from contextvars import ContextVar

import msgspec

from semaforo.entities import Priority


class Handed(msgspec.Struct, frozen=True):
    """What is handed on with a batch.

    Attributes:
        deadline_at: Earliest deadline of its members, in monotonic seconds; None = none.
        priority: Highest class among them.
        traceparent: W3C trace context of a batch of one member, "" = none.
    """

    deadline_at: float | None = None
    priority: Priority = Priority.NORMAL
    traceparent: str = ""


NOTHING = Handed()
HANDED: ContextVar[Handed | None] = ContextVar("semaforo_handed", default=None)
"""Set for the task that runs a batch."""
