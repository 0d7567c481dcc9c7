"""``semaforo graph fit``: weights, combiners and thresholds of a graph, from labelled rows."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import typer
import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from semaforo.build import Blueprint, blueprint, engine_for
from semaforo.cli.progress import bar, loading
from semaforo.entities import Privacy
from semaforo.errors import InvalidRequest, nearest
from semaforo.graph.graph import RUNTIME, Graph
from semaforo.jobs.exam import Exam, read_exam
from semaforo.jobs.fit import Cut, Fitted, Lesson, answers, cut, examined, fitted, lesson
from semaforo.observe.quality import Quality
from semaforo.wire.payload import Array


class Fitting(msgspec.Struct, frozen=True):
    """What is to be fitted, and how."""

    graph: str
    step: str
    data: Path | None
    rows: int
    give_up: float
    most: float
    confidence: float
    privacy: str


def run(asked: Fitting, fleet: Path, dry: bool, as_json: bool) -> None:
    """Ask the members for all rows, fit, print what was found, and write the files unless `dry`.

    Raises:
        SemaforoError: The fleet file, the data or an option is wrong, or a member failed.
    """
    words = [member.name.lower() for member in Privacy]
    if asked.privacy not in words:
        raise InvalidRequest(
            f"--privacy '{asked.privacy}' is none of {', '.join(words)}.{nearest(asked.privacy, words)}"
        )
    logging.getLogger("semaforo").setLevel(logging.ERROR)
    plan = blueprint(fleet, noted=False, fitted=False)
    variant, graph = _graph(plan, asked.graph)
    task = plan.catalog.tasks[graph.task]
    exam = read_exam(task, _data(plan, graph, asked), rows=asked.rows)
    given = lesson(graph, task, plan.catalog.task_of, exam.judged.name, asked.step)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        said = runner.run(_ask(plan, variant, given, exam, Privacy[asked.privacy.upper()]))
    fusions = [fitted(graph, given, step, said, exam) for step in given.fusions]
    cuts = [
        cut(
            graph,
            given,
            step,
            said,
            exam,
            give_up=asked.give_up,
            most=asked.most,
            confidence=asked.confidence,
        )
        for step in given.cascades
    ]
    told = [] if dry else [_write(plan, graph, found) for found in fusions]
    if as_json:
        found = {"fusions": [_plain(f) for f in fusions], "cascades": [msgspec.to_builtins(c) for c in cuts]}
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _show(asked, graph, exam, fusions, cuts, dry)
    for line in told:
        typer.echo(line, err=True)


def _graph(plan: Blueprint, name: str) -> tuple[str, Graph]:
    graphs = {
        plan.catalog.variants[i].model: i for i, t in plan.catalog.templates.items() if t.runtime == RUNTIME
    }
    if name not in graphs:
        told = f"It has {', '.join(graphs)}" if graphs else "It has no graphs"
        raise InvalidRequest(f"{plan.file.name} has no graph '{name}'.{nearest(name, list(graphs))} {told}")
    variant = graphs[name]
    return variant, msgspec.convert(plan.catalog.templates[variant].options["graph"], Graph)


def _data(plan: Blueprint, graph: Graph, asked: Fitting) -> Path:
    if asked.data is not None:
        return asked.data
    stated = plan.file.settings.tasks[graph.task].evaluate
    if not stated:
        raise InvalidRequest(
            "there are no labelled rows: give --data FILE with rows that no member was trained on"
        )
    raise InvalidRequest(
        f"give --data FILE with rows that no member was trained on, other than {stated}: "
        "what is fitted on the rows of an exam passes it too well"
    )


async def _ask(
    plan: Blueprint, variant: str, given: Lesson, exam: Exam, privacy: Privacy
) -> dict[str, Array]:
    engine = engine_for(None, 16, plan.secrets)
    try:
        catalog = examined(plan.catalog, variant, given)
        async with loading(engine, len(catalog.variants)):
            await engine.start(catalog)
        with bar() as progress:
            row = progress.add_task(given.graph.name, total=exam.rows)
            return await answers(
                engine,
                given.graph.name,
                given.task,
                exam.inputs,
                privacy=privacy,
                asked=lambda rows: progress.advance(row, rows),
            )
    finally:
        await engine.stop(1.0)


def _write(plan: Blueprint, graph: Graph, found: Fitted) -> str:
    settings = plan.file.settings.models[graph.name].graph
    assert settings is not None
    named = settings.steps[found.step].fitted
    path = plan.file.folder / (named or f"{graph.name}-{found.step}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(found.learned) + b"\n")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from None
    hint = (
        "" if named else f": write `fitted: {path.name}` under models.{graph.name}.graph.steps.{found.step}"
    )
    return f"Wrote {path}{hint}"


def _show(
    asked: Fitting, graph: Graph, exam: Exam, fusions: list[Fitted], cuts: list[Cut], dry: bool
) -> None:
    console = Console(highlight=False)
    for found in fusions:
        table = _table(f"{found.step} · {graph.step(found.step).target}")
        weights = found.learned.get("weights", {})
        for name, own in found.members.items():
            table.add_row(name, *_figures(own), f"{weights[name]:.3g}" if name in weights else "")
        best = max(own.value for own in found.members.values())
        style = "bold green" if found.fused.value > best else "yellow"
        table.add_row("fused, cross-validated", *_figures(found.fused), "", style=style)
        console.print(table)
    for each in cuts:
        table = _table(f"{each.step} · cascade")
        table.add_row("cheap alone", *_figures(each.small), "")
        table.add_row("dear alone", *_figures(each.large), "")
        table.add_row("cascade", *_figures(each.cascade), f"{each.calls:.1%} of calls", style="bold green")
        console.print(table)
        console.print(f"Write under models.{graph.name}.graph.steps.{each.step}:\n  when: {each.when}\n")
        if not each.promised:
            console.print(
                f"{exam.rows} rows cannot promise a loss of {asked.give_up:g} at most: this asks as often as it "
                "may. Give more rows, or allow more by --give-up"
            )
    dried = ", nothing was written" if dry and fusions else ""
    console.print(f"{exam.task.name}, {exam.rows} rows{dried}")


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold")
    for column in ("accuracy", "95 %", "log-loss", ""):
        table.add_column(column, no_wrap=True)
    return table


def _figures(found: Quality) -> tuple[str, str, str]:
    loss = f"{found.beside['log-loss']:.3g}" if "log-loss" in found.beside else "–"
    return f"{found.value:.4f}", f"{found.low:.3f}–{found.high:.3f}", loss


def _plain(found: Fitted) -> dict[str, Any]:
    return {
        "step": found.step,
        "kind": found.learned["kind"],
        "members": {name: own.value for name, own in found.members.items()},
        "fused": found.fused.value,
        "interval": [found.fused.low, found.fused.high],
    }
