"""``semaforo router train --embed``: has a model of a fleet embed the prompts of a table."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np

from semaforo.api.asynchronous import AsyncFleet
from semaforo.build import blueprint
from semaforo.entities import TaskType
from semaforo.entities.interface import roles
from semaforo.errors import InvalidRequest, NotFound
from semaforo.jobs.evaluate import examined, with_steps
from semaforo.routing.table import Table

_ROWS = 32


def embedded(table: Table, named: str) -> Table:
    """Return a table with the embeddings of its prompts.

    Args:
        table: Scores.
        named: ``FLEET:MODEL``.

    Raises:
        InvalidRequest: There is no such model, or its embeddings are of several kinds.
        FleetFileError: What is wrong with the fleet file.
    """
    file, _, target = named.rpartition(":")
    if not file or not target:
        raise InvalidRequest(f"--embed is '{named}'; it takes a fleet file and a model, as fleet.yaml:minilm")
    plan = blueprint(file, fitted=False)
    try:
        task = plan.catalog.task_of(target)
    except NotFound as error:
        raise InvalidRequest(error.message) from None
    if task.interface != "embedding":
        raise InvalidRequest(f"'{target}' gives no embeddings: name a model of a task of kind embedding")
    part = with_steps(plan.catalog, examined(plan.catalog, target))
    rows = [i for i, prompt in enumerate(table.prompts) if prompt.strip()]
    if not rows:
        raise InvalidRequest("the table has no column 'prompt', so there is nothing to embed")
    fleet = AsyncFleet(part, secrets=plan.secrets)
    vectors, spaces = asyncio.run(_ask(fleet, target, task, [table.prompts[i] for i in rows]))
    if len(spaces) > 1:
        raise InvalidRequest(f"'{target}' is several models ({', '.join(sorted(spaces))}): name one of them")
    found = np.full((len(table), vectors.shape[1]), np.nan, np.float32)
    found[rows] = vectors
    return msgspec.structs.replace(table, embeddings=found, space=spaces.pop())


async def _ask(
    fleet: AsyncFleet, target: str, task: TaskType, texts: list[str]
) -> tuple[np.ndarray, set[str]]:
    parts, spaces = [], set()
    tensors = roles(task)
    async with fleet:
        for at in range(0, len(texts), _ROWS):
            answer = await fleet.infer(target, inputs={tensors.input.name: texts[at : at + _ROWS]})
            parts.append(np.asarray(answer[tensors.output.name], np.float32))
            spaces.add(f"{answer.model}/{answer.version}")
    return np.concatenate(parts), spaces
