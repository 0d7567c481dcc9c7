"""What an engine learns by: predictions, shadows, feedback, the history, and answers that were given before.

Rules this module keeps:

1. Nothing here decides: it looks at payloads and answers, and tells the dispatcher what it saw.
2. What goes wrong here is logged, and costs no request its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Believed, Decided, Finish, Score
from semaforo.core.events import DispatcherEvent, Feedback, Remembered, Scored
from semaforo.core.state import State
from semaforo.entities import Priority, Request, Step
from semaforo.features.plan import Sources
from semaforo.live.answer import Answer
from semaforo.live.cache import REPLICA, SEMANTIC, Answers, Kept, Said
from semaforo.live.comparing import Comparing
from semaforo.live.drifting import Drifting
from semaforo.live.embedding import Embeddings, RouterEmbeddings
from semaforo.live.feedback import SHADOW, Opinion, Opinions
from semaforo.live.judging import Judging
from semaforo.live.looking import Looking
from semaforo.live.meanings import Figures, Meanings
from semaforo.live.memory import Memory
from semaforo.live.rollouts import Rollouts
from semaforo.live.scoring import Scoring
from semaforo.live.stream import Stream
from semaforo.observe.explain import Ring
from semaforo.repository.history import HistoryStore
from semaforo.repository.routers import Routed
from semaforo.wire.payload import Payload, Tensors

_BAD = 0.5
SHADOW_S = 10.0
"""Seconds within which a shadow answer is of use."""

log = logging.getLogger("semaforo.engine")


class Asks(Protocol):
    """How a copy of a request is asked."""

    def new_id(self) -> str:
        """Return a fresh request id."""
        ...

    def submit(self, request: Request, payload: Payload, on_answer: Callable[[Answer], None]) -> None:
        """Serve a request."""
        ...

    def stream(self, request: Request, payload: Payload) -> Stream:
        """Serve a request whose answer comes in chunks."""
        ...

    def now(self) -> float:
        """Return monotonic seconds."""
        ...


Again = tuple[Answer, Said]
"""An answer that is given again."""


class Learning:
    """The part of an engine that learns.

    Args:
        state: The dispatcher's.
        ring: Explanations.
        tell: Tells the dispatcher.
        asks: The engine.
        history: Where what is learned is kept, or None.
        routers: Trained routers by task.
        sources: What looks at payloads; None = what is built in.

    Attributes:
        rollouts: The routers as they serve.
        looking: Looks at payloads.
        drifting: Holds them against what models were measured on.
    """

    def __init__(
        self,
        state: State,
        ring: Ring,
        tell: Callable[[DispatcherEvent], None],
        asks: Asks,
        history: HistoryStore | None,
        routers: Mapping[str, Routed],
        sources: Sources | None = None,
    ) -> None:
        self._state = state
        self._ring = ring
        self._tell = tell
        self._asks = asks
        self._memory = Memory(history, state) if history is not None else None
        self._opinions = Opinions(state, ring, tell)
        self._opinions.archive = self._memory
        self._opinions.routed = routers.keys()
        self.rollouts = Rollouts(routers)
        sources = sources or Sources()
        self.looking = Looking(sources, lambda name: state.catalog.tasks.get(name))
        self.drifting = Drifting(
            self.looking, sources.profiles, self.rollouts.trained_on, lambda: self._state.catalog
        )
        self._embeddings = Embeddings(state, asks)
        embeds = RouterEmbeddings(state, self._embeddings, self.rollouts.levels)
        self._scoring = Scoring(
            self.rollouts, self._task_of, self._scored, self.drifting,
            keeps=history is not None, embeds=embeds, drifted=ring.drifted,
        )  # fmt: skip
        self._before = Answers(state, ring.size)
        self._comparing = Comparing(asks)
        self._judging = Judging(state, asks, self._opinions.judged)
        self._meanings = Meanings(state, self._before, self._embeddings, self._comparing, ring, asks.now)
        self._opinions.kept = self
        self._keeping: asyncio.Task[None] | None = None

    # --- life ------------------------------------------------------------------------------------------

    def start(self, catalog: Catalog) -> None:
        """Take up what was known, and begin to keep what will be."""
        if self._memory is None:
            return
        noted = self._memory.notes()
        self._meanings.noted(noted)
        self.rollouts.noted(noted)
        self._memory.noting = lambda: {**self._meanings.notes(), **self.rollouts.notes()}
        known, accounts = self._memory.remembered(catalog), self._memory.accounts()
        if known or accounts:
            self._tell(Remembered(known, accounts))
        self._keeping = asyncio.get_running_loop().create_task(self._memory.keep())

    async def stop(self) -> None:
        """Write what is left."""
        self.looking.close()
        self.quiet()
        if self._keeping is not None and self._memory is not None:
            self._keeping.cancel()
            self._keeping = None
            await self._memory.close()

    def quiet(self) -> None:
        """Ask nothing more that nobody waits for."""
        self._comparing.close()
        self._judging.close()

    def changed(self, before: Catalog, after: Catalog) -> None:
        """Drop what is out of date in another catalog."""
        self._before.changed(before, after)
        self._meanings.changed(before, after)

    # --- a request -------------------------------------------------------------------------------------

    def found(self, request: Request, payload: Payload, now: float) -> Again | None:
        """Return what was answered to this very request before, to be explained as any other."""
        found = self._before.found(request, payload, now)
        if found is None:
            return None
        self._ring.arrived(request)
        return self._again(request, found, REPLICA, 0.0)

    def look(
        self, request: Request, payload: Payload, go_on: Callable[[Request, Again | None], None]
    ) -> bool:
        """Look for the answer to one that means the same; tell whether `go_on` is called, now or later.

        It takes the request as it goes on, and the answer or None.
        """

        def found(left: Request, kept: Kept | None, waited: float) -> None:
            go_on(left, None if kept is None else self._again(left, kept, SEMANTIC, waited))

        return self._meanings.look(request, payload, found)

    def let_go(self, request_id: str) -> bool:
        """Forget a request that `look` looks at; tell whether it did."""
        return self._meanings.let_go(request_id)

    def _again(self, request: Request, kept: Kept, replica: str, waited: float) -> Again:
        finish = Finish(request.id, "done", variant=kept.variant, replica=replica, total_s=waited)
        self._ring.finished(finish)
        result = kept.said if isinstance(kept.said, Tensors) else None
        if result is not None:
            self._opinions.answered(request.id, result)
        model, version, name = kept.variant.split("/", 2)
        return Answer(finish, result, model, version, name), kept.said

    def wanted(self, request: Request) -> bool:
        """Tell whether all of the answer to a request is to be kept: to be given again, or to be judged."""
        return self._before.wanted(request.id) or self._judging.wants(request)

    def score(self, effect: Score, payload: Payload | None) -> None:
        """Predict what variants gain on a request."""
        self._scoring.ask(effect, payload)

    def _scored(self, event: Scored) -> None:
        self._opinions.contexts.scored(event)
        self._tell(event)

    def spoke(self, effect: Decided) -> None:
        """Take in which router decided on a request."""
        self.rollouts.spoke(effect)

    def shadow(self, effect: Decided, payload: Payload | None) -> None:
        """Ask a copy of a request of a variant that is to be learned about; nobody waits for the answer."""
        request = self._ring.request(effect.request)
        if request is None or payload is None:
            return
        model, version, variant = effect.shadow.split("/", 2)
        contract = msgspec.structs.replace(request.contract, priority=Priority.LOW, deadline_s=SHADOW_S)
        copy = msgspec.structs.replace(
            request, id=self._asks.new_id(), target=model, version=version, variant=variant, contract=contract,
            step=Step(request.id, SHADOW), affinity="",
        )  # fmt: skip

        def submit() -> None:
            self._asks.submit(copy, payload, lambda _: self._opinions.agreed(copy.step, copy.id))

        # Once the effects of this event are carried out: the request itself goes first.
        asyncio.get_running_loop().call_soon(submit)

    def finished(
        self,
        effect: Finish,
        payload: Payload | None,
        result: Tensors | None,
        stream: Stream | None,
        now: float,
    ) -> None:
        """Keep what an answer may teach."""
        rid, done = effect.request, effect.outcome == "done"
        request = self._ring.request(rid)
        whole: Said | None = result
        if stream is not None and stream.kept is not None:
            whole = tuple(stream.kept)
        if done and result is not None:
            self._opinions.answered(rid, result)
        if done and request is not None and payload is not None and whole is not None:
            self._judging.answered(request, payload, effect, whole)
        if done and request is not None and (request.step is None or request.step.name != SHADOW):
            self.drifting.answered(effect.variant, payload)
        if self._memory is not None:
            signals = self._scoring.signals(rid)
            if done and request is not None:
                propensity = self._ring.propensity(rid)
                if propensity == 1.0:
                    propensity = self.rollouts.chance(rid, effect.variant)
                self._memory.answered(request, effect, propensity, signals)
        self.rollouts.finished(effect)
        if self._before.wanted(rid):
            said = whole if done else None
            kept = self._before.answered(rid, said, effect.variant, now, self._meanings.bytes_of(rid))
            self._meanings.answered(rid, said, effect.variant, kept)

    # --- what came of it -------------------------------------------------------------------------------

    def feedback(self, request_id: str, opinion: Opinion, tenant: str | None = None) -> tuple[Feedback, ...]:
        """Learn from what a caller says of an answer; see `Opinions.take`."""
        return self._opinions.take(request_id, opinion, tenant)

    def agreed(self, finish: Finish, score: float, weight: float) -> None:
        """Learn that an answer was with what was fused of several on a share of its rows."""
        self._opinions.weakly(Feedback(finish.request, finish.variant, score, weight, "agreement"))

    def judged(self, feedback: Feedback) -> bool:
        """See `live.feedback.Kept`: what is bad is not given again."""
        self.rollouts.judged(feedback)
        if feedback.score < _BAD:
            self._before.bad(feedback.request)
        return self._meanings.judged(feedback.request, feedback.score, feedback.variant)

    def likened(self) -> dict[str, Figures]:
        """Return by task what came of giving answers to requests that mean the same."""
        return self._meanings.figures()

    def cached(self) -> dict[str, tuple[int, int]]:
        """Return by task how many requests were answered by what was kept, and how many were not."""
        return {task: (cache.hits, cache.misses) for task, cache in self._before.caches().items()}

    @staticmethod
    def believed(effect: Believed) -> None:
        """Say that a variant has changed."""
        if effect.changed:
            log.warning(
                "%s has changed: its quality is believed to be %.2f, no longer %.2f",
                effect.variant, effect.quality, effect.before,
            )  # fmt: skip

    def _task_of(self, request_id: str) -> str | None:
        job = self._state.jobs.get(request_id)
        return job.task if job is not None else None
