"""Measures how loaded each variant is and tells the controller, once a second, while something can scale."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from semaforo.catalog.state import Catalog
from semaforo.core.events import Load
from semaforo.core.state import State
from semaforo.observe.metrics import Metrics

PERIOD_S = 1.0


class LoadMeter:
    """Turns counters into `Load` events."""

    def __init__(self, metrics: Metrics, state: State, control: Callable[[Load], None]) -> None:
        self._metrics = metrics
        self._state = state
        self._control = control
        self._scaling: set[str] = set()
        self._before: dict[str, float] = {}
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, catalog: Catalog) -> None:
        """Watch the variants that may have more than one number of replicas; no timer runs for none."""
        self._scaling = {name for name, s in catalog.scaling.items() if s.most > s.least}
        if self._scaling and self._timer is None:
            self._at = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._measure)

    def close(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._scaling = set()

    def _measure(self) -> None:
        self._timer = None
        if not self._scaling:
            return
        now = time.monotonic()
        span, self._at = now - self._at, now
        busy: dict[str, float] = {}
        waiting: dict[str, int] = {}
        for name in self._scaling:
            book = self._state.variants.get(name)
            if book is None:
                continue
            running = sum(
                min(span, now - b.started) for b in self._state.batches.values() if b.variant == name
            )
            worked = self._metrics.variant(name).compute_s
            used = worked - self._before.get(name, 0.0)
            self._before[name] = worked
            # Work that still runs counts as far as it has got; it is not counted again when it ends.
            self._before[name] += running
            busy[name] = min(1.0, max(0.0, used + running) / (span * book.slots)) if book.slots else 0.0
            waiting[name] = sum(self._state.lanes[lane].rows for lane in book.lanes)
        self._control(Load(waiting, busy))
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._measure)
