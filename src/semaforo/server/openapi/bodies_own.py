"""Bodies of Semaforo's own routes, as the description shows them.

Nothing is decoded by these types: they say what is taken and given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


class Deferred(msgspec.Struct):
    """How a queued request stands."""

    id: str
    status: Literal["queued", "running", "done", "failed", "expired", "cancelled"]


class Learned(msgspec.Struct):
    """What was learned from feedback: one entry for each answer that it judges."""

    learned: list[dict[str, Any]]


class Qualities(msgspec.Struct):
    """What is known of every variant: quality, latency, cost, and how far requests have drifted."""

    variants: list[dict[str, Any]]


class FrontierOfTask(msgspec.Struct):
    """What quality can be had at which cost in a task, where the fleet stands, and what its goal aims at."""

    task: str
    variants: list[dict[str, Any]]
    mixing: list[dict[str, Any]]
    now: dict[str, Any] | None
    aim: dict[str, Any] | None


class Frontiers(msgspec.Struct):
    """The frontiers of tasks."""

    tasks: list[FrontierOfTask]


class RouterOfTask(msgspec.Struct):
    """The routers of a task: in service, tried, on the shelf; `tryout` has the verdict on the candidate."""

    task: str
    in_service: dict[str, Any]
    candidate: dict[str, Any] | None
    before: dict[str, Any] | None
    share: float
    shadow: bool
    margin: float
    promote: Literal["by hand", "auto"]
    tryout: dict[str, Any] | None
    versions: list[dict[str, Any]]
    ended: list[dict[str, Any]]


class Routers(msgspec.Struct):
    """The routers of all tasks that have one."""

    routers: list[RouterOfTask]


class Scale(msgspec.Struct):
    """How many replicas a variant is to have."""

    replicas: Annotated[int, Meta(ge=0, le=1024)]


class Scaled(msgspec.Struct):
    """The variant's replicas now."""

    variant: str
    replicas: list[dict[str, Any]]


class Drained(msgspec.Struct):
    """A replica that gets no more work."""

    replica: str
    state: str


class Fleet(msgspec.Struct):
    """Everything that may be served, and what serves it now."""

    tasks: list[dict[str, Any]]
    aliases: dict[str, str]
    models: list[dict[str, Any]]


class Figures(msgspec.Struct):
    """Counters since the start, and what is going on now."""

    now_s: float
    uptime_s: float
    process: dict[str, Any]
    arrived: int
    outcomes: dict[str, int]
    moves: dict[str, int]
    latency_bounds_s: list[float]
    looks: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    variants: list[dict[str, Any]]
    replicas: list[dict[str, Any]]


class Decisions(msgspec.Struct):
    """The latest decisions, newest first."""

    decisions: list[dict[str, Any]]


class Decision(msgspec.Struct):
    """One decision, in full and as text."""

    id: str
    text: str


class Decided(msgspec.Struct):
    """What was considered, and what would be picked."""

    request: str
    task: str
    considered: list[dict[str, Any]]
    pick: str
    replica: str
    reason: str
