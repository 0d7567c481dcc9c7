"""``semaforo replay``."""

from __future__ import annotations

from pathlib import Path

import typer

from semaforo.entities.units import show_duration
from semaforo.errors import JournalError
from semaforo.sim.replay import replay


def run(journal: Path) -> None:
    """Replay a journal and print what was found.

    Raises:
        JournalError: It cannot be read, or a decision differs from what was recorded.
    """
    found = replay(journal)
    plural = "" if found.segments == 1 else "s"
    typer.echo(
        f"{found.events} events over {show_duration(found.seconds)} in {found.segments} segment{plural}"
    )
    for title, counts in (("events", found.kinds), ("answers", found.outcomes)):
        if counts:
            typer.echo(f"{title}: " + ", ".join(f"{name} {n}" for name, n in counts.most_common()))
    if found.cut:
        typer.echo(f"the last {found.cut} bytes are no whole record: the writer was interrupted there")
    difference = found.difference
    if difference is not None:
        effects = "".join(f"\n  {effect}" for effect in difference.effects) or "\n  nothing"
        raise JournalError(
            f"{journal}: record {difference.record} differs. At {difference.now:.6f} s\n  {difference.event}\n"
            f"now gives, other than recorded,{effects}"
        )
    typer.echo("identical: every decision is the same")
