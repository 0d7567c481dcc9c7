"""One vertex of a graph of models, as the scheduler sees it."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """Places a request inside a larger one.

    Attributes:
        parent: Id of the request that caused this one; cancelling the parent cancels the step.
        name: Name of the step in its graph.
        deadline_at: Absolute deadline (monotonic seconds) inherited from the parent; None = none.
    """

    parent: str
    name: str = ""
    deadline_at: float | None = None


class RemainingPath(msgspec.Struct, frozen=True, omit_defaults=True):
    """What still has to run after a step before the whole graph can answer.

    Attributes:
        seconds: Predicted seconds on the longest remaining path after this step.
    """

    seconds: float = 0.0
