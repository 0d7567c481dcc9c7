"""Python models that hold their device for a known time without using the processor, and log when they did.

They stand for accelerators: three of them overlap on any number of cores, so what is measured is the scheduling and
not the fight for cores. Each call appends (start, end) in monotonic seconds to a file of its own process.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LOG = "SEMAFORO_BENCH_LOG"
BASE_S, ROW_S = 0.006, 0.003
FACTORS = {"small": 1.0, "medium": 1.5, "large": 2.0}
_SPAN = struct.Struct("<dd")

Rows = NDArray[np.float32]


def seconds(name: str, rows: int) -> float:
    """Return how long a batch takes."""
    return FACTORS[name] * (BASE_S + ROW_S * rows)


def spans(folder: Path, name: str) -> list[tuple[float, float]]:
    """Return when a model was busy, in order."""
    found = [s for path in folder.glob(f"{name}-*.spans") for s in _SPAN.iter_unpack(path.read_bytes())]
    return sorted((start, end) for start, end in found)


class _Sleeper:
    name = ""

    def load(self) -> None:
        path = Path(os.environ[LOG]) / f"{self.name}-{os.getpid()}.spans"
        self._log = path.open("ab", buffering=0)

    def close(self) -> None:
        self._log.close()

    def work(self, x: Rows) -> Rows:
        start = time.monotonic()
        time.sleep(seconds(self.name, len(x)))
        self._log.write(_SPAN.pack(start, time.monotonic()))
        return x[:, :1] * np.float32(2)


class Small(_Sleeper):
    """The fastest."""

    name = "small"

    def __call__(self, x: Rows) -> Rows:
        """Answer a batch."""
        return self.work(x)


class Medium(_Sleeper):
    """In between."""

    name = "medium"

    def __call__(self, x: Rows) -> Rows:
        """Answer a batch."""
        return self.work(x)


class Large(_Sleeper):
    """The slowest and best."""

    name = "large"

    def __call__(self, x: Rows) -> Rows:
        """Answer a batch."""
        return self.work(x)
