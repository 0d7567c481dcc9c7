"""The dispatcher's state: plain structs, lists and dicts that serialise as they stand.

Rules this module keeps:

1. Everything that a later decision depends on is in `State`; whatever else the dispatcher holds (plans, direct
   references) can be rebuilt from it at any moment without changing a decision.
2. Structs refer to each other by id, so a snapshot is one encoding of `State`, and floats survive it exactly.
3. A float stays a float: a whole number that came in for one is turned into one where it enters, since a snapshot
   or a journal gives it back as a float, and a digest of effects tells them apart.
4. Order never depends on hashing or memory: ties are broken by `State.seq`, which only grows.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Spoke
from semaforo.entities import Profile, Request, Variant
from semaforo.policy.bandit import Guess, Ridge
from semaforo.policy.batch import Fit
from semaforo.policy.budget import Account
from semaforo.policy.pace import Pace
from semaforo.policy.posterior import Posterior

CLASSES = 4
MEAN_OF = 200.0


class Phase(IntEnum):
    """Where a live request stands."""

    WAITING = 0
    RUNNING = 1
    SCORING = 2


class Timer(IntEnum):
    """What a timer is for."""

    DEADLINE = 0
    PRESS = 1
    REPLICA = 2
    HEDGE = 3
    SCORE = 4
    READY = 5


class Job(msgspec.Struct):
    """A live request.

    Attributes:
        request: As it arrived.
        seq: Order of arrival.
        arrived, deadline: Absolute seconds; the deadline is infinite where there is none.
        due: What the queue sorts by: the deadline, or a stand-in for requests without one.
        task, lane, klass, rows: Where it queues, and how much it is.
        tokens: Predicted prompt plus output tokens of a stream.
        phase: Waiting, running or waiting for scores.
        press_at: When its patience with the open variants ends; infinite = never.
        attempts: Times it was run and failed.
        moves: Times it was bound.
        avoid: Replica that failed it last.
        solo: Run it alone, because a batch it was in failed.
        batch, hedge: Numbers of its running batches; 0 = none.
        bound_at: When it was last bound; negative while it is not.
        started: A chunk of its stream has gone out.
        gain: By variant, how much better than usual it is predicted to do, from `Scored` and from `guesses`.
        trust: In what `Scored` said, 0…1.
        guesses: By variant, what was learned from requests that were like it.
        spoke: Which router `Scored` is of.
        reserved: US dollars it holds in each of its `accounts`.
        paid: US dollars that attempts have cost which gave no answer.
    """

    request: Request
    seq: int
    arrived: float
    deadline: float
    due: float
    task: str
    lane: int
    klass: int
    rows: int
    tokens: float = 0.0
    phase: int = 0
    press_at: float = float("inf")
    attempts: int = 0
    moves: int = 0
    avoid: str = ""
    solo: bool = False
    batch: int = 0
    hedge: int = 0
    bound_at: float = -1.0
    started: bool = False
    gain: dict[str, float] = {}
    trust: float = 0.0
    guesses: dict[str, Guess] = {}
    spoke: Spoke | None = None
    reserved: float = 0.0
    accounts: tuple[str, ...] = ()
    paid: float = 0.0


class Orphan(msgspec.Struct):
    """A request that has its answer while batches still run it; what they cost is paid when they end.

    Attributes:
        batches: How many still run.
        rows, prompt_tokens: Of the request.
        reserved: US dollars it still holds in each of its `accounts`.
    """

    batches: int
    rows: int
    prompt_tokens: int
    reserved: float = 0.0
    accounts: tuple[str, ...] = ()


class Lane(msgspec.Struct):
    """Requests that the same variants may serve, and that may share a batch."""

    id: int
    task: str
    open: tuple[str, ...]
    reserve: tuple[str, ...]
    shape: str
    rows: int = 0


Entry = tuple[float, int, str]
"""(due, seq, request id): what queues hold, in order."""


class TenantQueue(msgspec.Struct):
    """One tenant's waiting requests of one class, by lane; each list is sorted."""

    virtual: float
    rows: int = 0
    lanes: dict[int, list[Entry]] = {}


class ClassQueue(msgspec.Struct):
    """One class of one task. `clock` is the virtual time of the tenant served last."""

    clock: float = 0.0
    tenants: dict[str, TenantQueue] = {}


class TaskQueue(msgspec.Struct):
    """All waiting requests of one task type.

    Attributes:
        rows: Waiting rows by class.
        debts: Rows owed to each class (see `policy.shares`).
        classes: Queues by class.
        arrival_rate: Decayed rows per second arriving, by class.
        arrived_at: When each rate was last brought up to date.
        retries: Retry budget, in requests.
    """

    rows: list[int]
    debts: list[float]
    classes: list[ClassQueue]
    arrival_rate: list[float]
    arrived_at: list[float]
    retries: float


class VariantBook(msgspec.Struct):
    """What is known of one variant while it serves.

    Attributes:
        fit: Online service-time line (batch variants), hand-over included: for predictions.
        work: The same of what workers report, without hand-over: for the size of batches, since what a batch
            handed over ahead hides is no reason to make batches larger.
        first_scale, token_scale: Observed over profiled time (stream variants).
        output_tokens: Decayed mean output length.
        stream_s: Decayed mean seconds of a whole stream.
        ready, slots: Ready replicas and their slots.
        idle: Index of replicas with a free slot: heap of (key, seq, replica, version of the entry).
        busy: Heap of (expected end, batch) of running work, some of it ended already.
        lanes: Ids of the lanes with waiting work that it may serve, in the order in which they filled.
        expected_until: A lost replica is expected back until then.
    """

    fit: Fit
    task: str
    first_scale: float = 1.0
    token_scale: float = 1.0
    output_tokens: float = 256.0
    stream_s: float = 0.0
    ready: int = 0
    slots: int = 0
    idle: list[tuple[float, int, str, int]] = []
    busy: list[tuple[float, int]] = []
    lanes: list[int] = []
    expected_until: float = 0.0
    work: Fit = msgspec.field(default_factory=Fit)


class Mean(msgspec.Struct):
    """A mean over the latest answers, about `MEAN_OF` of them."""

    value: float = 0.0
    count: float = 0.0

    def add(self, value: float) -> None:
        """Take in one value."""
        if self.count < MEAN_OF:
            self.count += 1.0
        self.value += (value - self.value) / self.count


class History(msgspec.Struct):
    """What a variant has shown itself to be worth.

    Attributes:
        quality: What is believed of it; None before the first feedback.
        latency: Seconds from arrival to answer while nothing waited for its task, up to 8 rows, up to 64, more.
        cost: US dollars of an answer.
        dearness: Of a graph, whose steps pay: US dollars of a row. Of what is paid by device time: what answers
            have cost over what the profile says.
        planned: The `dearness` that plans rest on; None while too few answers were given lately.
        asked: When it last answered, absolute seconds.
        ridge: How its quality depends on what a request looks like; None before the first feedback that knew.
    """

    quality: Posterior | None = None
    latency: tuple[Mean, Mean, Mean, Mean] = msgspec.field(
        default_factory=lambda: (Mean(), Mean(), Mean(), Mean())
    )
    cost: Mean = msgspec.field(default_factory=Mean)
    dearness: Mean = msgspec.field(default_factory=Mean)
    planned: float | None = None
    asked: float = 0.0
    ridge: Ridge | None = None


class ReplicaBook(msgspec.Struct):
    """What is known of one replica.

    Attributes:
        variant, device, slots, exclusive, shared, max_rows, ahead: As in `ReplicaView`.
        index: Version of its entry in the idle index; an entry with another version is void.
        in_flight, rows, tokens: Batches, rows and predicted tokens it runs.
        speed: Decayed ratio of observed to predicted time; 1 = as predicted.
        samples: Batches it has ended.
        failures, ejections: Failures in a row; ejections so far (healed by good work).
        away_until: Ejected or blocked until then; 0 = available.
        ejected: `away_until` is an ejection, so it returns on a ramp.
        draining: Gets no new work.
        ramp: Most rows while it returns from an ejection; 0 = no limit.
        free_at, reported_at: What its worker last said, absolute seconds.
        batch: The batch it runs, where it runs one at a time.
        next_batch: The batch that was handed over while that one runs; 0 = none.
    """

    variant: str
    device: str
    slots: int
    exclusive: bool
    shared: bool
    max_rows: int = 0
    index: int = 0
    in_flight: int = 0
    rows: int = 0
    tokens: float = 0.0
    speed: float = 1.0
    samples: int = 0
    failures: int = 0
    ejections: int = 0
    away_until: float = 0.0
    ejected: bool = False
    draining: bool = False
    ramp: int = 0
    free_at: float = 0.0
    reported_at: float = 0.0
    ahead: bool = False
    batch: int = 0
    next_batch: int = 0


class Batch(msgspec.Struct):
    """Work that runs on a replica.

    `started` is a prediction for a batch that was handed over ahead, until the one before it ends; `followed`
    tells that such a batch waits behind this one.
    """

    replica: str
    variant: str
    members: tuple[str, ...]
    rows: int
    started: float
    expected_s: float
    tokens: float = 0.0
    first_at: float = 0.0
    hedge: bool = False
    cancelled: bool = False
    followed: bool = False


class State(msgspec.Struct):
    """Everything.

    `chance` is the state of the random generator, `measured` what was measured of variants at load, `swept` when
    what answers had cost was last looked through for what is out of date.
    """

    seq: int = 0
    chance: int = 0x9E3779B97F4A7C15
    catalog: Catalog = msgspec.field(default_factory=Catalog)
    measured: dict[str, Profile] = {}
    jobs: dict[str, Job] = {}
    children: dict[str, list[str]] = {}
    orphans: dict[str, Orphan] = {}
    lanes: dict[int, Lane] = {}
    queues: dict[str, TaskQueue] = {}
    variants: dict[str, VariantBook] = {}
    history: dict[str, History] = {}
    accounts: dict[str, Account] = {}
    paces: dict[str, Pace] = {}
    swept: float = 0.0
    replicas: dict[str, ReplicaBook] = {}
    batches: dict[int, Batch] = {}
    turns: dict[str, str] = {}
    devices: dict[str, list[str]] = {}
    affinity: dict[str, str] = {}
    timers: list[tuple[float, int, int, str]] = []

    def believed(self, variant: Variant) -> float | None:
        """Return the quality (0…1) decisions use: what feedback has shown, else what was measured, else None."""
        history = self.history.get(variant.id)
        return variant.quality if history is None or history.quality is None else history.quality.shown

    def next_seq(self) -> int:
        """Return the next number in order; it breaks every tie."""
        self.seq += 1
        return self.seq


def new_queue(now: float, retries: float) -> TaskQueue:
    """Return an empty queue."""
    return TaskQueue(
        rows=[0] * CLASSES,
        debts=[0.0] * CLASSES,
        classes=[ClassQueue() for _ in range(CLASSES)],
        arrival_rate=[0.0] * CLASSES,
        arrived_at=[now] * CLASSES,
        retries=retries,
    )


ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(State)
