"""What the requests of a table are like, task by task, to be kept with the router that learns from them."""

from __future__ import annotations

import numpy as np

from semaforo.features.profile import MOST_ROWS, DataProfile, profile_of
from semaforo.features.text import text_numbers
from semaforo.routing.table import Table


def profiles_of(table: Table) -> dict[str, DataProfile]:
    """Return the profile of each task; a task of which there are too few requests has none."""
    tasks = np.array(table.tasks, dtype=object)
    found: dict[str, DataProfile] = {}
    for task in dict.fromkeys(table.tasks):
        rows = np.flatnonzero(tasks == task)
        rows = rows[:: max(1, -(-len(rows) // MOST_ROWS))]
        profile = profile_of([_numbers(table, row) for row in rows.tolist()])
        if profile is not None and profile.columns:
            found[task] = profile
    return found


def _numbers(table: Table, row: int) -> dict[str, float]:
    numbers = text_numbers(table.prompts[row]) if table.prompts[row] else {}
    if table.features:
        numbers |= dict(zip(table.features, table.numbers[row].tolist(), strict=True))
    return numbers
