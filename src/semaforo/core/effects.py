"""What comes out of the two machines: frozen values for a driver to act on, in order."""

from __future__ import annotations

from typing import Literal

import msgspec

from semaforo.entities import ReplicaSpec

Outcome = Literal["done", "failed", "shed", "expired", "cancelled", "refused"]


class Considered(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One variant as the router saw it: ruled out by a filter, or scored.

    Attributes:
        variant: Id of the variant.
        ruled_out: Name of the filter that ruled it out, or "".
        detail: For example ``0.93 < 0.95``.
        score: Utility, 0…1.
        predicted_s: Predicted seconds from now to the answer.
        quality: Quality the router used.
        cost: Predicted US dollars.
        free: Whether a replica could take it at once.
        assumed: Nobody measured the quality: it is what the router assumes then.
    """

    variant: str
    ruled_out: str = ""
    detail: str = ""
    score: float = 0.0
    predicted_s: float = 0.0
    quality: float = 0.0
    cost: float = 0.0
    free: bool = False
    assumed: bool = False


class Spoke(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Which trained router decided on a request, and what another one that looked at it would have done.

    Attributes:
        router: The one that decided.
        pick: Variant that it took to be best when it was heard; "" = not noted.
        other: The other one; "" = there was none.
        beside: Variant that the other one would have picked then; "" = none.
    """

    router: str
    pick: str = ""
    other: str = ""
    beside: str = ""


class Decided(msgspec.Struct, frozen=True, omit_defaults=True, tag="decided", gc=False):
    """Why a request went where it went, or waits, or was refused. Sent again when it moves.

    Attributes:
        request: Id of the request.
        task: Task type.
        considered: Every variant that serves the target.
        pick: Variant chosen, "" while it waits or when it is refused.
        replica: Replica chosen, "" while it waits or when it is refused.
        reason: ``best score``, ``waits``, ``pressure``, ``batched``, ``retry``, ``hedge``, or why it was refused.
        rows_ahead: Rows that were in front of it.
        move: 0 for the first binding, one more for each further one.
        propensity: Probability with which this variant was picked; below 1 where the task explores.
        shadow: Variant that a copy is to be asked of, for the sake of learning; "" = none.
        trust: In what was predicted for this request by a trained router; 0 = nothing was.
        learned: Its qualities are as learned from requests that were like it.
        spoke: Which router that was; None = none has a name.
    """

    request: str
    task: str
    considered: tuple[Considered, ...] = ()
    pick: str = ""
    replica: str = ""
    reason: str = ""
    rows_ahead: int = 0
    move: int = 0
    propensity: float = 1.0
    shadow: str = ""
    trust: float = 0.0
    learned: bool = False
    spoke: Spoke | None = None


class Score(msgspec.Struct, frozen=True, tag="score"):
    """Ask the driver for predicted qualities; `Scored` answers, or the deadline `by` passes.

    Attributes:
        request: Id of the request.
        candidates: Variants that may answer it.
        by: Absolute second.
        context: Whether it is to be said what the request looks like, too.
    """

    request: str
    candidates: tuple[str, ...]
    by: float
    context: bool = False


class Believed(msgspec.Struct, frozen=True, tag="believed"):
    """A variant is believed to be of another quality from now on.

    Attributes:
        variant: Id of the variant.
        quality, before: 0…1, now and until now.
        given: Scores that it rests on or has rested on.
        changed: It changed of a sudden: what was known before is forgotten.
    """

    variant: str
    quality: float
    before: float
    given: int
    changed: bool = False


class Run(msgspec.Struct, frozen=True, tag="run", gc=False):
    """Run these members as one batch (or one stream) on a replica.

    Attributes:
        batch: Number of the batch; events about it carry it back.
        replica: Where.
        members: Ids of the requests, in row order.
        rows: Rows in all.
        deadline: Earliest absolute deadline of the members; None = none.
    """

    batch: int
    replica: str
    members: tuple[str, ...]
    rows: int
    deadline: float | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody wants this batch any more: stop it if that is possible."""

    batch: int
    replica: str


class Finish(msgspec.Struct, frozen=True, omit_defaults=True, tag="finish", gc=False):
    """The one terminal answer of a request.

    Attributes:
        request: Id of the request.
        outcome: How it ended; ``refused`` was never admitted.
        batch: Batch that holds the result when `outcome` is ``done``.
        variant, replica: Who served it.
        code, message: Error code and text for the caller when it is not ``done``.
        retry_after_s: Seconds after which trying again may help; 0 = waiting will not help.
        waited_s: Seconds from arrival to the last binding.
        total_s: Seconds from arrival to this answer.
        cost: US dollars it cost, with attempts that were charged for and gave no answer.
    """

    request: str
    outcome: Outcome
    batch: int = 0
    variant: str = ""
    replica: str = ""
    code: str = ""
    message: str = ""
    retry_after_s: float = 0.0
    waited_s: float = 0.0
    total_s: float = 0.0
    cost: float = 0.0


class Release(msgspec.Struct, frozen=True, tag="release", gc=False):
    """No attempt needs this request's payload any more: free it."""

    request: str


class Ejected(msgspec.Struct, frozen=True, tag="ejected"):
    """A replica gets no work for a while because it fails or lags."""

    replica: str
    reason: str
    for_s: float


class Restored(msgspec.Struct, frozen=True, tag="restored"):
    """An ejected replica is back at full weight."""

    replica: str


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """A draining replica is idle."""

    replica: str


class StartReplica(msgspec.Struct, frozen=True, tag="start"):
    """Start this replica (controller)."""

    spec: ReplicaSpec


class StopReplica(msgspec.Struct, frozen=True, tag="stop"):
    """Drain this replica, then stop it (controller)."""

    replica: str


DispatcherEffect = Decided | Score | Believed | Run | Cancel | Finish | Release | Ejected | Restored | Drained
ControllerEffect = StartReplica | StopReplica
