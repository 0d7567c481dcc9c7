"""Embeddings of texts by a model of the fleet, for whoever compares requests.

Rules this module keeps:

1. A text is embedded by a request of its own, a step of the one it belongs to: with its privacy, its tenant and its
   priority, so that it is batched, paid for and explained like any other.
2. What is late, fails or may not be seen is no embedding; nothing else comes of it.
3. Embeddings of two models are never compared: each says of which it is.
4. What was embedded a moment ago is not asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol

import msgspec
import numpy as np

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Score
from semaforo.core.state import State
from semaforo.entities import Ref, Request, Step
from semaforo.entities.interface import roles
from semaforo.entities.tensor import shape_key
from semaforo.errors import NotFound
from semaforo.features import text_tokens
from semaforo.live.answer import Answer
from semaforo.routing.embedded import Embedded
from semaforo.routing.likeness import Vector, unit
from semaforo.wire.payload import Payload, Tensors

STEP = "embedding"
MOST_CHARACTERS = 32_768
_MOST_KEPT = 2048
_SHARE_OF_WAIT = 0.75

log = logging.getLogger("semaforo.routing")


class Asks(Protocol):
    """How a model is asked."""

    def new_id(self) -> str:
        """Return a fresh request id."""
        ...

    def submit(self, request: Request, payload: Payload, on_answer: Callable[[Answer], None]) -> None:
        """Serve a request."""
        ...


class Embedding(msgspec.Struct, frozen=True):
    """What a text means to a model.

    Attributes:
        vector: Of length 1.
        space: ``model/version``: only vectors of one are to be compared.
        cost: US dollars that it has cost now.
    """

    vector: Vector
    space: str
    cost: float = 0.0


Then = Callable[[Embedding | None], None]
_Key = tuple[str, int, bytes]


class _Waiting:
    """One who waits for the embedding of a text of a request."""

    __slots__ = ("_then", "_timer", "request", "text")

    def __init__(self, request: Request, text: str, then: Then, seconds: float) -> None:
        self.request = request
        self.text = text
        self._then: Then | None = then
        self._timer = asyncio.get_running_loop().call_later(seconds, self.settle, None)

    def left(self) -> float:
        """Return the seconds that it still waits; 0 where it does no more."""
        if self._then is None:
            return 0.0
        return max(0.0, self._timer.when() - asyncio.get_running_loop().time())

    def settle(self, found: Embedding | None) -> None:
        self._timer.cancel()
        then, self._then = self._then, None
        if then is not None:
            then(found)


class Embeddings:
    """Asks for embeddings.

    Args:
        state: The dispatcher's.
        asks: The engine.
    """

    def __init__(self, state: State, asks: Asks) -> None:
        self._state = state
        self._asks = asks
        self._known: OrderedDict[_Key, Embedding] = OrderedDict()
        self._coming: dict[_Key, list[_Waiting]] = {}

    def ask(self, request: Request, target: str, text: str, seconds: float, then: Then) -> None:
        """Embed a text of a request; `then` is called once, at once or in a later round of the loop.

        Not to be called while an effect is carried out.

        Args:
            request: What the text belongs to.
            target: Task, model or alias that embeds.
            text: The text.
            seconds: How long it is waited for at most.
            then: Takes the embedding, or None.
        """
        # A vector that a remote model has made is none that a local one has, though the target is the same.
        key = (target, int(request.contract.privacy), sha256(text.encode("utf-8", "replace")).digest())
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            then(known)
            return
        step = None if len(text) > MOST_CHARACTERS else self._step(request, target, text, seconds)
        if step is None:
            then(None)
            return
        waiting = _Waiting(request, text, then, seconds)
        coming = self._coming.get(key)
        if coming is not None:
            coming.append(waiting)
            return
        self._coming[key] = [waiting]
        self._submit(key, step)

    def _submit(self, key: _Key, step: tuple[Request, Tensors]) -> None:
        loop = asyncio.get_running_loop()

        def came(answer: Answer) -> None:
            # It may come while effects are carried out, and what follows from it is an event of its own.
            loop.call_soon(self._came, key, answer)

        self._asks.submit(*step, came)

    def changed(self) -> None:
        """Forget what models said that may not be there any more."""
        self._known.clear()

    def _step(
        self, request: Request, target: str, text: str, seconds: float
    ) -> tuple[Request, Tensors] | None:
        try:
            task = self._state.catalog.task_of(target)
        except NotFound:
            return None
        if task.interface != "embedding":
            return None
        spec = roles(task).input
        contract = msgspec.structs.replace(request.contract, deadline_s=seconds, min_quality=0.0)
        column = np.empty(1, object)
        column[0] = text
        step = Request(
            self._asks.new_id(), target, contract=contract,
            ref=Ref(1, len(text), shape_key([(spec.name, spec.dtype, spec.shape)])),
            prompt_tokens=text_tokens(text), step=Step(request.id, STEP), traceparent=request.traceparent,
        )  # fmt: skip
        return step, Tensors({spec.name: column})

    def _came(self, key: _Key, answer: Answer) -> None:
        found = None
        try:
            found = self._read(key[0], answer)
        except Exception:
            log.exception("an embedding by '%s' could not be read", answer.model)
        if found is not None:
            self._known[key] = msgspec.structs.replace(found, cost=0.0)
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        waiting = self._coming.pop(key, [])
        if answer.finish.outcome == "cancelled":
            # Whoever has caused it went away, and with it the step; the others did not.
            waiting = [one for one in waiting[1:] if one.left() > 0.0]
            first = waiting[0] if waiting else None
            step = self._step(first.request, key[0], first.text, first.left()) if first is not None else None
            if step is not None:
                self._coming[key] = waiting
                self._submit(key, step)
                return
        # The first of those who wait has caused it, and pays.
        for place, one in enumerate(waiting):
            one.settle(found if place == 0 or found is None else self._known.get(key))

    def _read(self, target: str, answer: Answer) -> Embedding | None:
        if not answer.ok or answer.result is None:
            return None
        task = self._state.catalog.task_of(target)
        vector = unit(answer.result.arrays[roles(task).output.name][0])
        if vector is None:
            return None
        return Embedding(vector, f"{answer.model}/{answer.version}", answer.finish.cost)


class RouterEmbeddings:
    """Embeddings of requests for trained routers.

    Args:
        state: The dispatcher's.
        embeddings: Says what texts mean.
        levels: Returns what the routers of a task read embeddings with.
    """

    def __init__(
        self, state: State, embeddings: Embeddings, levels: Callable[[str], Sequence[Embedded]]
    ) -> None:
        self._state = state
        self._embeddings = embeddings
        self._levels = levels

    def embed(self, task: str, effect: Score, text: str, then: Callable[[Embedding | None], None]) -> bool:
        """See `live.scoring.Embeds`."""
        about, job = self._state.catalog.tasks.get(task), self._state.jobs.get(effect.request)
        levels = self._levels(task)
        if about is None or job is None or not levels or not about.embedding or not text.strip():
            return False
        request = job.request
        if request.step is not None and request.step.name == STEP:
            return False
        if request.contract.max_cost is not None:
            # The request was let in with all of its money: there is none left for an embedding.
            contract = msgspec.structs.replace(request.contract, max_cost=0.0)
            request = msgspec.structs.replace(request, contract=contract)

        def found(embedding: Embedding | None) -> None:
            fit = embedding is not None and any(x.fits(embedding.space, embedding.vector) for x in levels)
            then(embedding if fit else None)

        seconds = _SHARE_OF_WAIT * about.score_s
        self._embeddings.ask(request, about.embedding, text, seconds, found)
        return True


def artefacts(catalog: Catalog, space: str) -> list[str]:
    """Return the ids of the variants whose embeddings are of one space."""
    return [v.id for v in catalog.variants.values() if f"{v.model}/{v.version}" == space]
