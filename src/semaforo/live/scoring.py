"""Answers `Score`: looks at payloads and predicts what each variant gains on them.

Rules this module keeps:

1. Requests that come in one round of the loop are looked at together; so are those whose embeddings come in one.
2. Whatever goes wrong here, the request goes on without a prediction: the base serves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from semaforo.core.effects import Score
from semaforo.core.events import Scored
from semaforo.features.context import context_of
from semaforo.features.profile import DRIFT
from semaforo.features.signals import Signals
from semaforo.live.drifting import numbers_of
from semaforo.live.embedding import Embedding
from semaforo.live.looking import Seen, signals_of
from semaforo.live.rollouts import Rollouts
from semaforo.routing.scorer import Scorer
from semaforo.wire.payload import Payload

__all__ = ["Scoring", "column_of", "gains_of", "signals_of"]

log = logging.getLogger("semaforo.routing")

_MOST_KEPT = 4096


Looked = tuple[str, Score, Signals]


class Embeds(Protocol):
    """How the embedding of a request is asked for."""

    def embed(self, task: str, effect: Score, text: str, then: Callable[[Embedding | None], None]) -> bool:
        """Ask for it; tell whether `then` is called, now or later, with what the router of the task can read."""
        ...


class Looks(Protocol):
    """How a request is looked at."""

    def look(self, task: str, payload: Payload | None, then: Callable[[Seen], None]) -> Seen | None:
        """Return what is seen of it; None where that takes a while, and `then` will hear it."""
        ...


class Scoring:
    """Scores the requests of tasks that have a trained router, and says what those look like that explore by it.

    Args:
        rollouts: The routers of tasks.
        task_of: Returns the task of a live request, or None.
        tell: Tells the dispatcher.
        looking: Looks at payloads.
        keeps: Whether what was seen of a request is kept until `signals` asks for it.
        embeds: Asks for embeddings of requests whose router looks at them.
        drifted: Hears how far a request is from what its models were measured on.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        task_of: Callable[[str], str | None],
        tell: Callable[[Scored], None],
        looking: Looks,
        *,
        keeps: bool = False,
        embeds: Embeds | None = None,
        drifted: Callable[[str, float], None] = lambda request, share: None,
    ) -> None:
        self._drifted = drifted
        self._embeds = embeds
        self._looked: list[Looked] = []
        self._keeps = keeps
        self._rollouts = rollouts
        self._task_of = task_of
        self._tell = tell
        self._looking = looking
        self._asked: list[tuple[Score, Payload | None]] = []
        self._signals: dict[str, Signals] = {}

    def __bool__(self) -> bool:
        return bool(self._rollouts.courses)

    def ask(self, effect: Score, payload: Payload | None) -> None:
        """Score a request, with others of this round."""
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._flush)
        self._asked.append((effect, payload))

    def signals(self, request_id: str) -> Mapping[str, float]:
        """Return what was seen of a request by name, once; empty where it was not looked at."""
        signals = self._signals.pop(request_id, None)
        if signals is None:
            return {}
        return numbers_of(signals)

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        looked: list[Looked] = []
        for effect, payload in asked:
            task = self._task_of(effect.request)
            if task is None:
                continue
            try:
                seen = self._looking.look(task, payload, partial(self._late, task, effect))
            except Exception:
                log.exception("request %s could not be looked at: it is routed as usual", effect.request)
                self._tell(Scored(effect.request, {}))
                continue
            if seen is not None and not self._embed(task, effect, seen.signals):
                looked.append((task, effect, seen.signals))
        self._score(looked)

    def _late(self, task: str, effect: Score, seen: Seen) -> None:
        """Go on with a request that took a thread to look at, if it still waits."""
        if self._task_of(effect.request) is not None and not self._embed(task, effect, seen.signals):
            self._score([(task, effect, seen.signals)])

    def _embed(self, task: str, effect: Score, signals: Signals) -> bool:
        """Ask for the embedding of a request; tell whether it goes on once that is there."""
        if self._embeds is None:
            return False
        then = partial(self._embedded, task, effect, signals)
        try:
            return self._embeds.embed(task, effect, signals.text, then)
        except Exception:
            log.exception("request %s could not be embedded: it is routed without", effect.request)
            return False

    def _embedded(self, task: str, effect: Score, signals: Signals, found: Embedding | None) -> None:
        if not self._looked:
            asyncio.get_running_loop().call_soon(self._flush_embedded)
        if found is not None:
            signals = msgspec.structs.replace(signals, embedding=found.vector, space=found.space)
        self._looked.append((task, effect, signals))

    def _flush_embedded(self) -> None:
        looked, self._looked = self._looked, []
        self._score(looked)

    def _score(self, looked: list[Looked]) -> None:
        by_task: dict[str, list[tuple[Score, Signals]]] = {}
        for task, effect, signals in looked:
            by_task.setdefault(task, []).append((effect, signals))
        for task, found in by_task.items():
            try:
                scored = self._rollouts.score(task, found, gains_of)
            except Exception:
                log.exception("the router of '%s' failed: requests are routed as usual", task)
                scored = [Scored(effect.request, {}, 0.0) for effect, _ in found]
            for (effect, signals), event in zip(found, scored, strict=True):
                # What comes after the request has ended would be asked for by nobody.
                if (
                    self._keeps
                    and len(self._signals) < _MOST_KEPT
                    and self._task_of(effect.request) is not None
                ):
                    self._signals[effect.request] = signals
                if DRIFT in signals.numbers:
                    self._drifted(effect.request, signals.numbers[DRIFT])
                if effect.context:
                    event = msgspec.structs.replace(
                        event, context=context_of(numbers_of(signals), event.gain)
                    )
                self._tell(event)


def gains_of(
    scorer: Scorer, task: str, asked: list[tuple[Score, Signals]]
) -> list[tuple[dict[str, float], float]]:
    """Return by variant how much better than usual it is likely to do, and the trust in that, for each request."""
    predictor = scorer.predictor
    scores, trust = scorer.predict(task, [signals for _, signals in asked])
    usual = scorer.usual(task)
    columns = {name: j for j, name in enumerate(predictor.models)}
    found = []
    for row, (effect, _) in enumerate(asked):
        gain: dict[str, float] = {}
        for candidate in effect.candidates:
            column = column_of(candidate, columns)
            if column is not None:
                gain[candidate] = float(scores[row, column] - usual[column])
        found.append((gain, float(trust[row])))
    return found


def column_of(variant: str, columns: Mapping[str, int]) -> int | None:
    """Return the column of a variant: under ``model/version/variant``, ``model/variant``, or ``model``."""
    model, version, name = variant.split("/", 2)
    for known in (variant, f"{model}/{name}", f"{model}/{version}", model):
        if known in columns:
            return columns[known]
    return None
