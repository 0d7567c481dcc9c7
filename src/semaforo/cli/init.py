"""``semaforo init``: a first fleet file for the models in a folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import typer

from semaforo.cli.progress import bar
from semaforo.config.fleet import parse_fleet
from semaforo.errors import ConfigError, InvalidRequest
from semaforo.jobs.draft import Draft, draft
from semaforo.jobs.fleet_text import fleet_text
from semaforo.repository.formats import FORMATS
from semaforo.repository.scan import Found, scan

_MOST_SHOWN = 10


def run(folder: Path, output: Path, force: bool) -> None:
    """Look for models, write the fleet file, and say what was found.

    Raises:
        InvalidRequest: There is no such folder, or no model in it.
        ConfigError: The file exists, or cannot be written.
    """
    if output.is_dir():
        raise ConfigError(
            f"{output} is a folder: name the file to write, as --output {output / 'fleet.yaml'}"
        )
    if output.exists() and not force:
        raise ConfigError(f"{output} exists: --force writes over it, --output names another file")
    # What cannot be loaded is told once, below.
    logging.getLogger("semaforo").setLevel(logging.CRITICAL)
    found, made = _found(folder, output.parent)
    if not made.tasks:
        raise InvalidRequest(_nothing(folder, found, made))
    text = fleet_text(made, output.parent, output.name)
    parse_fleet(text, folder=output.parent.resolve(), name=str(output), environment={})
    _write(output, text)
    for task in made.tasks:
        models = ", ".join(
            f"{m.name} ({', '.join(m.variants)})" if m.variants else m.name for m in task.models
        )
        typer.echo(f"{task.name}: {models}")
    for path, reason in made.left[:_MOST_SHOWN]:
        typer.echo(f"left out: {path}: {reason}", err=True)
    if len(made.left) > _MOST_SHOWN:
        typer.echo(f"left out: {len(made.left) - _MOST_SHOWN} more, listed in {output}", err=True)
    typer.echo(f"wrote {output}. Next: semaforo check {output}, then semaforo serve {output}")


def _found(folder: Path, beside: Path) -> tuple[Found, Draft]:
    with bar() as progress:
        row = progress.add_task("Looking", total=None)
        found = scan(folder, lambda path: progress.update(row, description=f"Looking into {path}"))
        files = sum(len(model.files) for model in found.models)
        progress.update(row, total=files)

        def loading(path: Path) -> None:
            progress.update(row, description=f"Loading {path.name}", advance=1)

        return found, draft(found, folder, beside, loading)


def _nothing(folder: Path, found: Found, made: Draft) -> str:
    if made.left:
        told = "\n".join(f"  {path}: {reason}" for path, reason in made.left[:_MOST_SHOWN])
        more = len(made.left) - _MOST_SHOWN
        return f"no model in {folder} can be served as it is:\n{told}" + (
            f"\n  and {more} more" if more > 0 else ""
        )
    kinds: dict[str, list[str]] = {}
    for suffix, runtime in FORMATS.items():
        kinds.setdefault(runtime, []).append(suffix)
    listed = "\n".join(f"  {' '.join(suffixes)} ({runtime})" for runtime, suffixes in kinds.items())
    return (
        f"no model is in '{folder}'. Understood are\n{listed}\n  .py with functions under @semaforo.model\n"
        "as loose files, or as <model>/<version>/<file>, and models behind a url, which a fleet file names by hand"
    )


def _write(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
