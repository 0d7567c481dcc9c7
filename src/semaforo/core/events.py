"""What goes into the two machines: frozen values, dated by the `now` that comes with them.

Payloads never appear here, only ids, counts, seconds and short words. Each event is small enough to be
journaled as it is. Times inside events are durations in seconds; absolute times are monotonic seconds of the
clock that also gives `now`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.state import History
from semaforo.entities import Profile, ReplicaView, Request


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    """A request stands at the door. It is answered by `Decided`, then exactly one `Finish`."""

    request: Request


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """What is predicted of candidate variants for one request, in answer to a `Score` effect.

    Attributes:
        request: Id of the request.
        gain: By variant: how much better (or worse, below 0) than usual it is likely to do on this request, in
            the task's metric, -1…1. What is usual is the core's to know; out of its domain a predictor says 0.
        trust: How far the request is in the domain of the predictor, 0…1.
        context: What the request looks like, where `Score` asks for it: features by name, of the order of 1, the
            same for the same request whenever and wherever it is asked.
        router: Which router says so; "" = it has no name.
        other: Another router, which looked at the request as well and does not decide; "" = none did.
        beside: As `gain`, by the other one.
    """

    request: str
    gain: dict[str, float]
    trust: float = 1.0
    context: dict[str, float] = {}
    router: str = ""
    other: str = ""
    beside: dict[str, float] = {}


WEAK = frozenset(("judge", "agreement"))
"""Sources of feedback beside which anybody else's still counts."""


class Feedback(msgspec.Struct, frozen=True, omit_defaults=True, tag="feedback"):
    """What an answer was worth.

    Attributes:
        request: Id of the request, which may have ended long ago.
        variant: Id of the variant that answered.
        score: 0…1, in the task's metric.
        weight: How many answers it counts as, above 0 and up to 1.
        source: Who says so: ``user``, ``label``, ``preference``, ``judge`` or ``agreement``.
        context: As `Scored` had it of the request; empty where nobody knows any more.
        gain: As `Scored` had it of the variant.
    """

    request: str
    variant: str
    score: float
    weight: float = 1.0
    source: str = "user"
    context: dict[str, float] = {}
    gain: float = 0.0


class Remembered(msgspec.Struct, frozen=True, tag="remembered"):
    """What was known before a restart.

    Attributes:
        history: By variant id.
        accounts: By the name of a budget's account: US dollars spent in its window, and seconds since that began.
    """

    history: dict[str, History]
    accounts: dict[str, tuple[float, float]] = {}


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """The client of a request (or of the parent of steps) went away."""

    request: str


class BatchDone(msgspec.Struct, frozen=True, tag="done"):
    """A batch, or a stream, ended well.

    Attributes:
        batch: Number given by the `Run` effect.
        service_s: Seconds the worker spent on it.
        prompt_tokens, output_tokens: Settled counts of a stream.
        failed: Members that failed alone (bad input): (request id, error code, message, seconds after which
            asking again may help, 0 = not said).
        cost: US dollars it cost, where that is not what its price and its time make; None = what they make.
    """

    batch: int
    service_s: float
    prompt_tokens: int = 0
    output_tokens: int = 0
    failed: tuple[tuple[str, str, str, float], ...] = ()
    cost: float | None = None


class BatchFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A batch ended badly as a whole.

    Attributes:
        batch: Number given by the `Run` effect.
        kind: ``error`` the model raised; ``crash`` the worker died or hung; ``invalid`` the input is at
            fault; ``cancelled`` it was stopped on request; ``upstream`` a remote service failed.
        message: For the caller.
        retry_after_s: Seconds the replica asks to be left alone; 0 = not said.
        output_tokens: What a stream had said until then.
    """

    batch: int
    kind: Literal["error", "crash", "invalid", "cancelled", "upstream"]
    message: str = ""
    retry_after_s: float = 0.0
    output_tokens: int = 0


class Busy(msgspec.Struct, frozen=True, tag="busy"):
    """The worker refused a batch because it is full; nothing was run."""

    batch: int
    retry_after_s: float = 0.0


class FirstChunk(msgspec.Struct, frozen=True, tag="first"):
    """The first chunk of a stream went to the client: it can no longer be retried silently."""

    batch: int


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """A stream has produced this many tokens so far; sent at most every 50 ms."""

    batch: int
    output_tokens: int


class Report(msgspec.Struct, frozen=True, tag="report"):
    """A worker's own word on its load.

    Attributes:
        replica: Which replica.
        free_in_s: Seconds until it expects a free slot, other gateways' work included.
        age_s: Seconds since the worker measured it.
    """

    replica: str
    free_in_s: float
    age_s: float = 0.0


class Limits(msgspec.Struct, frozen=True, tag="limits"):
    """What an upstream says of its limits; -1 = not said."""

    replica: str
    requests_left: int = -1
    tokens_left: int = -1
    reset_s: float = 0.0
    retry_after_s: float = 0.0


class ReplicaReady(msgspec.Struct, frozen=True, tag="ready"):
    """A replica is loaded, warm and reachable; `profile` is what its warm-up measured, if it did."""

    replica: ReplicaView
    profile: Profile | None = None


class ReplicaGone(msgspec.Struct, frozen=True, tag="gone"):
    """A replica died, hung or was stopped; whatever it ran is lost."""

    replica: str
    reason: str = ""


class DrainReplica(msgspec.Struct, frozen=True, tag="drain"):
    """Give a replica no new work; `Drained` follows when it is idle."""

    replica: str


class FleetChanged(msgspec.Struct, frozen=True, tag="fleet"):
    """The catalog as it is from now on."""

    catalog: Catalog


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """Time has reached `next_deadline()`."""


class ReplicaFailed(msgspec.Struct, frozen=True, tag="start_failed"):
    """A replica could not be started (controller)."""

    replica: str
    reason: str


class ReplicaStopped(msgspec.Struct, frozen=True, tag="stopped"):
    """A replica that was told to stop has stopped (controller)."""

    replica: str


class Scale(msgspec.Struct, frozen=True, tag="scale"):
    """The operator sets how many replicas a variant should have (controller)."""

    variant: str
    replicas: int


class LoadVariant(msgspec.Struct, frozen=True, tag="load"):
    """Put a variant in service with its configured least number of replicas (controller)."""

    variant: str


class UnloadVariant(msgspec.Struct, frozen=True, tag="unload"):
    """Drain and stop all replicas of a variant (controller)."""

    variant: str


class Load(msgspec.Struct, frozen=True, tag="load_report"):
    """How loaded each variant has been since the last such event (controller).

    Attributes:
        waiting_rows: Rows waiting that the variant could serve, by variant id.
        busy: Share (0…1) of slot-time in use, by variant id.
    """

    waiting_rows: dict[str, int]
    busy: dict[str, float]


DispatcherEvent = (
    Arrived | Scored | Feedback | Remembered | Cancelled | BatchDone | BatchFailed | Busy | FirstChunk | Progress
    | Report | Limits | ReplicaReady | ReplicaGone | DrainReplica | FleetChanged | Tick
)  # fmt: skip
ControllerEvent = (
    FleetChanged | ReplicaReady | ReplicaFailed | ReplicaGone | ReplicaStopped | Scale | LoadVariant
    | UnloadVariant | DrainReplica | Load | Tick
)  # fmt: skip
