"""The two machines on a loop: they get their events, dated, and are woken when they asked to be.

Rules this module keeps:

1. `tell` is never entered twice: each event sees the effects of the last one carried out.
2. What goes in and what comes out is in the journal before any of it is carried out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from semaforo.core.controller import Controller
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import ControllerEffect
from semaforo.core.events import ControllerEvent, DispatcherEvent, Tick
from semaforo.live.journal import JournalWriter
from semaforo.observe.metrics import Metrics

_RESOLUTION_S = 0.001
_FLUSH_S = 1.0


class Acts(Protocol):
    """Who carries out what the controller decides."""

    closing: bool

    def act(self, effect: ControllerEffect) -> None:
        """Carry out one effect."""
        ...


class Machines:
    """Dispatcher and controller of a live fleet.

    Args:
        metrics: Hears of every event of the dispatcher.
        journal: File to record every decision in, or None.
    """

    def __init__(self, metrics: Metrics, journal: Path | None) -> None:
        self.dispatcher = Dispatcher()
        self.controller = Controller()
        self._metrics = metrics
        self._journal_path = journal
        self._journal: JournalWriter | None = None
        self._act: Mapping[type, Callable[[Any], None]] = {}
        self._crew: Acts
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._control_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None

    def start(self, act: Mapping[type, Callable[[Any], None]], crew: Acts) -> None:
        """Begin, on the running loop.

        Args:
            act: Carries out the dispatcher's effects, by their type; those of other types are for nobody here.
            crew: Carries out the controller's.

        Raises:
            JournalError: The journal cannot be written.
        """
        self._loop = asyncio.get_running_loop()
        self._act, self._crew = act, crew
        if self._journal_path is not None:
            self._journal = JournalWriter(self._journal_path, self.dispatcher, self.controller)
            self._flush_later()

    def close(self) -> None:
        """Wake them no more, and end the journal."""
        for timer in (self._timer, self._control_timer, self._flush_timer):
            if timer is not None:
                timer.cancel()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def tell(self, event: DispatcherEvent) -> None:
        """Give the dispatcher an event, and carry out what follows."""
        # Not the loop's clock: uvloop's moves in steps of a millisecond.
        now = time.monotonic()
        effects = self.dispatcher.handle(event, now)
        self._metrics.event(event, now)
        if self._journal is not None:
            self._journal.decision(now, event, effects)
        act = self._act
        for effect in effects:
            do = act.get(type(effect))
            if do is not None:
                do(effect)
        at = self.dispatcher.next_deadline()
        if at is not None and (self._timer is None or at < self._timer_at):
            self._arm(at, now)

    def control(self, event: ControllerEvent) -> None:
        """Give the controller an event, and carry out what follows."""
        now = time.monotonic()
        effects = self.controller.handle(event, now)
        if self._journal is not None:
            self._journal.control(now, event, effects)
        for effect in effects:
            self._crew.act(effect)
        if self._control_timer is not None:
            self._control_timer.cancel()
            self._control_timer = None
        at = self.controller.next_deadline()
        if at is not None and not self._crew.closing:
            self._control_timer = self._loop.call_later(max(0.0, at - now), self.control, Tick())

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        # uvloop counts in whole milliseconds: what is due sooner would fire too early, and again, until it is due.
        self._timer = self._loop.call_later(max(_RESOLUTION_S, at - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.tell(Tick())

    def _flush_later(self) -> None:
        if self._journal is not None:
            self._journal.flush()
            self._flush_timer = self._loop.call_later(_FLUSH_S, self._flush_later)
