"""Bars for work that takes a while: on stderr, and only where that is a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

_LOOK_S = 0.1


def bar() -> Progress:
    """Return a progress bar, to be used with ``with``; it leaves nothing behind."""
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@asynccontextmanager
async def loading(engine: Engine, replicas: int) -> AsyncIterator[None]:
    """Show how many replicas are through with loading, while the engine starts them inside the block."""
    with bar() as progress:
        if progress.disable:
            yield
            return
        row = progress.add_task("Loading", total=replicas)

        async def look() -> None:
            while True:
                states = engine.replicas()
                waiting = [status for status in states if status.state == "starting"]
                name = f"Loading {waiting[0].id}" if waiting else "Loading"
                progress.update(row, description=name, completed=len(states) - len(waiting))
                await asyncio.sleep(_LOOK_S)

        looking = asyncio.ensure_future(look())
        try:
            yield
        finally:
            looking.cancel()
