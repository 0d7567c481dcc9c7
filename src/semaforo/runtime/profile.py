"""The load-time profile: a warm-up curve at 1, 2, 4 … rows, and the line that is fitted to it.

Rules this module keeps:

1. It takes about `budget_s` in all, however slow the model; a rung that would not fit is left out.
2. The fit weighs relative errors: to be 10 % off at one row is as bad as at sixty-four.
3. Made-up input may be input that a model refuses. That says nothing: there is then no profile. Output that
   does not match what is declared says all: loading fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from semaforo.entities import DTYPES, BatchProfile, TensorSpec
from semaforo.errors import RuntimeLoadError, SemaforoError
from semaforo.runtime.adapter_flow import OPEN, OutputMismatch
from semaforo.runtime.execute import AsyncExecutor, Executor
from semaforo.wire.block import Block, Outcome
from semaforo.wire.payload import Array

BUDGET_S = 0.5
_TAIL_RUNS = 300
_TAIL_SHARE = 0.3
_RUNG_RUNS = 30


def sample(
    inputs: Sequence[TensorSpec], rows: int, fields: Mapping[str, dict[str, TensorSpec]] | None = None
) -> dict[str, Array] | None:
    """Make up input for a signature, or return None where it says too little.

    Args:
        inputs: Dimensions that may be anything are taken as 1.
        rows: Rows to make.
        fields: BYTES tensor → the JSON fields a bridge reads from it.
    """
    columns: dict[str, Array] = {}
    for spec in inputs:
        if spec.dtype == OPEN:
            return None
        shape = (rows, *(1 if d < 0 else d for d in spec.shape))
        if spec.dtype == "BYTES":
            words: Array = np.empty(shape, dtype=object)
            words[...] = _json(fields[spec.name]) if fields and spec.name in fields else _word(spec)
            columns[spec.name] = words
        else:
            columns[spec.name] = np.zeros(shape, dtype=DTYPES[spec.dtype])
    return columns


def fit(curve: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return ``(a, b)`` ≥ 0 of the line ``a + b · rows`` with the least squared relative error.

    With two unknowns, non-negative least squares has three cases: both free, or one of them at zero.
    """
    rows = np.array([r for r, _ in curve], dtype=float)
    seconds = np.array([s for _, s in curve], dtype=float)
    x, y = 1.0 / seconds, rows / seconds
    if len(set(rows.tolist())) > 1:
        (a, b), *_ = np.linalg.lstsq(np.stack([x, y], axis=1), np.ones(len(rows)), rcond=None)
        if a >= 0 and b >= 0:
            return float(a), float(b)
    flat = float(x.sum() / (x * x).sum())
    steep = float(y.sum() / (y * y).sum())
    wrong = [float(((flat * x - 1) ** 2).sum()), float(((steep * y - 1) ** 2).sum())]
    if len(curve) == 1:
        # One point tells nothing of the slope: take each row as dear as the first, the careful guess.
        return 0.0, steep
    return (flat, 0.0) if wrong[0] <= wrong[1] else (0.0, steep)


def rungs(max_rows: int) -> list[int]:
    """Return 1, 2, 4 … and `max_rows` itself."""
    powers = [1 << i for i in range(max_rows.bit_length()) if 1 << i <= max_rows]
    return powers if powers[-1] == max_rows else [*powers, max_rows]


class _Ladder:
    """Decides what to run next; the two drivers below run it."""

    def __init__(self, max_rows: int, budget_s: float) -> None:
        self._rungs = rungs(max(1, max_rows))
        self._end = time.perf_counter() + budget_s
        self._budget_s = budget_s
        self.curve: list[tuple[int, float]] = []
        self.p99_s = 0.0

    def plan(self, rows: int, first_s: float) -> int:
        """Return how many runs to measure at this rung, whose warm-up run took `first_s`."""
        left = max(0.0, self._end - time.perf_counter())
        if rows == 1:
            share, most = self._budget_s * _TAIL_SHARE, _TAIL_RUNS
        else:
            share, most = left / 4, _RUNG_RUNS
        return max(1, min(most, int(share / max(first_s, 1e-6))))

    def add(self, rows: int, times: list[float]) -> bool:
        """Take a rung's times; tell whether the next rung fits in what is left."""
        middle = float(np.median(times))
        self.curve.append((rows, middle))
        if rows == 1:
            self.p99_s = float(np.quantile(times, 0.99))
        return time.perf_counter() + 4 * middle < self._end

    def steps(self) -> list[int]:
        """Return the rungs to try, in order."""
        return self._rungs

    def profile(self) -> BatchProfile:
        """Return what was measured."""
        a, b = fit(self.curve)
        return BatchProfile(a, b, self.p99_s, tuple(self.curve))


def measure(executor: Executor, max_rows: int, *, budget_s: float = BUDGET_S) -> BatchProfile | None:
    """Warm a model up and measure it, in about `budget_s` seconds.

    Raises:
        RuntimeLoadError: What the model returns does not match what is declared.
    """
    ladder = _Ladder(max_rows, budget_s)
    for rows in ladder.steps():
        block = _block(executor.bridge.signature.inputs, rows, executor.bridge.fields)
        if block is None:
            return None
        first = _seconds(executor.run_blocks([block]))
        if first is None:
            break
        times = [_seconds(executor.run_blocks([block])) or first for _ in range(ladder.plan(rows, first))]
        if not ladder.add(rows, times):
            break
    return ladder.profile() if ladder.curve else None


async def measure_async(
    executor: AsyncExecutor, max_rows: int, *, budget_s: float = BUDGET_S
) -> BatchProfile | None:
    """Like `measure`, for a model that is awaited."""
    ladder = _Ladder(max_rows, budget_s)
    for rows in ladder.steps():
        block = _block(executor.bridge.signature.inputs, rows, executor.bridge.fields)
        if block is None:
            return None
        first = _seconds(await executor.run_blocks([block]))
        if first is None:
            break
        times = [
            _seconds(await executor.run_blocks([block])) or first for _ in range(ladder.plan(rows, first))
        ]
        if not ladder.add(rows, times):
            break
    return ladder.profile() if ladder.curve else None


def rows_within(profile: BatchProfile, seconds: float, most: int) -> int:
    """Return how many rows a batch may have to be predicted to end within `seconds`; at least 1."""
    if profile.row_s <= 0:
        return most if profile.base_s <= seconds else 1
    return max(1, min(most, math.floor((seconds - profile.base_s) / profile.row_s)))


def _block(
    inputs: Sequence[TensorSpec], rows: int, fields: Mapping[str, dict[str, TensorSpec]]
) -> Block | None:
    columns = sample(inputs, rows, fields)
    return None if not columns else Block(columns, [rows])


def _seconds(ran: tuple[list[Outcome], float]) -> float | None:
    outcomes, seconds = ran
    for outcome in outcomes:
        if isinstance(outcome, OutputMismatch | RuntimeLoadError):
            raise RuntimeLoadError(f"warming up: {outcome.message}") from outcome
        if isinstance(outcome, SemaforoError):
            return None
    return seconds


def _word(spec: TensorSpec) -> str:
    return spec.labels[0] if spec.labels else "word"


def _json(fields: Mapping[str, TensorSpec]) -> str:
    tree: dict[str, object] = {}
    for path, spec in fields.items():
        branch = tree
        *parents, leaf = path.split(".")
        for key in parents:
            branch = branch.setdefault(key, {})  # type: ignore[assignment]  # only dicts stand above a leaf
        made = sample([spec], 1)
        branch[leaf] = made[spec.name].tolist()[0] if made else "word"
    return msgspec.json.encode(tree).decode()
