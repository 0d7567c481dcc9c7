"""Random fleets, requests and events, drawn from any generator: a seeded one, or Hypothesis's own."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from fleets import Rig, ask, chat, fleet, variant
from semaforo.catalog.state import Catalog
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Busy,
    Cancelled,
    DispatcherEvent,
    DrainReplica,
    Feedback,
    FirstChunk,
    FleetChanged,
    Limits,
    Progress,
    Remembered,
    ReplicaGone,
    ReplicaReady,
    Report,
    Scored,
)
from semaforo.core.state import History
from semaforo.entities import (
    BatchProfile,
    Cost,
    Exploration,
    Preference,
    Priority,
    Privacy,
    ReplicaView,
    Request,
    Step,
    StreamProfile,
    TaskType,
    TensorSpec,
    Variant,
)
from semaforo.policy import bandit, posterior

SHAPES = ("", "x:FP32:4", "x:FP32:8")
PREFERENCES = (Preference(), Preference(), Preference(goal="cost"), Preference(goal="quality"))


def random_variants(rng: Random) -> list[Variant]:
    """Draw the variants of a fleet: two tensor tasks and one of chat."""
    found: list[Variant] = []
    for model in range(rng.randint(1, 4)):
        task = "t" if model < 2 else "u"
        for name in rng.sample(("fp32", "int8"), rng.randint(1, 2)):
            metered = rng.random() < 0.1
            found.append(
                variant(
                    f"m{model}",
                    task=task,
                    name=name,
                    version=rng.choice(("1", "1", "2")),
                    base=rng.choice((0.0, 0.001, 0.01)),
                    row=rng.choice((0.0, 0.001, 0.01)),
                    quality=rng.choice((None, 0.7, 0.9, 0.95)),
                    cost=Cost(request=1e-4) if metered else Cost(second=rng.choice((0.0, 1e-3))),
                    max_rows=rng.choice((1, 4, 16)),
                    sees=rng.choice((Privacy.PUBLIC, Privacy.SITE, Privacy.SITE, Privacy.SITE)),
                    inputs=rng.choice(
                        ((), (), (), (TensorSpec("x", "FP32", (-1,)),), (TensorSpec("x", "FP32", (4,)),))
                    ),
                    capabilities=rng.choice(((), ("tools",))),
                )
            )
    if rng.random() < 0.4:
        slots = rng.randint(1, 3)
        profile = StreamProfile(0.01, 0.0001, 0.001, slots=slots, tokens=rng.choice((0, 200)))
        found.append(
            chat("l", profile=profile, context=rng.choice((0, 150)), sees=rng.choice(tuple(Privacy)))
        )
    return found


EXPLORATIONS = tuple(
    Exploration(share, loss, shadow, by)
    for by in ("epsilon", "linucb", "thompson")
    for share, loss, shadow in ((0.1, 0.1, 0.0), (0.5, 1.0, 0.2))
)


def aside(rng: Random) -> Random:
    """Return chance that leaves that of a seed as it is, so that what else is drawn stays the same."""
    if type(rng) is not Random:
        # Hypothesis': it has no seed.
        return rng
    other = Random()
    other.setstate(rng.getstate())
    return other


def random_context(rng: Random) -> dict[str, float]:
    """Draw what a request looks like: nothing is known of half, the others mostly have the same few features."""
    rng = aside(rng)
    if rng.random() < 0.5:
        return {}
    found = {name: rng.uniform(-1.0, 1.0) for name in ("a", "b", "c")}
    if rng.random() < 0.1:
        found[f"f{rng.randrange(9)}"] = rng.choice((0.0, 1.0, 50.0))
    return found


def random_fleet(rng: Random, variants: list[Variant] | None = None) -> Catalog:
    """Draw a catalog."""
    tasks = [
        TaskType(
            name,
            kind="chat" if name == "c" else "tensor",
            prefer=rng.choice(PREFERENCES),
            deadline_s=rng.choice((None, None, 0.5)),
            max_queue_rows=rng.choice((6, 20, 200)),
            hedge=rng.choice((0.0, 2.0)),
            score_s=rng.choice((0.0, 0.0, 0.005)),
            explore=aside(rng).choice((Exploration(), Exploration(), *EXPLORATIONS)),
        )
        for name in ("t", "u", "c")
    ]
    aliases = {"it": rng.choice(("m0", "t", "m1"))}
    service = {"m0": "1"} if rng.random() < 0.2 else {}
    return fleet(*(variants or random_variants(rng)), tasks=tasks, aliases=aliases, in_service=service)


def random_request(rng: Random, rid: str, parents: list[str]) -> Request:
    """Draw a request. Most are plain; some ask for much, and a few for things that do not exist."""

    def rarely(*values: Any, usual: Any = "", share: float = 0.1) -> Any:
        return rng.choice(values) if rng.random() < share else usual

    streams = rng.random() < 0.1
    target = rarely("u", "m0", "m1", "it", "nothing", usual="t", share=0.2)
    step = None
    if parents and rng.random() < 0.1:
        step = Step(rng.choice(parents), deadline_at=rng.choice((None, None, 5.0)))
    return ask(
        rid,
        "c" if streams else target,
        rows=1 if streams else rarely(2, 5, 20, usual=1, share=0.3),
        shape="" if streams else rarely(*SHAPES, share=0.3),
        stream=streams,
        version=rarely("2", share=0.03),
        variant=rarely("int8", share=0.05),
        priority=Priority(rng.randrange(4)),
        deadline_s=rng.choice((None, None, 0.02, 0.1, 0.5, 3.0)),
        min_quality=rarely(0.8, 0.92, usual=0.0),
        max_cost=rarely(5e-6, 5e-5, usual=None),
        privacy=rarely(Privacy.INTERNAL, Privacy.SITE, usual=Privacy.PUBLIC, share=0.2),
        tenant=rng.choice(("", "x", "y")),
        needs=rarely(("tools",), usual=(), share=0.05),
        prompt_tokens=rng.choice((0, 20, 120)) if streams else 0,
        max_tokens=rng.choice((0, 10, 60)) if streams else 0,
        affinity=rarely("k", "j", share=0.3),
        idempotent=rng.random() < 0.8,
        step=step,
    )


def begin(rng: Random) -> Rig:
    """Draw a fleet and take a few of its replicas into service."""
    rig = Rig(random_fleet(rng))
    for n, chosen in enumerate(rig.model.catalog.variants):
        if rng.random() < 0.8:
            rig.tell(random_replica(rng, rig.model.catalog, f"r{n}", chosen))
    return rig


def random_replica(rng: Random, catalog: Catalog, name: str, chosen: str = "") -> ReplicaReady:
    """Draw a replica that comes up; now and then of a variant that nobody knows."""
    known = list(catalog.variants)
    chosen = chosen or (rng.choice(known) if known and rng.random() < 0.98 else "ghost/1/v")
    profile = catalog.variants[chosen].profile if chosen in catalog.variants else None
    slots = profile.slots if isinstance(profile, StreamProfile) else rng.choice((1, 1, 2))
    exclusive = rng.random() < 0.3
    device = rng.choice(("loop", "cuda:0")) if exclusive else "cpu"
    measured = None
    if isinstance(profile, BatchProfile) and rng.random() < 0.2:
        measured = BatchProfile(rng.choice((0.001, 0.02)), rng.choice((0.0, 0.002)))
    shared, ahead = rng.random() < 0.2, not exclusive and rng.random() < 0.5
    view = ReplicaView(name, chosen, device, slots, exclusive, shared=shared, ahead=ahead)
    return ReplicaReady(view, measured)


def some_batch(rng: Random, rig: Rig) -> int:
    """Return a batch that runs, or a number that none has (any more)."""
    live = list(rig.model.work)
    return rng.choice(live) if live and rng.random() < 0.97 else rng.randint(0, 10**6)


def some_replica(rng: Random, rig: Rig) -> str:
    """Return a replica in service, or a name that none has."""
    live = list(rig.model.replicas)
    return rng.choice(live) if live and rng.random() < 0.97 else "ghost"


def some_request(rng: Random, rig: Rig) -> str:
    """Return a request that is open, or any id."""
    live = rig.model.open_requests()
    return rng.choice(live) if live and rng.random() < 0.95 else f"q{rng.randint(0, 50)}"


def arrival(rng: Random, rig: Rig) -> DispatcherEvent:
    """A request arrives."""
    return Arrived(random_request(rng, f"q{rig.model.arrivals}", rig.model.open_requests()))


def good_end(rng: Random, rig: Rig) -> DispatcherEvent:
    """A batch ends well, perhaps with members that failed alone."""
    number = some_batch(rng, rig)
    work = rig.model.work.get(number)
    bad = [m for m in work.members if rng.random() < 0.05] if work else []
    tokens = rng.choice((0, 5, 80))
    return BatchDone(
        number,
        rng.choice((0.001, 0.02)),
        tokens,
        tokens,
        tuple((m, "invalid_request", "bad", 0.0) for m in bad),
    )


def bad_end(rng: Random, rig: Rig) -> DispatcherEvent:
    """A batch ends badly."""
    number = some_batch(rng, rig)
    if rng.random() < 0.2:
        return Busy(number, rng.choice((0.0, 0.2)))
    kind = rng.choice(("error", "crash", "invalid", "cancelled", "upstream"))
    return BatchFailed(number, kind, "it broke", rng.choice((0.0, 0.0, 0.3)) if kind == "upstream" else 0.0)


def cancelled_end(rng: Random, rig: Rig) -> DispatcherEvent:
    """A batch that was stopped has stopped."""
    stopped = [n for n, w in rig.model.work.items() if w.cancelled]
    return BatchFailed(rng.choice(stopped) if stopped else some_batch(rng, rig), "cancelled")


def stream_news(rng: Random, rig: Rig) -> DispatcherEvent:
    """A stream has begun, or goes on."""
    streams = [n for n, w in rig.model.work.items() if rig.model.asked[w.members[0]].request.stream]
    number = rng.choice(streams) if streams else some_batch(rng, rig)
    return FirstChunk(number) if rng.random() < 0.5 else Progress(number, rng.randint(1, 300))


def replica_news(rng: Random, rig: Rig) -> DispatcherEvent:
    """A replica comes, goes, drains, or says how it is."""
    kind = rng.random()
    if kind < 0.45:
        return random_replica(rng, rig.model.catalog, f"r{rng.randint(0, 5)}")
    if kind < 0.6:
        return ReplicaGone(some_replica(rng, rig), rng.choice(("crash", "stopped")))
    if kind < 0.7:
        return DrainReplica(some_replica(rng, rig))
    if kind < 0.85:
        left = rng.choice((0, 5, -1))
        return Limits(some_replica(rng, rig), left, rng.choice((0, 50)), 0.1, rng.choice((0.0, 0.4)))
    return Report(some_replica(rng, rig), rng.choice((0.0, 0.1)), rng.choice((0.0, 1.0)))


def cancellation(rng: Random, rig: Rig) -> DispatcherEvent:
    """A client goes away."""
    return Cancelled(some_request(rng, rig))


def feedback(rng: Random, rig: Rig) -> DispatcherEvent:
    """Somebody says what an answer was worth, or what was known is remembered."""
    names = [*rig.model.catalog.variants, "ghost/1/v"]
    if rng.random() < 0.1:
        known = posterior.begun(rng.random())
        ridge = bandit.begun(known.prior)
        for _ in range(rng.randrange(30)):
            known.learn(rng.random())
            ridge.learn(random_context(rng), aside(rng).random())
        kept = aside(rng).choice((None, ridge))
        return Remembered({rng.choice(names): History(known, ridge=kept)})
    about = Feedback(some_request(rng, rig), rng.choice(names), rng.choice((0.0, 1.0, rng.random())))
    if context := random_context(rng):
        weight, gain = aside(rng).choice(((1.0, 0.0), (0.25, 0.3), (1.0, -0.4)))
        return msgspec.structs.replace(about, weight=weight, context=context, gain=gain)
    return about


def scores(rng: Random, rig: Rig) -> DispatcherEvent:
    """Scores come in."""
    waiting = [i for i, a in rig.model.asked.items() if a.scoring and not a.outcome]
    rid = rng.choice(waiting) if waiting else some_request(rng, rig)
    gain = {v: rng.uniform(-1.0, 1.0) for v in rig.model.catalog.variants if rng.random() < 0.8}
    context = random_context(rng)
    chance = aside(rng)
    if chance.random() < 0.5:
        return Scored(rid, gain, 1.0, context)
    beside = {v: chance.uniform(-1.0, 1.0) for v in rig.model.catalog.variants if chance.random() < 0.8}
    return Scored(rid, gain, 1.0, context, router="1", other=chance.choice(("", "2")), beside=beside)


def change(rng: Random, rig: Rig) -> DispatcherEvent:
    """The fleet changes, in part."""
    old = list(rig.model.catalog.variants.values())
    kept = [v for v in old if rng.random() < 0.8]
    known = {v.id for v in kept}
    new = [v for v in random_variants(rng) if v.id not in known and rng.random() < 0.5]
    return FleetChanged(random_fleet(rng, (kept + new) or old))


KINDS = (
    (arrival, 50), (good_end, 16), (bad_end, 5), (cancelled_end, 4), (stream_news, 3), (replica_news, 6),
    (cancellation, 3), (scores, 3), (feedback, 3), (change, 0.5),
)  # fmt: skip


def random_event(rng: Random, rig: Rig) -> DispatcherEvent:
    """Draw any event, in the proportions of a fleet that has a bad day."""
    make = rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
    return make(rng, rig)


def settle(rig: Rig) -> None:
    """End the faults and what runs, and let time pass until nothing is left to do; check that all is answered."""
    for _ in range(10_000):
        if rig.model.work:
            number, work = next(iter(rig.model.work.items()))
            rig.tell(BatchFailed(number, "cancelled") if work.cancelled else BatchDone(number, 0.001), 0.001)
        elif rig.dispatcher.next_deadline() is not None:
            rig.tick(max(0.0, rig.dispatcher.next_deadline() - rig.now))
        else:
            break
    else:
        raise AssertionError("it never comes to rest")
    rig.model.check_over()


def leftovers(rig: Rig) -> dict[str, object]:
    """Return what the dispatcher still holds at rest that it should have let go."""
    state = rig.dispatcher.state
    found: dict[str, object] = {
        "jobs": state.jobs, "orphans": state.orphans, "children": state.children, "batches": state.batches,
        "turns": state.turns, "timers": state.timers,
        "lanes": {i: lane for i, lane in state.lanes.items() if lane.rows},
        "rows": {n: q.rows for n, q in state.queues.items() if any(q.rows)},
        "tenants": [
            t for q in state.queues.values() for c in q.classes for t in c.tenants.values() if t.rows or t.lanes
        ],
        "books": {n: b.lanes for n, b in state.variants.items() if b.lanes},
        "slots": {n: r for n, r in state.replicas.items() if r.in_flight or r.rows or abs(r.tokens) > 1e-6},
        "counts": {
            n: (b.ready, b.slots)
            for n, b in state.variants.items()
            if (b.ready, b.slots) != _in_service(rig, n)
        },
    }  # fmt: skip
    return {name: what for name, what in found.items() if what}


def _in_service(rig: Rig, variant_id: str) -> tuple[int, int]:
    mine = [
        s.view.slots for s in rig.model.replicas.values() if s.view.variant == variant_id and not s.draining
    ]
    return len(mine), sum(mine)
