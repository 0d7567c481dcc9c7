"""What callers say of answers, turned into events for the dispatcher.

Rules this module keeps:

1. Feedback names a request that was answered; it may come long after, and it counts once.
2. A label is compared with the answer, so answers of up to `KEPT_BYTES` are kept as long as their explanations;
   where a graph gave the answer, the label also judges those of its steps that answered in the same form.
3. A shadow answer that agrees with the one that was given counts as a quarter of a good one, one that does not as a
   quarter of a bad one, until a label says more.
4. A judge's word is half an answer, where nobody has said more by then; whoever does later is heard as well.
5. A preference is half an answer for each of the two: the preferred one did well, the other one did not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from semaforo.core.events import WEAK, Feedback
from semaforo.core.state import State
from semaforo.entities import Step
from semaforo.errors import Conflict, InvalidRequest, NotFound
from semaforo.features.context import context_of
from semaforo.live.contexts import Contexts
from semaforo.observe.explain import Explanation, Ring
from semaforo.observe.judge import agreement, label_score
from semaforo.wire.completion import request_of_answer
from semaforo.wire.payload import Array, Tensors

KEPT_BYTES = 4096
_PREFERENCE = 0.5
_AGREEMENT = 0.25
_JUDGED = 0.5
_MOST_WORDS = 64
SHADOW = "shadow"
"""Name of the step that a shadow copy is of the request it copies."""


class Opinion(msgspec.Struct, frozen=True):
    """What a caller says of an answer: one of the three.

    Attributes:
        score: 0…1, in the task's metric.
        label: The right answer: a value, a list of one for each row, or a mapping from an output to that.
        preference: Id of another request, whose answer was not as good as this one's.
    """

    score: float | None = None
    label: Any = None
    preference: str = ""


class Archive(Protocol):
    """Answers that the ring has forgotten."""

    def served(self, request_id: str) -> tuple[str, str, bool] | None:
        """Return (variant, tenant, judged already) of an answered request."""
        ...

    def features(self, request_id: str) -> Mapping[str, float]:
        """Return what was seen of a request, by name; empty where nothing was."""
        ...

    def judged(self, request_id: str, score: float, source: str) -> None:
        """Keep what an answer was said to be worth."""
        ...


class Kept(Protocol):
    """Answers that are given again."""

    def judged(self, feedback: Feedback) -> bool:
        """Take in what an answer was worth; tell whether it was one to another request."""
        ...


class Opinions:
    """Takes feedback.

    Args:
        state: The dispatcher's.
        ring: Explanations.
        tell: Tells the dispatcher.

    Attributes:
        contexts: What requests looked like.
        routed: Tasks that have a trained router.
        archive: Answers that the ring has forgotten.
    """

    def __init__(self, state: State, ring: Ring, tell: Callable[[Feedback], None]) -> None:
        self._state = state
        self._ring = ring
        self._tell = tell
        self._answers: dict[str, dict[str, Any]] = {}
        self._order: deque[str] = deque()
        self.archive: Archive | None = None
        self.kept: Kept | None = None
        self.contexts = Contexts(ring.size)
        self.routed: Container[str] = ()

    def answered(self, request_id: str, result: Tensors) -> None:
        """Keep a small answer, so that a label can be compared with it."""
        if sum(_bytes(array) for array in result.arrays.values()) > KEPT_BYTES:
            return
        self._answers[request_id] = result.arrays
        self._order.append(request_id)
        if len(self._order) > self._ring.size:
            self._answers.pop(self._order.popleft(), None)

    def agreed(self, step: Step | None, request_id: str) -> None:
        """Learn from a shadow answer: whether it agrees with the one that was given."""
        found = self._ring.find(request_id)
        if step is None or found is None or found.finish is None:
            return
        given, shadow = self._answers.get(step.parent), self._answers.get(request_id)
        if given is None or shadow is None or found.feedback:
            return
        with suppress(InvalidRequest):
            task = self._state.catalog.task_of(found.request.target)
            self._learn(
                Feedback(
                    request_id, found.finish.variant, agreement(task, given, shadow), _AGREEMENT, "agreement"
                )
            )

    def judged(self, request_id: str, variant: str, score: float) -> None:
        """Learn from a judge, unless somebody has said more by now."""
        self.weakly(Feedback(request_id, variant, score, _JUDGED, "judge"))

    def weakly(self, feedback: Feedback) -> None:
        """Learn from who may be wrong, unless somebody has said more by now."""
        found = self._ring.find(feedback.request)
        if found is not None and not found.feedback:
            self._learn(feedback)

    def take(self, request_id: str, opinion: Opinion, tenant: str | None = None) -> tuple[Feedback, ...]:
        """Learn from what a caller says of an answer; return what was learned.

        Args:
            request_id: Whole id of a request, or that of its answer as OpenAI's clients have it.
            opinion: What is said.
            tenant: Tenant whose requests alone count; None = all.

        Raises:
            NotFound: No such request is known any more.
            InvalidRequest: It is no opinion, or does not fit the answer.
            Conflict: The request has no answer, or feedback was given before.
        """
        given = (opinion.score is not None, opinion.label is not None, bool(opinion.preference))
        if sum(given) != 1:
            raise InvalidRequest("feedback is one of: score, label, preference")
        score = opinion.score
        if score is not None and not 0.0 <= score <= 1.0:
            raise InvalidRequest(f"score is {score:g}; it takes 0 (of no use) to 1 (perfect)")
        request_id, worse = request_of_answer(request_id), request_of_answer(opinion.preference)
        variant = self._variant(request_id, tenant)
        if worse:
            if worse == request_id:
                raise InvalidRequest("a preference names another request than its own")
            other = self._variant(worse, tenant)
            found = [
                Feedback(request_id, variant, 1.0, _PREFERENCE, "preference"),
                Feedback(worse, other, 0.0, _PREFERENCE, "preference"),
            ]
        elif score is not None:
            found = [Feedback(request_id, variant, float(score))]
        else:
            found = list(self._labelled(request_id, opinion.label))
        for feedback in found:
            self._learn(feedback)
        return tuple(found)

    def _learn(self, feedback: Feedback) -> None:
        self._ring.judged(feedback)
        if self.archive is not None:
            self.archive.judged(feedback.request, feedback.score, feedback.source)
        if self.kept is not None and self.kept.judged(feedback):
            return
        request = self._ring.request(feedback.request)
        step = request.step if request is not None else None
        copied = step.parent if step is not None and step.name == SHADOW else ""
        self._tell(self._looked_at(self.contexts.added(feedback, copied)))

    def _looked_at(self, feedback: Feedback) -> Feedback:
        """Return late feedback with what the request looked like, as far as that was written down."""
        variant = self._state.catalog.variants.get(feedback.variant)
        task = self._state.catalog.tasks.get(variant.task) if variant is not None else None
        if feedback.context or self.archive is None or task is None or not task.explore.contextual:
            return feedback
        if task.name in self.routed:
            # What a router predicted then is not written down, and feedback without it would mislead.
            return feedback
        return msgspec.structs.replace(feedback, context=context_of(self.archive.features(feedback.request)))

    def _variant(self, request_id: str, tenant: str | None) -> str:
        found = self._ring.find(request_id)
        if found is None:
            return self._archived(request_id, tenant)
        if tenant is not None and found.request.contract.tenant != tenant:
            raise self._unknown(request_id)
        if found.finish is None:
            raise Conflict(f"request '{request_id}' is not answered yet")
        if found.finish.outcome != "done":
            raise Conflict(f"request '{request_id}' has no answer: it ended as {found.finish.outcome}")
        if any(said.source not in WEAK for said in found.feedback):
            raise self._twice(request_id)
        return found.finish.variant

    def _archived(self, request_id: str, tenant: str | None) -> str:
        served = self.archive.served(request_id) if self.archive is not None else None
        if served is None or (tenant is not None and served[1] != tenant):
            raise self._unknown(request_id)
        if served[2]:
            raise self._twice(request_id)
        return served[0]

    def _labelled(self, request_id: str, label: Any) -> Iterator[Feedback]:
        found = self._ring.find(request_id)
        answer = self._answers.get(request_id)
        if found is None or found.finish is None or answer is None:
            raise InvalidRequest(
                f"the answer to '{request_id}' is not kept (those of up to {KEPT_BYTES} bytes are, for a while; "
                "no chats): give a score instead of a label"
            )
        task = self._state.catalog.task_of(found.request.target)
        yield Feedback(request_id, found.finish.variant, label_score(task, answer, label), source="label")
        for step in _steps(found):
            arrays = self._answers.get(step.request.id)
            if step.finish is None or arrays is None or set(arrays) != set(answer):
                continue
            try:
                score = label_score(task, arrays, label)
            except InvalidRequest:
                continue
            yield Feedback(step.request.id, step.finish.variant, score, source="label")

    def _unknown(self, request_id: str) -> NotFound:
        kept = f"the last {self._ring.size} requests are kept"
        if self.archive is None:
            more = f"{kept}; with `history` in the fleet file far more are, over restarts too"
        else:
            more = f"{kept}, and in the history answers of about the last million"
        return NotFound(f"no answer is known under '{request_id}': {more}")

    @staticmethod
    def _twice(request_id: str) -> Conflict:
        return Conflict(f"feedback on '{request_id}' was given before; it counts once")


def _bytes(array: Array) -> int:
    if array.dtype != object:
        return array.nbytes
    return sum(map(len, array.flat)) if array.size <= _MOST_WORDS else KEPT_BYTES + 1


def _steps(explanation: Explanation) -> Iterator[Explanation]:
    for step in explanation.steps:
        yield step
        yield from _steps(step)
