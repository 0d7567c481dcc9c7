"""Running members on a model: concatenated, bridged, run, bridged back; a poison member fails alone.

Rules this module keeps:

1. Every member gets exactly one outcome, in order: its part of a block, or an error.
2. Members that fail together are tried one by one, so that only those at fault fail; a model served elsewhere
   is asked again only where it has found fault with the input.
3. A model that gives another number of rows than it got is wrong on every input: nothing is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from semaforo.errors import InvalidRequest, SemaforoError, nearest
from semaforo.runtime.adapter import Bridge
from semaforo.runtime.adapter_flow import OutputMismatch
from semaforo.runtime.base import AsyncModel, Model
from semaforo.runtime.failure import as_error
from semaforo.wire.block import Block, Outcome, group, join, members_of, uneven
from semaforo.wire.payload import Array, Tensors

Clock = Callable[[], float]


class _Steps:
    """What sync and async executors share."""

    def __init__(self, bridge: Bridge, batched: bool, clock: Clock) -> None:
        self.bridge = bridge
        self._batched = batched
        self._clock = clock

    def _begin(self, block: Block, rows: int) -> dict[str, Array]:
        name = uneven(block.columns, rows)
        if name:
            raise InvalidRequest(f"input '{name}' has not as many rows as the first one, {rows}")
        return self.bridge.inputs(block.columns, rows)

    def _finish(self, block: Block, raw: dict[str, Array], rows: int) -> Block:
        columns = self.bridge.outputs(raw, rows)
        if block.outputs:
            columns = _wanted(columns, block.outputs)
        name = uneven(columns, rows)
        if name:
            got = columns[name].shape[0] if columns[name].ndim else "no"
            raise OutputMismatch(
                f"the model returned {got} rows in '{name}' for the {rows} it was given: a batched model "
                "returns one row for each; set 'batched: false' among its options if it takes one at a time"
            )
        return Block(columns, block.counts)


class Executor(_Steps):
    """Runs batches on a model that blocks."""

    def __init__(
        self, model: Model, bridge: Bridge, *, batched: bool = True, clock: Clock = time.perf_counter
    ) -> None:
        super().__init__(bridge, batched, clock)
        self._model = model

    def run(self, members: Sequence[Tensors]) -> tuple[list[Outcome], float]:
        """Run members and return their outcomes and the seconds it took; never raises."""
        groups = [members] if len(members) == 1 else group(members)
        begun = self._clock()
        outcomes: list[Outcome] = []
        for alike in groups:
            outcomes += self._block(join(alike))
        return outcomes, self._clock() - begun

    def run_blocks(self, blocks: Sequence[Block]) -> tuple[list[Outcome], float]:
        """Like `run`, for members that came joined."""
        begun = self._clock()
        outcomes: list[Outcome] = []
        for block in blocks:
            outcomes += self._block(block)
        return outcomes, self._clock() - begun

    def _block(self, block: Block) -> list[Outcome]:
        try:
            return [self._once(block)]
        except OutputMismatch as error:
            return [error for _ in block.counts]
        except Exception as error:
            if len(block.counts) == 1:
                return [as_error(error)]
        return [outcome for part in members_of(block) for outcome in self._block(part)]

    def _once(self, block: Block) -> Block:
        rows = block.rows
        inputs = self._begin(block, rows)
        if self._batched:
            raw = self._model.run(inputs, block.parameters)
        else:
            singles = [self._model.run(row, block.parameters) for row in _rows(inputs, rows)]
            raw = _stack(singles)
        return self._finish(block, raw, rows)


class AsyncExecutor(_Steps):
    """Runs batches on a model that is awaited; cancelling the task stops the work."""

    def __init__(
        self, model: AsyncModel, bridge: Bridge, *, batched: bool = True, clock: Clock = time.perf_counter
    ) -> None:
        super().__init__(bridge, batched, clock)
        self._model = model
        # A server that is full or gone would be asked as many times again as there are members.
        self._elsewhere = bool(getattr(model, "elsewhere", False))

    async def run(self, members: Sequence[Tensors]) -> tuple[list[Outcome], float]:
        """Run members and return their outcomes and the seconds it took; raises only when cancelled."""
        return await self.run_blocks([join(alike) for alike in group(members)])

    async def run_blocks(self, blocks: Sequence[Block]) -> tuple[list[Outcome], float]:
        """Like `run`, for members that came joined."""
        begun = self._clock()
        outcomes: list[Outcome] = []
        for block in blocks:
            outcomes += await self._block(block)
        return outcomes, self._clock() - begun

    async def _block(self, block: Block) -> list[Outcome]:
        try:
            return [await self._once(block)]
        except OutputMismatch as error:
            return [error for _ in block.counts]
        except Exception as error:
            if len(block.counts) == 1 or (self._elsewhere and not isinstance(error, InvalidRequest)):
                return [as_error(error) for _ in block.counts]
        outcomes: list[Outcome] = []
        for part in members_of(block):
            outcomes += await self._block(part)
        return outcomes

    async def _once(self, block: Block) -> Block:
        rows = block.rows
        inputs = self._begin(block, rows)
        if self._batched:
            raw = await self._model.arun(inputs, block.parameters)
        else:
            raw = _stack([await self._model.arun(row, block.parameters) for row in _rows(inputs, rows)])
        return self._finish(block, raw, rows)


def wholly_failed(outcomes: Sequence[Outcome]) -> SemaforoError | None:
    """Return an error where all members failed and the model, not their input, is at fault."""
    for outcome in outcomes:
        if not isinstance(outcome, SemaforoError) or isinstance(outcome, InvalidRequest):
            return None
    first = outcomes[0] if outcomes else None
    return first if isinstance(first, SemaforoError) else None


def _rows(inputs: dict[str, Array], rows: int) -> list[dict[str, Array]]:
    # np.asarray: a row of a one-dimensional object array is the bare cell.
    return [{name: _cell(array, i) for name, array in inputs.items()} for i in range(rows)]


def _cell(array: Array, row: int) -> Array:
    if array.ndim > 1:
        part: Array = array[row]
        return part
    return array[row : row + 1].reshape(())


def _stack(singles: list[dict[str, Array]]) -> dict[str, Array]:
    try:
        return (
            {name: np.stack([single[name] for single in singles]) for name in singles[0]} if singles else {}
        )
    except (ValueError, KeyError) as error:
        raise OutputMismatch(f"the model's answers to single rows do not fit together: {error}") from None


def _wanted(columns: dict[str, Array], names: Sequence[str]) -> dict[str, Array]:
    for name in names:
        if name not in columns:
            raise InvalidRequest(
                f"there is no output '{name}'.{nearest(name, columns)} There are {', '.join(columns)}"
            )
    return {name: columns[name] for name in names}
