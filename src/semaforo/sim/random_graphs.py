"""Random fleets of graphs under random load: small queues, few slots, faults, people who go away."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from semaforo.catalog.state import Catalog, Scaling
from semaforo.core.effects import DispatcherEffect
from semaforo.core.events import Cancelled, DispatcherEvent
from semaforo.entities import (
    BatchProfile,
    Contract,
    Priority,
    Ref,
    ReplicaSpec,
    Request,
    TaskType,
    Variant,
)
from semaforo.graph.graph import RUNTIME, Graph, Step
from semaforo.sim.graphs import GraphWorld
from semaforo.sim.world import Fault

LEVELS = 4
MOST_STEPS = 12
_ISOLATIONS: tuple[Literal["inline", "thread", "process"], ...] = ("inline", "thread", "process")


class Trial(msgspec.Struct):
    """One random fleet, loaded and ready to run.

    Attributes:
        world: The fleet.
        asked: Ids of the requests from outside.
        graphs: How many graphs it has.
    """

    world: GraphWorld
    asked: list[str]
    graphs: int


def trial(seed: int) -> Trial:
    """Return a random fleet with random load; the same for the same seed."""
    rng = random.Random(seed)
    catalog, graphs = _fleet(rng)
    world = GraphWorld(catalog, seed=seed, noise=0.1, holds=rng.choice((0.3, 0.7, 1.0)))
    targets = [*catalog.tasks, *(graph.name for graph in graphs)]
    asked = []
    span = rng.choice((0.01, 0.1, 1.0))
    for number in range(rng.randint(3, 14)):
        request = f"q{number}"
        asked.append(request)
        contract = Contract(
            priority=rng.choice(list(Priority)),
            deadline_s=rng.choice((None, None, 0.01, 0.05, 0.3, 2.0)),
            tenant=rng.choice(("a", "b")),
        )
        target = rng.choice([graph.name for graph in graphs] if rng.random() < 0.8 else targets)
        at = rng.random() * span
        world.arrive([(at, Request(request, target, contract=contract, ref=Ref(rng.randint(1, 4))))])
        if rng.random() < 0.2:
            world.at(at + rng.random() * 0.1, Cancelled(request))
    for _ in range(rng.choice((0, 0, 1, 3))):
        model = rng.choice([v.model for v in catalog.variants.values()])
        kinds: tuple[Literal["crash", "slow", "errors"], ...] = ("crash", "slow", "errors")
        kind = rng.choice(kinds)
        world.at(rng.random() * span, Fault(0.0, f"{model}-v-1", kind, for_s=rng.random()))
    return Trial(world, asked, len(graphs))


def _fleet(rng: random.Random) -> tuple[Catalog, list[Graph]]:
    tasks: dict[str, TaskType] = {}
    variants: dict[str, Variant] = {}
    templates: dict[str, ReplicaSpec] = {}
    scaling: dict[str, Scaling] = {}

    def add(model: str, task: str, rows: int, seconds: float, template: ReplicaSpec, count: int) -> None:
        identity = f"{model}/1/v"
        profile = BatchProfile(seconds, seconds / 4)
        variants[identity] = Variant(
            identity, model, "1", "v", task, quality=0.9, profile=profile, max_rows=rows
        )
        templates[identity] = msgspec.structs.replace(template, variant=identity)
        scaling[identity] = Scaling(count, count)

    for number in range(rng.randint(1, 4)):
        task = f"t{number}"
        tasks[task] = TaskType(task, max_queue_rows=rng.randint(1, 8), deadline_s=rng.choice((None, 0.5)))
        for copy in range(rng.randint(1, 2)):
            isolation = rng.choice(_ISOLATIONS)
            device = "loop" if isolation == "inline" else "cpu"
            spec = ReplicaSpec("", "", "onnx", "m", isolation=isolation, device=device)
            seconds = rng.choice((0.0002, 0.002, 0.02))
            add(f"m{number}{'ab'[copy]}", task, rng.choice((1, 4, 8)), seconds, spec, rng.randint(1, 2))
    graphs: list[Graph] = []
    below = [*tasks, *(v.model for v in variants.values())]
    for level in range(rng.randint(1, LEVELS)):
        here = []
        for number in range(rng.randint(1, 2)):
            name = f"g{level}{number}"
            task = f"{name}-task"
            tasks[task] = TaskType(task, max_queue_rows=rng.randint(1, 8))
            graph = _graph(rng, name, task, below)
            graphs.append(graph)
            options = {"graph": msgspec.to_builtins(graph), "in_flight": rng.randint(1, 3)}
            add(name, task, 1, 0.001, ReplicaSpec("", "", RUNTIME, "", options=options), 1)
            here += [name, task]
        # What is asked lies below, so that no graph asks itself.
        below += here
    catalog = Catalog(
        tasks=tasks,
        variants=variants,
        templates=templates,
        scaling=scaling,
        in_service={v.model: "1" for v in variants.values()},
    )
    return catalog, graphs


def _graph(rng: random.Random, name: str, task: str, below: list[str]) -> Graph:
    steps: list[Step] = []
    for number in range(rng.randint(1, MOST_STEPS)):
        title = f"s{number}"
        earlier = [step.name for step in steps]
        some = sorted(rng.sample(earlier, min(len(earlier), rng.randint(0, 3))))
        when = f"missing({some[0]})" if some and rng.random() < 0.3 else ""
        delay = rng.choice((0.0, 0.0, 0.0, 0.005))
        draw = rng.random()
        if some and draw < 0.25:
            steps.append(Step(
                name=title, kind="fuse", target="first", of=tuple(some), least=rng.randint(1, len(some)),
                quorum=rng.choice((0, 0, len(some))), wait_s=rng.choice((None, 0.0, 0.01)),
            ))  # fmt: skip
            continue
        inputs = {"x": f"{some[-1]}.y"} if some and draw < 0.7 else {}
        target = rng.choice(below[-6:])
        if draw < 0.35:
            step = Step(name=title, kind="loop", target=target, inputs=inputs, when=when, most=3)
        elif draw < 0.45:
            step = Step(
                name=title, kind="ask", target=target, inputs=inputs, when=when, each=("x",),
                at_once=rng.choice((1, 2, 64)),
            )  # fmt: skip
        elif draw < 0.5:
            step = Step(name=title, kind="call", target="f", inputs=inputs, when=when)
            if some and draw < 0.475:
                step = Step(name=title, kind="verify", target="v", verifies=f"{some[-1]}.y", when=when)
        else:
            step = Step(
                name=title, kind="ask", target=target, inputs=inputs, when=when, after=tuple(some[:1]),
                delay_s=delay,
            )  # fmt: skip
        steps.append(step)
    return Graph(name=name, task=task, steps=tuple(steps), answer={"": steps[-1].name})


def verdict(given: Trial) -> str:
    """Run a trial to its end and return what is wrong with it, "" = nothing.

    Right is: one terminal answer for each request from outside and for each request of a step, and nothing left.
    """
    world = given.world
    arrived: list[str] = []
    handle = world.dispatcher.handle

    def watched(event: DispatcherEvent, now: float) -> list[DispatcherEffect]:
        request = getattr(event, "request", None)
        if isinstance(request, Request):
            arrived.append(request.id)
        return handle(event, now)

    world.dispatcher.handle = watched  # type: ignore[method-assign]  # to see what arrives
    trace = world.run()
    state = world.dispatcher.state
    counts: dict[str, int] = {}
    for _, finish in trace.finished:
        counts[finish.request] = counts.get(finish.request, 0) + 1
    wrong = [
        f"{request} has {counts.get(request, 0)} answers" for request in arrived if counts.get(request) != 1
    ]
    wrong += [f"{request} never arrived" for request in given.asked if request not in counts]
    for what in ("jobs", "batches", "children", "orphans"):
        if left := getattr(state, what):
            wrong.append(f"{what} left: {sorted(left)[:3]}")
    wrong += [
        f"{task} has {sum(queue.rows)} rows waiting"
        for task, queue in state.queues.items()
        if sum(queue.rows)
    ]
    if world.runs:
        wrong.append(f"{len(world.runs)} runs have not ended")
    return "; ".join(wrong[:5])
