"""``semaforo graph show``: graphs as pictures, in the terminal or as SVG."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from semaforo.build import Blueprint, blueprint
from semaforo.catalog import Catalog
from semaforo.cli.output import write_file
from semaforo.entities import BatchProfile
from semaforo.errors import InvalidRequest, nearest
from semaforo.graph.check import check
from semaforo.graph.draw.picture import Picture, picture
from semaforo.graph.draw.svg import svg
from semaforo.graph.draw.text import drawn, listed
from semaforo.graph.graph import RUNTIME, Graph
from semaforo.graph.path import whole
from semaforo.graph.plan import Plan

_STYLES = {"": "", "critical": "bold yellow", "quiet": "dim", "name": "bold"}


def run(name: str, fleet: Path, to: Path | None, deep: bool) -> None:
    """Draw one graph of a fleet file, or all of them.

    Raises:
        SemaforoError: The fleet file is wrong, or has no such graph.
    """
    plan = blueprint(fleet, fitted=False)
    graphs = graphs_of(plan.catalog)
    chosen = _chosen(plan, graphs, name, deep)
    if to is not None:
        if len(chosen) != 1:
            raise InvalidRequest(f"--svg takes one graph: name it. There are {', '.join(graphs)}")
        write_file(to, svg(_picture(plan.catalog, graphs, chosen[0])).encode())
        print(f"Wrote {to}")
        return
    console = Console(highlight=False)
    for number, each in enumerate(chosen):
        if number:
            console.print()
        what = _picture(plan.catalog, graphs, each)
        console.print(Text(what.title, style="bold"))
        for line in drawn(what, console.width) or listed(what):
            console.print(Text.assemble(*((piece, _STYLES[style]) for piece, style in line)), soft_wrap=True)


def graphs_of(catalog: Catalog) -> dict[str, Graph]:
    """Return the graphs of a catalog by the name of their model."""
    return {
        catalog.variants[i].model: msgspec.convert(template.options["graph"], Graph)
        for i, template in catalog.templates.items()
        if template.runtime == RUNTIME
    }


def _chosen(plan: Blueprint, graphs: dict[str, Graph], name: str, deep: bool) -> list[str]:
    if not graphs:
        raise InvalidRequest(f"{plan.file.name} has no graphs: a model with `graph:` is one")
    if not name:
        return list(graphs)
    name = plan.catalog.aliases.get(name, name)
    if name not in graphs:
        raise InvalidRequest(
            f"{plan.file.name} has no graph '{name}'.{nearest(name, list(graphs))} It has {', '.join(graphs)}"
        )
    found = [name]
    for each in found if deep else ():
        inner = [m for step in graphs[each].steps for m in _asked(plan.catalog, step.target) if m in graphs]
        found += [model for model in dict.fromkeys(inner) if model not in found]
    return found


def _asked(catalog: Catalog, target: str) -> list[str]:
    target = catalog.aliases.get(target, target)
    if target not in catalog.tasks:
        return [target]
    return [variant.model for variant in catalog.variants.values() if variant.task == target]


def _picture(catalog: Catalog, graphs: dict[str, Graph], name: str) -> Picture:
    graph = graphs[name]
    task = catalog.tasks[graph.task]
    types = check(graph, task, catalog.task_of, lambda key, message: None)
    assert types is not None  # A fleet file with a problem was refused.
    return picture(graph, task, types, takes=_takes(catalog, graphs, graph), graphs=frozenset(graphs))


def _takes(catalog: Catalog, graphs: dict[str, Graph], graph: Graph) -> dict[str, float]:
    """Return the predicted seconds of the steps that ask, where what they ask was measured."""
    found: dict[str, float] = {}
    for step in graph.steps:
        if step.kind not in ("ask", "loop"):
            continue
        known = []
        for model in _asked(catalog, step.target):
            if model in graphs:
                inner = _takes(catalog, graphs, graphs[model])
                asked = [s.name for s in graphs[model].steps if s.kind in ("ask", "loop")]
                known += [whole(Plan(graphs[model]), inner)] if all(s in inner for s in asked) else []
                continue
            for variant in catalog.variants.values():
                if variant.model == model and step.variant in ("", variant.name):
                    profile = variant.profile
                    # What was never measured is a guess, and not worth drawing.
                    if isinstance(profile, BatchProfile) and profile.curve:
                        known.append(profile.seconds(1))
        if known:
            found[step.name] = min(known)
    return found
