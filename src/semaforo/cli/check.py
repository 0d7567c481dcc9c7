"""``semaforo check``: everything is loaded as `serve` would load it, and then let go."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from semaforo.build import Blueprint, blueprint, handles
from semaforo.catalog import Catalog
from semaforo.cli.progress import bar
from semaforo.config import Problem
from semaforo.entities import BatchProfile, ReplicaSpec
from semaforo.entities.units import show_duration
from semaforo.errors import SemaforoError
from semaforo.graph import graph
from semaforo.live.graph_replica import GraphReplica
from semaforo.live.handle import Handle, Started
from semaforo.live.sessions import Sessions
from semaforo.observe.explain import short

_KEYED = re.compile(r"((?:adapter|options)(?:\.[\w-]+)*): (.*)", re.DOTALL)
_MISMATCHES = re.compile(r"\d+ mismatch(?:es)? between the task and the model: (.*)", re.DOTALL)
_BETWEEN = re.compile(r"; (?=(?:inputs|outputs)\.[\w.-]+: )")


class _Nobody:
    """Hears nothing: replicas that are only loaded run no batch."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class _Planned(_Nobody):
    """The engine that a graph will ask, as far as it is known before anything runs."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog


def run(fleet: Path, upstreams: bool) -> None:
    """Load every variant once, print what was found, and list all problems.

    Raises:
        FleetFileError: What is wrong, all of it.
    """
    plan = blueprint(fleet)
    console = Console()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_load_all(plan, upstreams))
    console.print(_tasks(plan))
    console.print(_variants(plan, found))
    if plan.routers:
        console.print(_routers(plan))
    failed = [(spec, error.message) for spec, error in found if isinstance(error, SemaforoError)]
    problems = [_problem(plan, spec, text) for spec, message in failed for text in _apart(message)]
    if problems:
        raise plan.file.error(problems)
    loaded = sum(isinstance(result, Started) for _, result in found)
    skipped = len(found) - loaded
    more = f", {skipped} not asked" if skipped else ""
    # A path is as long as it is: what is said of it stays in one line.
    console.print(f"{fleet} is good: {loaded} variants load{more}", soft_wrap=True)


async def _load_all(
    plan: Blueprint, upstreams: bool
) -> list[tuple[ReplicaSpec, Started | SemaforoError | None]]:
    found: list[tuple[ReplicaSpec, Started | SemaforoError | None]] = []
    with bar() as progress:
        row = progress.add_task("Loading", total=len(plan.catalog.templates))
        for identity, template in plan.catalog.templates.items():
            progress.update(row, description=f"Loading {short(identity)}", completed=len(found))
            if template.source.startswith(("http://", "https://")) and not upstreams:
                found.append((template, None))
                continue
            spec = msgspec.structs.replace(template, id=f"check-{identity.replace('/', '-')}")
            handle = _handle(plan, spec)
            try:
                found.append((spec, await handle.start()))
            except SemaforoError as error:
                found.append((spec, error))
            finally:
                await handle.stop(2.0)
    return found


def _handle(plan: Blueprint, spec: ReplicaSpec) -> Handle:
    if spec.runtime == graph.RUNTIME:
        conductor = _Planned(plan.catalog)
        return GraphReplica(spec, conductor, conductor, Sessions(time.monotonic))
    return handles(plan.secrets)(spec, _Nobody())


def _apart(message: str) -> list[str]:
    """Return each mismatch between task and model as a problem of its own."""
    listed = _MISMATCHES.fullmatch(message)
    return [f"adapter.{text}" for text in _BETWEEN.split(listed[1])] if listed else [message]


def _problem(plan: Blueprint, spec: ReplicaSpec, message: str) -> Problem:
    model, _, variant = spec.variant.split("/")
    keyed = _KEYED.fullmatch(message)
    if keyed:
        return plan.file.problem(("models", model, *keyed[1].split(".")), keyed[2])
    below = ("variants", variant) if plan.file.settings.models[model].variants else ()
    return plan.file.problem(("models", model, *below), message)


def _tasks(plan: Blueprint) -> Table:
    table = Table("task", "takes", "gives", "models", box=box.SIMPLE_HEAD, title_justify="left")
    for task in plan.catalog.tasks.values():
        models = dict.fromkeys(v.model for v in plan.catalog.variants.values() if v.task == task.name)
        takes = ", ".join(map(str, task.inputs)) or "messages"
        gives = ", ".join(map(str, task.outputs)) or "messages"
        table.add_row(task.name, takes, gives, ", ".join(models))
    return table


def _routers(plan: Blueprint) -> Table:
    table = Table("router of", "name", "", "sha256", "requests", "trained", box=box.SIMPLE_HEAD)
    for task, routed in plan.routers.items():
        rollout = routed.rollout
        for loaded, role in ((rollout.service, "in service"), (rollout.candidate, "candidate")):
            if loaded is not None:
                router = loaded.router
                table.add_row(
                    task, loaded.name, role, loaded.digest[:12], f"{router.rows:,}", router.made[:10]
                )
    return table


def _variants(plan: Blueprint, found: list[tuple[ReplicaSpec, Started | SemaforoError | None]]) -> Table:
    # As narrow as can be: names are read, and copied, whole.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", overflow="fold", min_width=max(len(short(s.variant)) for s, _ in found))
    for title in ("version", "quality", "runs", "1 row", "16 rows", "memory"):
        table.add_column(title, no_wrap=True)
    for spec, result in found:
        variant = plan.catalog.variants[spec.variant]
        quality = "–" if variant.quality is None else f"{variant.quality:.3g}"
        cells = [short(variant.id), variant.version, quality]
        if isinstance(result, Started):
            profile = result.profile if isinstance(result.profile, BatchProfile) else None
            times = [show_duration(profile.seconds(rows)) if profile else "–" for rows in (1, 16)]
            memory = f"{result.memory_bytes / 1e6:.1f} MB" if result.memory_bytes else "–"
            runs = result.isolation if spec.device == "cpu" else f"{result.isolation}, {spec.device}"
            table.add_row(*cells, runs, *times, memory)
        else:
            table.add_row(*cells, "[red]fails" if result else "not asked", "–", "–", "–")
    return table
