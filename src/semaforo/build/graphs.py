"""Graphs of a fleet: settings of its file become values, and what is wrong with them is named with line and key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from semaforo.build.verifiers import check_verifiers, digest_of, file_of, models_of
from semaforo.catalog import Catalog, Scaling
from semaforo.config import FleetFile, Problem
from semaforo.config.graphs import GraphSettings, StepSettings
from semaforo.entities import BatchProfile, ReplicaSpec, StreamProfile, Variant
from semaforo.errors import ArtefactError, ConfigError, InvalidRequest, nearest
from semaforo.graph.check import check
from semaforo.graph.graph import RUNTIME, Graph, Kind, Step
from semaforo.graph.plan import Plan

_KINDS: tuple[Kind, ...] = ("ask", "call", "fuse", "loop", "verify")


def graph_of(name: str, task: str, settings: GraphSettings, folder: Path, *, fitted: bool = True) -> Graph:
    """Return the graph that settings amount to.

    Args:
        name, task: Of the model that it is.
        settings: Its settings.
        folder: Where the fleet file is.
        fitted: Whether what is to be fitted must have been; else a missing file stands for nothing yet.

    Raises:
        ArtefactError: A file that it names cannot be read.
    """
    steps = tuple(_step(title, step, folder, fitted) for title, step in settings.steps.items())
    return Graph(
        name=name,
        task=task,
        steps=steps,
        answer=settings.answer or {"": steps[-1].name if steps else ""},
        session=tuple(tensor.spec(title) for title, tensor in settings.session.items()),
        remember=settings.remember,
        stream=settings.stream,  # type: ignore[arg-type]  # checked by its form
    )


def is_supple(graph: Graph) -> bool:
    """Tell whether a graph has steps that it leaves out where time is short."""
    try:
        return bool(Plan(graph).escalations)
    except (ValueError, KeyError, InvalidRequest):
        # A circle, a step that is not there, or a condition that cannot be read: `graph_problems` tells where.
        return False


def graph_problems(file: FleetFile, catalog: Catalog, *, fitted: bool = True) -> list[Problem]:
    """Return all that is wrong with the graphs of a fleet file, nesting in circles included; `fitted` as above."""
    wrong = _problems(catalog, fitted)
    return [file.problem(("models", name, "graph", *key), text) for name, key, text in wrong]


class Built(msgspec.Struct, frozen=True):
    """A graph that was built in Python, and how it is served.

    Attributes:
        graph: The graph.
        in_flight: Requests of it that run at once.
        forget_s: Seconds for which a session that is not used is remembered.
        quality: 0…1 in the task's metric, None = not known.
    """

    graph: Graph
    in_flight: int = 256
    forget_s: float = 600.0
    quality: float | None = None


def with_graphs(catalog: Catalog, graphs: Sequence[Built]) -> Catalog:
    """Return a catalog that serves these graphs, too.

    Raises:
        ConfigError: Their names or types do not fit the catalog; all that is wrong is told.
    """
    tasks = catalog.tasks
    variants, templates = dict(catalog.variants), dict(catalog.templates)
    scaling, in_service = dict(catalog.scaling), dict(catalog.in_service)
    for built in graphs:
        graph = built.graph
        if graph.task not in tasks:
            hint = nearest(graph.task, tasks)
            raise ConfigError(
                f"graph {graph.name} serves '{graph.task}', which is no task of the fleet.{hint}"
            )
        if graph.name in tasks or graph.name in in_service or graph.name in catalog.aliases:
            raise ConfigError(f"'{graph.name}' is in the fleet already: give the graph another name")
        task, identity = tasks[graph.task], f"{graph.name}/1/default"
        variants[identity] = Variant(
            identity, graph.name, "1", "default", graph.task, quality=built.quality,
            profile=StreamProfile(slots=built.in_flight) if task.kind == "chat" else BatchProfile(0.001, 0.001),
            max_rows=1, kind=task.kind, supple=is_supple(graph),
        )  # fmt: skip
        templates[identity] = ReplicaSpec(
            "", identity, RUNTIME, "", max_rows=1, task=graph.task,
            inputs=tuple(msgspec.to_builtins(spec) for spec in task.inputs),
            outputs=tuple(msgspec.to_builtins(spec) for spec in task.outputs),
            options={
                "graph": msgspec.to_builtins(graph), "in_flight": built.in_flight, "forget_s": built.forget_s,
            },
        )  # fmt: skip
        scaling[identity], in_service[graph.name] = Scaling(1, 1), "1"
    whole = msgspec.structs.replace(
        catalog, variants=variants, templates=templates, scaling=scaling, in_service=in_service
    )
    wrong = [f"graph {name}: {'.'.join(key)}: {text}" for name, key, text in _problems(whole, True)]
    if wrong:
        raise ConfigError("\n".join(wrong))
    return whole


def _problems(catalog: Catalog, fitted: bool) -> list[tuple[str, tuple[str, ...], str]]:
    """Return what is wrong: graph, keys under it, and the text."""
    found: list[tuple[str, tuple[str, ...], str]] = []
    graphs: dict[str, Graph] = {}
    for variant_id, template in catalog.templates.items():
        if template.runtime != RUNTIME:
            continue
        graph = msgspec.convert(template.options["graph"], Graph)

        def say(key: tuple[str, ...], message: str, name: str = graph.name) -> None:
            found.append((name, key, message))

        graphs[graph.name] = graph
        check(graph, catalog.tasks[catalog.variants[variant_id].task], catalog.task_of, say)
        check_verifiers(graph, catalog, fitted, say)
    for name in graphs:
        circle = _circle(name, graphs, catalog, (name,))
        if circle:
            found.append((name, (), f"asks itself: {' → '.join(circle)}"))
    return found


def _circle(name: str, graphs: dict[str, Graph], catalog: Catalog, path: tuple[str, ...]) -> tuple[str, ...]:
    for step in graphs[name].steps:
        if step.kind not in ("ask", "loop"):
            continue
        for model in models_of(step.target, catalog):
            if model == path[0]:
                return (*path, model)
            if (
                model in graphs
                and model not in path
                and (found := _circle(model, graphs, catalog, (*path, model)))
            ):
                return found
    return ()


def _step(name: str, settings: StepSettings, folder: Path, fitted: bool) -> Step:
    kind: Kind = next((k for k in _KINDS if getattr(settings, k)), "ask")
    target = getattr(settings, kind)
    if kind == "call":
        target = imported(target, folder)
    elif kind == "verify":
        target = str(file_of(folder / settings.by) if settings.by else folder)
    options: dict[str, Any] = dict(settings.options)
    if settings.weights:
        options["weights"] = settings.weights
    if settings.fitted:
        path = folder / settings.fitted
        options["fitted"] = _fitted(path) if fitted or path.exists() else None
    return Step(
        name=name,
        kind=kind,
        target=target,
        inputs=settings.inputs,
        of=settings.of,
        when=settings.when,
        after=settings.after,
        each=settings.each,
        at_once=settings.at_once,
        delay_s=settings.delay,
        wait_s=settings.wait,
        least=settings.least,
        quorum=settings.quorum,
        feedback=settings.feedback,
        carry=settings.carry,
        until=settings.until,
        most=settings.most,
        prompt=settings.prompt,
        outputs=tuple(tensor.spec(title) for title, tensor in settings.outputs.items()),
        variant=settings.variant,
        version=settings.version,
        min_quality=settings.min_quality,
        max_cost=settings.max_cost,
        options=options,
        samples=settings.samples,
        verifies=settings.verify,
        against=settings.against,
        digest=(settings.sha256 or digest_of(Path(target))) if kind == "verify" else "",
    )


def _fitted(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}; `semaforo graph fit` writes it") from None
    except msgspec.DecodeError as error:
        raise ArtefactError(f"{path}: is no JSON: {error}") from None


def imported(source: str, folder: Path) -> str:
    """Return the source of a Python object, of a file beside the fleet file where there is one."""
    place, _, name = source.rpartition(":")
    beside = folder / (place if place.endswith(".py") else place.replace(".", "/") + ".py")
    return f"{beside}:{name}" if beside.is_file() else source
