"""Steps that ask more than once: a map over lists, a loop; a chat is in `graph_chat`.

Rules this module keeps:

1. Of a map, only so many items are in flight as its step says, and fewer while what is asked has no room: an item
   that was turned away is asked again when another has come back, so a step that expands data waits here and not
   in a queue.
2. A loop ends for each row by itself; rows that go on are asked together.
3. What is cancelled cancels everything it has asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from semaforo.errors import Expired, InvalidRequest, Refused, SemaforoError
from semaforo.graph.condition import Rows, condition
from semaforo.graph.graph import Step
from semaforo.graph.values import Array, Given
from semaforo.live.graph_chat import chat
from semaforo.live.graph_run import GraphRun, Worked

_RETRY_S = 0.005
_MOST_ITEMS = 1_000_000


async def each(run: GraphRun, step: Step, given: Given, deadline: float) -> Worked:
    """Run a step on every item of its lists, and gather what it gave in lists of the same lengths.

    Raises:
        SemaforoError: An item could not be answered.
    """
    lengths = _lengths(step, given)
    total = int(lengths.sum())
    if total > _MOST_ITEMS:
        raise InvalidRequest(f"{total} items in one map: {_MOST_ITEMS} are the most")
    items = {
        name: _flat(array) if name in step.each else np.repeat(array, lengths, axis=0)
        for name, array in given.arrays.items()
    }
    pieces = [slice(at, min(at + step.at_once, total)) for at in range(0, total, step.at_once)]
    # Items of one piece are rows of one request; two pieces keep a replica busy while one is handed over.
    parts = await _window(
        [{name: array[piece] for name, array in items.items()} for piece in pieces], run, step, deadline
    )
    names = parts[0].keys() if parts else ()
    gathered = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return {name: _folded(array, lengths) for name, array in gathered.items()}, given.rows


async def _window(
    pieces: Sequence[dict[str, Array]], run: GraphRun, step: Step, deadline: float
) -> list[dict[str, Array]]:
    room = asyncio.Semaphore(2)

    async def one(arrays: dict[str, Array]) -> dict[str, Array]:
        count = len(next(iter(arrays.values())))
        async with room:
            while True:
                try:
                    answer = await run.ask(step, arrays, count, deadline)
                except Refused as error:
                    if run.late(deadline):
                        raise Expired(f"no room for its items before the deadline: {error.message}") from None
                    await asyncio.sleep(min(0.1, error.retry_after_s or _RETRY_S))
                else:
                    assert answer.result is not None
                    return answer.result.arrays

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(arrays)) for arrays in pieces]
    return [task.result() for task in tasks]


async def loop(run: GraphRun, step: Step, given: Given, deadline: float) -> Worked:
    """Ask again with what came back, row by row until the condition holds or the rounds are used up.

    Raises:
        SemaforoError: A round could not be answered.
    """
    arrays = dict(given.arrays)
    going = np.arange(given.count)
    found: dict[str, Array] = {}
    until = condition(step.until) if step.until else None
    for _ in range(step.most):
        answer = await run.ask(step, {n: a[going] for n, a in arrays.items()}, len(going), deadline)
        assert answer.result is not None
        got = answer.result.arrays
        for name, array in got.items():
            kept = found.get(name)
            if kept is None or kept.shape[1:] != array.shape[1:]:
                if kept is not None and len(going) < given.count:
                    raise InvalidRequest(f"'{step.target}' gives another shape of '{name}' in each round")
                kept = found[name] = np.empty((given.count, *array.shape[1:]), array.dtype)
            kept[going] = array
        for name, output in step.carry.items():
            carried = got[output]
            if len(going) == given.count:
                arrays[name] = carried
            else:
                arrays[name] = arrays[name].copy()
                arrays[name][going] = carried
        if until is not None:
            done = until.holds({name: Rows(got[name]) for name in until.names}, len(going))
            going = going[~done]
        if not len(going):
            break
    return found, given.rows


def _lengths(step: Step, given: Given) -> Array:
    found: Array | None = None
    for name in step.each:
        array = given.arrays[name]
        if array.dtype == object and array.ndim == 1:
            lengths = np.array([len(cell) for cell in array])
        else:
            lengths = np.full(len(array), array.shape[1])
        if found is not None and not np.array_equal(found, lengths):
            raise InvalidRequest(f"the lists of {', '.join(step.each)} differ in length")
        found = lengths
    assert found is not None
    return found


def _flat(array: Array) -> Array:
    if array.dtype == object and array.ndim == 1:
        return np.concatenate([np.asarray(cell) for cell in array]) if len(array) else array
    return array.reshape(-1, *array.shape[2:])


def _folded(array: Array, lengths: Array) -> Array:
    if len(lengths) and (lengths == lengths[0]).all():
        return array.reshape(len(lengths), int(lengths[0]), *array.shape[1:])
    cells = np.empty(len(lengths), object)
    for row, part in enumerate(np.split(array, np.cumsum(lengths)[:-1])):
        cells[row] = part
    return cells


async def work(run: GraphRun, step: Step, given: Given, deadline: float) -> Worked:
    """Run a step that asks more than once.

    Raises:
        SemaforoError: It could not be answered.
    """
    way = each if step.each else loop if step.kind == "loop" else chat
    try:
        return await way(run, step, given, deadline)
    except ExceptionGroup as group:
        first = group.exceptions[0]
        raise first if isinstance(first, SemaforoError) else group from None
