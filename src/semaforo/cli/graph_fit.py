"""``semaforo graph fit``: weights, combiners and thresholds of a graph, from labelled rows."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import typer
import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from semaforo.build import Blueprint, blueprint, engine_for
from semaforo.cli.needs import needs_sklearn
from semaforo.cli.output import write_file
from semaforo.cli.progress import bar, loading
from semaforo.entities import Privacy
from semaforo.errors import InvalidRequest, nearest
from semaforo.features.extract import chat_signals
from semaforo.graph.graph import RUNTIME, Graph
from semaforo.jobs.cascades import Cut, Terms, cut
from semaforo.jobs.exam import Exam, read_exam
from semaforo.jobs.fit import ROWS, Fitted, Lesson, answers, examined, fitted, lesson
from semaforo.observe.quality import Quality
from semaforo.routing.router import Router
from semaforo.wire.payload import Array

_CHATS = 8
"""Chats that go into one request of the members; several such requests run at once."""


class Fitting(msgspec.Struct, frozen=True):
    """What is to be fitted, and how."""

    graph: str
    step: str
    data: Path | None
    rows: int
    metric: str
    terms: Terms
    retrain: bool
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
    exam = as_texts(read_exam(task, _data(plan, graph, asked), metric=asked.metric, rows=asked.rows))
    given = lesson(graph, task, plan.catalog.task_of, exam.judged.name, asked.step)
    routers = {name: None if asked.retrain else _router(graph, name) for name in given.verifiers}
    if None in routers.values():
        needs_sklearn()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        said = runner.run(_ask(plan, variant, given, exam, Privacy[asked.privacy.upper()]))
    fusions = [fitted(graph, given, step, said, exam) for step in given.fusions]
    cuts: list[Cut] = []
    trained: dict[str, Router] = {}
    for step in given.cascades:
        found, new = cut(graph, given, step, said, exam, asked.terms, {**routers, **trained})
        cuts.append(found)
        trained |= new
    told = [] if dry else [_write(plan, graph, one) for one in fusions]
    told += [] if dry else [_write_verifier(graph, name, router) for name, router in trained.items()]
    if as_json:
        plain = {"fusions": [_plain(f) for f in fusions], "cascades": [msgspec.to_builtins(c) for c in cuts]}
        typer.echo(msgspec.json.encode(plain).decode())
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
                at_a_time=_CHATS if exam.chats else ROWS,
                asked=lambda rows: progress.advance(row, rows),
            )
    finally:
        await engine.stop(1.0)


def as_texts(exam: Exam) -> Exam:
    """Return an exam of chats with the tensors by which graphs know them: text and messages."""
    if not exam.chats:
        return exam
    texts, messages = np.empty(exam.rows, object), np.empty(exam.rows, object)
    texts[:] = [chat_signals({"messages": chat}).text.encode() for chat in exam.chats]
    messages[:] = [msgspec.json.encode(chat) for chat in exam.chats]
    return msgspec.structs.replace(exam, inputs={"text": texts, "messages": messages})


def _router(graph: Graph, name: str) -> Router | None:
    path = Path(graph.step(name).target)
    return Router.decode(path.read_bytes(), str(path)) if path.exists() else None


def _write_verifier(graph: Graph, name: str, router: Router) -> str:
    path = Path(graph.step(name).target)
    write_file(path, router.encode(), folders=True)
    return f"Wrote {path}, trained on {router.rows} rows"


def _write(plan: Blueprint, graph: Graph, found: Fitted) -> str:
    settings = plan.file.settings.models[graph.name].graph
    assert settings is not None
    named = settings.steps[found.step].fitted
    path = plan.file.folder / (named or f"{graph.name}-{found.step}.json")
    write_file(path, msgspec.json.encode(found.learned) + b"\n", folders=True)
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
        table = _table(f"{each.step} · cascade", exam.metric)
        table.add_row("cheap alone", *_figures(each.small), "")
        table.add_row("dear alone", *_figures(each.large), "")
        table.add_row("cascade", *_figures(each.cascade), f"{each.calls:.1%} of calls", style="bold green")
        console.print(table)
        console.print(f"Write under models.{graph.name}.graph.steps.{each.step}:\n  when: {each.when}\n")
        console.print(_promise(each, asked.terms))
    dried = ", nothing was written" if dry and fusions else ""
    console.print(f"{exam.task.name}, {exam.rows} rows{dried}")


def _promise(found: Cut, terms: Terms) -> str:
    """Say in words what a threshold promises, or why it promises nothing."""
    if terms.confidence <= 0.5:
        return f"On these {found.rows} rows it {_lost(found.lost)}; no more than that is promised."
    if found.promised:
        return (
            f"Promised with {terms.confidence:.0%} confidence, for requests like these {found.rows} rows: it loses "
            f"{terms.give_up:g} at most against the dear step alone. Here it {_lost(found.lost)}."
        )
    sure = f"with {terms.confidence:.0%} confidence"
    why = f"{found.rows} rows cannot promise a loss of {terms.give_up:g} at most {sure}"
    if found.rows < found.needed:
        why += f", which takes {found.needed:,} rows at least"
    within = f" within {terms.most:.0%} of calls" if terms.most < 1.0 else ""
    return (
        f"{why}{within}: this asks as often as it may. Give more rows, or allow more by --give-up or --most."
    )


def _lost(loss: float) -> str:
    return f"loses {loss:.4f}" if loss >= 0.0 else f"gains {-loss:.4f}"


def _table(title: str, metric: str = "accuracy") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold")
    for column in (metric, "95 %", "log-loss", ""):
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
