"""``semaforo evaluate``: the quality of each variant on labelled rows."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import typer
import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from semaforo.build import Blueprint, blueprint, engine_for
from semaforo.catalog import Catalog
from semaforo.cli.progress import bar, loading
from semaforo.entities import Privacy
from semaforo.entities.units import show_dollars, show_duration
from semaforo.errors import InvalidRequest, ModelFailed, nearest
from semaforo.features.profile import DataProfile
from semaforo.jobs.evaluate import Grade, examined, grade, looked_at, with_steps
from semaforo.jobs.exam import Exam, read_exam
from semaforo.observe.explain import short
from semaforo.repository import Measured, measured, note, sha256_of
from semaforo.repository.profiled import note_profile

_WIDE = 100
_SCALES = {
    "r2": "quality is R², not below 0",
    "mae": "quality is 1 − MAE / MAE of the constant median, not below 0",
    "rmse": "quality is 1 − RMSE / standard deviation of the truth, not below 0",
}


class Evaluation(msgspec.Struct, frozen=True):
    """What is to be evaluated, and how."""

    target: str
    data: Path | None
    model: str
    variant: str
    metric: str
    output: str
    best: int
    rows: int
    privacy: str


def run(asked: Evaluation, fleet: Path, write: bool, as_json: bool) -> None:
    """Ask every variant for all rows, print what was found, and note it where `write`.

    Raises:
        SemaforoError: The fleet file, the data or an option is wrong, or a variant failed.
    """
    words = [member.name.lower() for member in Privacy]
    if asked.privacy not in words:
        raise InvalidRequest(
            f"--privacy '{asked.privacy}' is none of {', '.join(words)}.{nearest(asked.privacy, words)}"
        )
    # A replica that cannot be loaded is told once, in the table.
    logging.getLogger("semaforo").setLevel(logging.ERROR)
    plan = blueprint(fleet, noted=False)
    catalog = examined(plan.catalog, asked.target, asked.model, asked.variant)
    exam = read_exam(
        next(iter(catalog.tasks.values())),
        _data(plan, catalog, asked),
        metric=asked.metric,
        output=asked.output,
        best=asked.best,
        rows=asked.rows,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        grades = runner.run(_grade_all(plan, catalog, exam, Privacy[asked.privacy.upper()]))
    told = _write(plan, catalog, grades, looked_at(exam, plan.sources)) if write else []
    if as_json:
        typer.echo(msgspec.json.encode([_plain(found) for found in grades]).decode())
    else:
        _show(exam, grades, write)
    for line in told:
        typer.echo(line, err=True)
    failed = [found for found in grades if found.error]
    if failed:
        raise ModelFailed("\n".join(f"{short(f.variant.id)}: {f.error}" for f in failed))


def _data(plan: Blueprint, catalog: Catalog, asked: Evaluation) -> Path:
    if asked.data is not None:
        return asked.data
    name = next(iter(catalog.tasks))
    stated = plan.file.settings.tasks[name].evaluate
    if not stated:
        raise InvalidRequest(
            f"there are no labelled rows for '{name}': give --data FILE, or write "
            f"`evaluate: FILE` under the task in {plan.file.name}"
        )
    return plan.file.folder / stated


async def _grade_all(plan: Blueprint, catalog: Catalog, exam: Exam, privacy: Privacy) -> list[Grade]:
    engine = engine_for(None, 16, plan.secrets)
    grades = []
    try:
        whole = with_steps(plan.catalog, catalog)
        async with loading(engine, len(whole.variants)):
            await engine.start(whole)
        with bar() as progress:
            for variant in catalog.variants.values():
                row = progress.add_task(short(variant.id), total=exam.rows)
                advance = partial(progress.advance, row)
                grades.append(await grade(engine, exam, variant, privacy=privacy, asked=advance))
    finally:
        await engine.stop(1.0)
    return grades


def _write(plan: Blueprint, catalog: Catalog, grades: list[Grade], data: DataProfile | None) -> list[str]:
    """Note what was measured beside each artefact, and on what; return what the user should know about it."""
    told = []
    for found in grades:
        if found.quality is None:
            continue
        variant, quality = found.variant, found.quality
        template = catalog.templates[variant.id]
        artefact = Path(template.source)
        model = plan.file.settings.models[variant.model]
        stated = model.variants[variant.name].quality if variant.name in model.variants else None
        stated = model.quality if stated is None else stated
        if not model.source or not artefact.exists():
            told.append(
                f"{short(variant.id)} has no file to note it beside: write `quality: {quality.value:.4g}` "
                f"under models.{variant.model} in {plan.file.name}"
            )
            continue
        digest = sha256_of(artefact)
        if digest != template.digest:
            told.append(f"{short(variant.id)}: {artefact} was changed meanwhile, so nothing is noted")
            continue
        before = measured(artefact)
        same = before is not None and before.sha256 == digest
        note(
            artefact,
            Measured(
                round(quality.value, 6), quality.metric, quality.rows, digest,
                before.profile if before is not None and same else None,
            ),
        )  # fmt: skip
        if data is not None:
            note_profile(artefact, digest, data)
        if stated is not None:
            told.append(
                f"{plan.file.name} states quality {stated:g} for {short(variant.id)}, which wins over what is "
                "noted: leave it out there"
            )
    return told


def _show(exam: Exam, grades: list[Grade], written: bool) -> None:
    console = Console(highlight=False)
    beside = list(dict.fromkeys(name for g in grades if g.quality for name in g.quality.beside))
    if console.width < _WIDE:
        beside = []
    metric = next((g.quality.metric for g in grades if g.quality), exam.metric)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    width = max(len(short(g.variant.id)) for g in grades)
    table.add_column("variant", overflow="fold", min_width=min(width, 32))
    for title in (metric, "95 %", *beside, "p50", "p99", "per 1,000"):
        table.add_column(title, no_wrap=True)
    best = max((g.quality.value for g in grades if g.quality), default=0.0)
    for found in grades:
        name = short(found.variant.id)
        if found.quality is None:
            table.add_row(name, "[red]fails", *["–"] * (len(beside) + 4))
            continue
        quality = found.quality
        style = "bold green" if quality.value == best else ""
        figures = [f"{quality.beside[b]:.3g}" if b in quality.beside else "–" for b in beside]
        table.add_row(
            name, f"{quality.value:.4f}", f"{quality.low:.3f}–{quality.high:.3f}", *figures,
            show_duration(found.p50_s), show_duration(found.p99_s), show_dollars(found.cost), style=style,
        )  # fmt: skip
    console.print(table)
    scale = f"; {_SCALES[exam.metric]}" if exam.metric in _SCALES else ""
    console.print(
        f"{exam.task.name}, {exam.rows} rows; times of one row alone, cost of 1,000 in batches{scale}"
    )
    if any(found.quality for found in grades):
        console.print(
            "Noted in quality.json beside the files: the next `semaforo serve` routes by it"
            if written
            else "Nothing is noted: --write does, and the next `semaforo serve` routes by it"
        )


def _plain(found: Grade) -> dict[str, Any]:
    variant, quality = found.variant, found.quality
    plain: dict[str, Any] = {
        "model": variant.model,
        "version": variant.version,
        "variant": variant.name,
    }
    if quality is None:
        return {**plain, "error": found.error}
    return {
        **plain,
        "metric": quality.metric,
        "quality": quality.value,
        "interval": [quality.low, quality.high],
        "rows": quality.rows,
        "beside": quality.beside,
        "p50_s": found.p50_s,
        "p99_s": found.p99_s,
        "cost_per_1000": found.cost,
    }
