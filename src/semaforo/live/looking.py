"""Looks at payloads by the extractors of their task, and measures what each of them costs.

Rules this module keeps:

1. An extractor runs in the loop while it is short: a quarter of what a request waits for its router, and half a
   millisecond at most. One that is longer, or that is somebody's own and was never measured, runs in a thread: the
   request waits for it as for the router, and goes on without either when its time is over.
2. One that takes longer than a request waits is left out, but for one request in `AGAIN`, to see whether it still
   does; so is any in a thread where `MOST_WAITING` requests wait already.
3. Whatever goes wrong in an extractor is said once; its features are left out, and the request goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isfinite

import msgspec

from semaforo.entities import TaskType
from semaforo.features.extract import chat_signals, tensor_signals, text_of
from semaforo.features.plan import BUILT_IN, Plan, Sources, looked_at, named, plan_of
from semaforo.features.signals import Signals
from semaforo.wire.payload import Chat, Payload

log = logging.getLogger("semaforo.features")

INLINE_S = 500e-6
INLINE_SHARE = 0.25
AGAIN = 64
MOST_WAITING = 8
_DECAY = 0.05

OWN = "own"
"""Under which name the function of a task's own is measured, and its features begin."""


class Cost(msgspec.Struct):
    """What an extractor has cost.

    Attributes:
        count: How often it ran.
        seconds: All the time it took.
        usual_s: Seconds it takes lately.
        away: How often it ran in a thread.
        skipped: How often it was left out.
        failed: How often it failed, or gave what is no number.
    """

    count: int = 0
    seconds: float = 0.0
    usual_s: float = 0.0
    away: int = 0
    skipped: int = 0
    failed: int = 0


class Seen(msgspec.Struct, frozen=True):
    """What was seen of a request.

    Attributes:
        signals: What it holds.
        whole: Whether every extractor has looked at it.
    """

    signals: Signals = Signals()
    whole: bool = True


Call = Callable[[], Mapping[str, float]]
Outcome = tuple[Mapping[str, float] | Exception, float]


class Looking:
    """Looks at payloads.

    Args:
        sources: What looks.
        task: Returns a task by name, or None.
        clock: Returns seconds.

    Attributes:
        costs: By task and extractor.
    """

    def __init__(
        self,
        sources: Sources,
        task: Callable[[str], TaskType | None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.costs: dict[tuple[str, str], Cost] = {}
        self._sources = sources
        self._task = task
        self._clock = clock
        self._plans: dict[str, tuple[TaskType, Plan]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._told: set[tuple[str, str]] = set()

    def close(self) -> None:
        """End the thread; what it still works on is waited for by nobody."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def look(
        self, task: str, payload: Payload | None, then: Callable[[Seen], None], *, patient: bool = False
    ) -> Seen | None:
        """Return what is seen of a request of a task; None where that takes a thread, and `then` will hear it.

        Args:
            task: Name of the task.
            payload: What the request holds.
            then: Hears it on the loop's thread.
            patient: Whether nobody waits, so that nothing is left out for being long.
        """
        about = self._task(task)
        if payload is None or about is None:
            return Seen()
        plan = self._plan(about)
        numbers: dict[str, float] = {}
        far: list[tuple[str, Call]] = []
        whole = True
        for kind, call in calls(plan, payload):
            cost = self._cost(task, kind)
            if cost.count == 0 and kind not in _TRUSTED:
                far.append((kind, call))
            elif cost.usual_s <= min(INLINE_S, INLINE_SHARE * (about.score_s or 1.0)):
                numbers |= self._took(task, kind, measured(call, self._clock), away=False)
            elif not patient and cost.usual_s > about.score_s > 0.0 and (cost.skipped + 1) % AGAIN:
                cost.skipped += 1
                whole = False
            else:
                far.append((kind, call))
        first = _plain(plan, payload) if about.inputs else signals_of(payload)
        if far and self._waiting < MOST_WAITING:
            self._send(task, far, lambda more: then(Seen(_joined(first, numbers | more), whole)))
            return None
        for kind, _ in far:
            self._cost(task, kind).skipped += 1
        return Seen(_joined(first, numbers), whole and not far)

    def _send(self, task: str, far: list[tuple[str, Call]], then: Callable[[dict[str, float]], None]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "semaforo-features")
        self._waiting += 1

        def ended(future: asyncio.Future[list[Outcome]]) -> None:
            self._waiting -= 1
            if future.cancelled():
                return
            numbers: dict[str, float] = {}
            for (kind, _), outcome in zip(far, future.result(), strict=True):
                numbers |= self._took(task, kind, outcome, away=True)
            then(numbers)

        def work() -> list[Outcome]:
            return [measured(call, self._clock) for _, call in far]

        asyncio.get_running_loop().run_in_executor(self._pool, work).add_done_callback(ended)

    def _took(self, task: str, kind: str, outcome: Outcome, *, away: bool) -> dict[str, float]:
        """Count what an extractor took, and return those of its features that are numbers."""
        found, seconds = outcome
        cost = self._cost(task, kind)
        cost.usual_s += (_DECAY if cost.count else 1.0) * (seconds - cost.usual_s)
        cost.count += 1
        cost.seconds += seconds
        cost.away += away
        if isinstance(found, Exception):
            self._complain(task, kind, f"raised {type(found).__name__}: {found}", found)
            return {}
        good = {name: value for name, value in found.items() if isfinite(value)}
        if len(good) < len(found):
            bad = next(name for name in found if name not in good)
            self._complain(task, kind, f"gave no finite number as '{bad}'", None)
        return good

    def _complain(self, task: str, kind: str, what: str, error: Exception | None) -> None:
        self._cost(task, kind).failed += 1
        if (task, kind) not in self._told:
            self._told.add((task, kind))
            log.error(
                "the features '%s' of '%s': %s; they are left out, and this is said once",
                kind, task, what, exc_info=error,
            )  # fmt: skip

    def _cost(self, task: str, kind: str) -> Cost:
        found = self.costs.get((task, kind))
        if found is None:
            found = self.costs[task, kind] = Cost()
        return found

    def _plan(self, task: TaskType) -> Plan:
        known = self._plans.get(task.name)
        if known is None or known[0] is not task:
            known = self._plans[task.name] = (task, plan_of(task, self._sources))
        return known[1]


_TRUSTED = frozenset(("tensor", *BUILT_IN))


def calls(plan: Plan, payload: Payload) -> list[tuple[str, Call]]:
    """Return what is to be called for a payload, each under its name."""
    if isinstance(payload, Chat):
        content: object = payload.body
        found: list[tuple[str, Call]] = []
    else:
        content = arrays = payload.arrays
        found = [
            (part.kind, partial(looked_at, part, arrays[part.input]))
            for part in plan.parts
            if part.input in arrays
        ]
    own = plan.own
    if own is not None:
        found.append((OWN, lambda: named(OWN, own(content))))
    return found


def everything(plan: Plan, payload: Payload) -> Signals:
    """Return all that the extractors of a plan say of a payload, however long it takes.

    Raises:
        Exception: An extractor failed.
    """
    numbers: dict[str, float] = {}
    for _, call in calls(plan, payload):
        numbers |= {name: value for name, value in call().items() if isfinite(value)}
    return _joined(_plain(plan, payload), numbers)


def measured(call: Call, clock: Callable[[], float]) -> Outcome:
    """Return what a call gave or raised, and the seconds it took."""
    begun = clock()
    found: Mapping[str, float] | Exception
    try:
        found = call()
    except Exception as error:
        found = error
    return found, clock() - begun


def signals_of(payload: Payload | None) -> Signals:
    """Return what is known of a payload whose task is not: texts, and general figures of tensors."""
    if payload is None:
        return Signals()
    return chat_signals(payload.body) if isinstance(payload, Chat) else tensor_signals(payload.arrays)


def _plain(plan: Plan, payload: Payload) -> Signals:
    """Return what takes no extractor: the text, and the figures of a chat."""
    if isinstance(payload, Chat):
        return chat_signals(payload.body)
    return Signals(text_of(payload.arrays[name] for name in plan.texts if name in payload.arrays))


def _joined(signals: Signals, numbers: Mapping[str, float]) -> Signals:
    return Signals(signals.text, {**signals.numbers, **numbers}) if numbers else signals
