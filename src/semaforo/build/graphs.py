"""Graphs of a fleet file: its settings become values, and what is wrong with them is named with line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from semaforo.catalog import Catalog
from semaforo.config import FleetFile, Problem
from semaforo.config.graphs import GraphSettings, StepSettings
from semaforo.errors import ArtefactError
from semaforo.graph.check import check
from semaforo.graph.graph import RUNTIME, Graph, Kind, Step

_KINDS: tuple[Kind, ...] = ("ask", "call", "fuse", "loop")


def graph_of(name: str, task: str, settings: GraphSettings, folder: Path) -> Graph:
    """Return the graph that settings amount to.

    Raises:
        ArtefactError: A file that it names cannot be read.
    """
    steps = tuple(_step(title, step, folder) for title, step in settings.steps.items())
    return Graph(
        name=name,
        task=task,
        steps=steps,
        answer=settings.answer or {"": steps[-1].name if steps else ""},
        session=tuple(tensor.spec(title) for title, tensor in settings.session.items()),
        remember=settings.remember,
    )


def graph_problems(file: FleetFile, catalog: Catalog) -> list[Problem]:
    """Return all that is wrong with the graphs of a fleet file, nesting in circles included."""
    problems: list[Problem] = []
    graphs: dict[str, Graph] = {}
    for variant_id, template in catalog.templates.items():
        if template.runtime != RUNTIME:
            continue
        graph = msgspec.convert(template.options["graph"], Graph)
        here = ("models", graph.name, "graph")

        def say(key: tuple[str, ...], message: str, here: tuple[str, ...] = here) -> None:
            problems.append(file.problem((*here, *key), message))

        graphs[graph.name] = graph
        check(graph, catalog.tasks[catalog.variants[variant_id].task], catalog.task_of, say)
    for name in graphs:
        circle = _circle(name, graphs, catalog, (name,))
        if circle:
            text = f"asks itself: {' → '.join(circle)}"
            problems.append(file.problem(("models", name, "graph"), text))
    return problems


def _circle(name: str, graphs: dict[str, Graph], catalog: Catalog, path: tuple[str, ...]) -> tuple[str, ...]:
    for step in graphs[name].steps:
        if step.kind not in ("ask", "loop"):
            continue
        for model in _models(step.target, catalog):
            if model == path[0]:
                return (*path, model)
            if (
                model in graphs
                and model not in path
                and (found := _circle(model, graphs, catalog, (*path, model)))
            ):
                return found
    return ()


def _models(target: str, catalog: Catalog) -> list[str]:
    name = catalog.aliases.get(target, target)
    if name not in catalog.tasks:
        return [name]
    return list(dict.fromkeys(v.model for v in catalog.variants.values() if v.task == name))


def _step(name: str, settings: StepSettings, folder: Path) -> Step:
    kind: Kind = next((k for k in _KINDS if getattr(settings, k)), "ask")
    target = getattr(settings, kind)
    options: dict[str, Any] = dict(settings.options)
    if settings.weights:
        options["weights"] = settings.weights
    if settings.fitted:
        options["fitted"] = _fitted(folder / settings.fitted)
    return Step(
        name=name,
        kind=kind,
        target=imported(target, folder) if kind == "call" else target,
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
    )


def _fitted(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ArtefactError(
            f"{path}: {error.strerror}; it holds what semaforo.graph.fusion.fitting.fit returns, as JSON"
        ) from None
    except msgspec.DecodeError as error:
        raise ArtefactError(f"{path}: is no JSON: {error}") from None


def imported(source: str, folder: Path) -> str:
    """Return the source of a Python object, of a file beside the fleet file where there is one."""
    place, _, name = source.rpartition(":")
    beside = folder / (place if place.endswith(".py") else place.replace(".", "/") + ".py")
    return f"{beside}:{name}" if beside.is_file() else source
