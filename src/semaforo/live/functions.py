"""Functions that are steps: called in the loop while they are short, in threads else.

A function is hosted as any Python model is, so it takes and gives what such a model does, and what it gives is
checked. When it is loaded it is measured: one that is shorter than a hop to a thread is called in the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import numpy as np

from semaforo.entities import BatchProfile, ReplicaSpec, TensorSpec
from semaforo.errors import RuntimeLoadError, SemaforoError
from semaforo.graph.graph import Step
from semaforo.runtime.host import Hosted, load, warm
from semaforo.wire.block import Block, Outcome
from semaforo.wire.payload import Array, Tensors

SHORT_S = 200e-6
"""Usual seconds up to which a function is called in the loop."""
LONG_S = 0.002
"""A call in the loop that takes longer sends its function back to threads."""
_DECAY = 0.1

Told = Callable[[dict[str, Array] | SemaforoError], None]


class Function:
    """One function of a graph.

    Args:
        step: The step that calls it.
        takes: What it is called with.

    Attributes:
        usual_s: Seconds a call usually takes.
    """

    def __init__(self, step: Step, takes: tuple[TensorSpec, ...]) -> None:
        self.usual_s = SHORT_S
        self._step = step
        self._takes = tuple(
            msgspec.structs.replace(spec, name=name)
            for name, spec in zip(step.inputs or [spec.name for spec in takes], takes, strict=True)
        )
        self._hosted: Hosted | None = None
        self._inline = False
        self._ragged = any(-1 in spec.shape for spec in step.outputs)

    def load(self) -> None:
        """Find the function and try it; blocks.

        Raises:
            SemaforoError: It cannot be found, or gives something else than it says.
        """
        step = self._step
        spec = ReplicaSpec(
            step.name, step.name, "python", step.target,
            inputs=tuple(msgspec.to_builtins(one) for one in self._takes),
            outputs=tuple(msgspec.to_builtins(one) for one in step.outputs),
            max_rows=4,
        )  # fmt: skip
        hosted = load(spec)
        if hosted.executor is None:
            hosted.close()
            raise RuntimeLoadError(
                f"'{step.target}' is awaited or streams: a step calls a plain function; make it a model to ask"
            )
        try:
            warm(spec, hosted)
        except BaseException:
            hosted.close()
            raise
        self._hosted = hosted
        profile = hosted.profile
        if isinstance(profile, BatchProfile):
            self.usual_s = profile.seconds(1)
            self._inline = 0 < profile.p99_s < SHORT_S

    def close(self) -> None:
        """Free it."""
        if self._hosted is not None:
            self._hosted.close()

    def call(self, arrays: dict[str, Array], rows: int, told: Told) -> None:
        """Call it; `told` hears what it gave on the loop's thread, perhaps before this returns."""
        if self._inline:
            result, seconds = self._run(arrays, rows)
            self._learn(seconds)
            if seconds > LONG_S:
                self._inline = False
            told(result)
            return

        def ended(future: asyncio.Future[tuple[dict[str, Array] | SemaforoError, float]]) -> None:
            if future.cancelled():
                return
            result, seconds = future.result()
            self._learn(seconds)
            told(result)

        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self._run, arrays, rows).add_done_callback(ended)

    def _run(self, arrays: dict[str, Array], rows: int) -> tuple[dict[str, Array] | SemaforoError, float]:
        assert self._hosted is not None
        assert self._hosted.executor is not None
        run = self._hosted.executor.run
        if rows == 1 or not self._ragged:
            outcomes, seconds = run([Tensors(arrays)])
            return _plain(outcomes[0]), seconds
        # Lists may be longer in one row than in another, so that rows do not stack.
        found: list[dict[str, Array]] = []
        seconds = 0.0
        for row in range(rows):
            outcomes, took = run([Tensors({name: array[row : row + 1] for name, array in arrays.items()})])
            seconds += took
            result = _plain(outcomes[0])
            if isinstance(result, SemaforoError):
                return result, seconds
            found.append(result)
        return {name: _stacked([one[name] for one in found]) for name in found[0]}, seconds

    def _learn(self, seconds: float) -> None:
        self.usual_s += _DECAY * (seconds - self.usual_s)


def _stacked(parts: list[Array]) -> Array:
    if all(part.shape == parts[0].shape for part in parts):
        return np.concatenate(parts)
    cells = np.empty(len(parts), object)
    for row, part in enumerate(parts):
        cells[row] = part[0]
    return cells


def _plain(outcome: Outcome) -> dict[str, Array] | SemaforoError:
    return outcome.columns if isinstance(outcome, Block) else outcome
