"""Verifiers that are steps: loaded by digest, asked in the loop for a few rows, in threads for many."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import numpy as np

from semaforo.errors import ArtefactError, RuntimeLoadError, SemaforoError
from semaforo.graph.graph import Step, step_of
from semaforo.graph.verify import SAMPLED, question_of
from semaforo.live.functions import Told
from semaforo.routing.router import Router
from semaforo.routing.verifier import Verifier, seen_of
from semaforo.wire.payload import Array

SHORT_ROWS = 8
"""Rows up to which a verifier is asked in the loop: about a tenth of a millisecond each."""
_DECAY = 0.1


class Verifying:
    """One verifier of a graph.

    Args:
        step: The step that it is.
        takes: References to what it looks at, the answer first.
        inputs: Names of the graph's inputs.
        task: The task that the graph serves.

    Attributes:
        usual_s: Seconds a call usually takes.
    """

    def __init__(self, step: Step, takes: tuple[str, ...], inputs: tuple[str, ...], task: str) -> None:
        self.usual_s = 1e-4
        self._step = step
        self._task = task
        self._answer = takes[0]
        cheap = step_of(takes[0])
        self._sampled = {s.name: f"{cheap}.{s.name}" for s in SAMPLED if f"{cheap}.{s.name}" in takes}
        self._question = question_of(step, inputs)
        self._verifier: Verifier | None = None

    def load(self) -> None:
        """Read its file; blocks.

        Raises:
            RuntimeLoadError: It is another file than the one that was checked, or no verifier of this step.
        """
        path = self._step.target
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise RuntimeLoadError(f"{path} cannot be read: {error.strerror}") from None
        if sha256(data).hexdigest() != self._step.digest:
            raise RuntimeLoadError(f"{path} is not the file that was checked: its digest is another one")
        try:
            self._verifier = Verifier(Router.decode(data, path), self._task, self._step.against, path)
        except ArtefactError as error:
            raise RuntimeLoadError(str(error)) from None

    def close(self) -> None:
        """Free it."""
        self._verifier = None

    def call(self, arrays: dict[str, Array], rows: int, told: Told) -> None:
        """Look at rows; `told` hears gain and trust on the loop's thread, perhaps before this returns."""
        if rows <= SHORT_ROWS:
            told(self._run(arrays))
            return

        def ended(future: asyncio.Future[dict[str, Array] | SemaforoError]) -> None:
            if not future.cancelled():
                told(future.result())

        asyncio.get_running_loop().run_in_executor(None, self._run, arrays).add_done_callback(ended)

    def _run(self, arrays: dict[str, Array]) -> dict[str, Array] | SemaforoError:
        assert self._verifier is not None
        begun = perf_counter()
        question = {name: arrays[ref] for name, ref in self._question.items() if ref in arrays}
        sampled = {name: arrays[ref].reshape(-1) for name, ref in self._sampled.items()}
        try:
            gain, trust = self._verifier.gains(seen_of(question, arrays[self._answer], sampled))
        except Exception as error:
            return SemaforoError(f"the verifier failed: {type(error).__name__}: {error}")
        self.usual_s += _DECAY * (perf_counter() - begun - self.usual_s)
        return {"gain": np.asarray(gain, np.float64), "trust": np.asarray(trust, np.float64)}
