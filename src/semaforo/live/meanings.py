"""The semantic side of the answer cache: answers to requests that mean the same.

Rules this module keeps:

1. Only requests that differ in their words alone are compared: same tenant, same target, same parameters, same
   turns before. What counts for an answer that is given again to the letter counts here too.
2. How alike is alike enough is learned from pairs (`routing.likeness`); until it is known, nothing is given, and
   what would have been is compared with what the model says instead.
3. Once it is known, a share of what could be given is still answered anew and compared, and feedback counts.
4. A request waits for its embedding for so long at most, and for a quarter of its deadline; what it waits is taken
   off its deadline, what the embedding costs off what it may cost.
5. Whatever goes wrong here, the request goes on to a model.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import sha256

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.history import same
from semaforo.core.state import State
from semaforo.entities import Request, Semantics, TaskType
from semaforo.live.cache import Answers, Kept, Said
from semaforo.live.comparing import Comparing
from semaforo.live.embedding import Embedding, Embeddings, artefacts
from semaforo.live.question import Question, question_of
from semaforo.observe.explain import Likened, Ring
from semaforo.routing.likeness import LEAST, Alike, Index, Pairs, Vector
from semaforo.wire.payload import Payload

_SHARE_OF_DEADLINE = 0.25
_LEAST_LEFT_S = 1e-4
_MOST_OF_A_KIND = 4096
_CANDIDATES = 4
_NOTE = "alike "

log = logging.getLogger("semaforo.engine")

GoOn = Callable[[Request, Kept | None, float], None]
_Place = tuple[str, str, bytes]


class Figures(msgspec.Struct):
    """What came of the semantic cache of a task.

    Attributes:
        hits: Requests answered by what was said to one like them.
        compared: Pairs that it was learned from.
        threshold: Cosine from which on answers are given; ∞ while that cannot be told.
    """

    hits: int = 0
    compared: int = 0
    threshold: float = float("inf")


class _Placed(msgspec.Struct, frozen=True):
    """Where the answer to a request will be found by what it means."""

    place: _Place
    vector: Vector


class _Near(msgspec.Struct, frozen=True):
    """What could have been given to a request that is answered anew."""

    request: Request
    question: str
    task: TaskType
    kept: Kept
    likeness: float
    space: str


class Meanings:
    """Answers by what requests mean.

    Args:
        state: The dispatcher's.
        answers: What is kept.
        embeddings: Says what texts mean.
        comparing: Compares answers.
        ring: Explanations.
        clock: Returns monotonic seconds.
        chance: Returns 0…1, for what is answered anew.
    """

    def __init__(
        self,
        state: State,
        answers: Answers,
        embeddings: Embeddings,
        comparing: Comparing,
        ring: Ring,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._state = state
        self._answers = answers
        self._embeddings = embeddings
        self._comparing = comparing
        self._ring = ring
        self._clock = clock
        self._chance = chance
        self._held: set[str] = set()
        self._placed: dict[str, _Placed] = {}
        self._near: dict[str, _Near] = {}
        self._hits: OrderedDict[str, tuple[str, str, float]] = OrderedDict()
        self._indexes: dict[_Place, Index] = {}
        self._where: dict[tuple[str, bytes], _Place] = {}
        self._alike: dict[tuple[str, str], Alike] = {}
        self._noted: dict[str, bytes] = {}
        self._new: set[tuple[str, str]] = set()
        self._figures: dict[str, Figures] = {}
        answers.dropped = self._dropped

    # --- a request -------------------------------------------------------------------------------------

    def look(self, request: Request, payload: Payload, go_on: GoOn) -> bool:
        """Look for an answer to a request that means the same; tell whether `go_on` is called, now or later.

        `go_on` takes the request as it goes on, the answer or None, and the seconds that it has waited.
        """
        if not self._answers.wanted(request.id):
            return False
        task = self._answers.task_of(request)
        semantic = task.cache.semantic if task is not None else None
        question = question_of(request, payload, task) if task is not None and semantic is not None else None
        if task is None or semantic is None or question is None:
            return False
        now = self._clock()
        left = [request.contract.deadline_s, task.deadline_s if request.contract.deadline_s is None else None]
        if request.step is not None and request.step.deadline_at is not None:
            left.append(request.step.deadline_at - now)
        seconds = min([semantic.wait_s, *(_SHARE_OF_DEADLINE * max(0.0, s) for s in left if s is not None)])
        self._held.add(request.id)
        then = partial(self._embedded, request, task, semantic, question, now, go_on)
        self._embeddings.ask(request, semantic.embedding, question.text, seconds, then)
        return True

    def let_go(self, request_id: str) -> bool:
        """Forget a request that waits for its embedding; tell whether it did."""
        if request_id not in self._held:
            return False
        self._held.discard(request_id)
        self._answers.let_be(request_id)
        return True

    def _embedded(
        self,
        request: Request,
        task: TaskType,
        semantic: Semantics,
        question: Question,
        begun: float,
        go_on: GoOn,
        embedding: Embedding | None,
    ) -> None:
        if request.id not in self._held:
            return
        self._held.discard(request.id)
        waited = self._clock() - begun
        kept = None
        if embedding is not None:
            try:
                kept = self._found(request, task, semantic, question, embedding)
            except Exception:
                log.exception("what request %s means could not be looked up: it goes on", request.id)
        cost = embedding.cost if embedding is not None else 0.0
        go_on(_left(request, task, waited, cost), kept, waited)

    def _found(
        self, request: Request, task: TaskType, semantic: Semantics, question: Question, embedding: Embedding
    ) -> Kept | None:
        place = (task.name, embedding.space, question.rest)
        index = self._indexes.get(place)
        nearest = index.nearest(embedding.vector, _CANDIDATES) if index is not None else []
        alike = self._learner(task, embedding.space)
        self._placed[request.id] = _Placed(place, embedding.vector)
        for key, likeness in nearest:
            if likeness < LEAST:
                break
            kept = self._answers.like(task.name, key, request, self._clock())
            if kept is None:
                continue
            learning = alike.threshold > 1.0
            drawn = self._chance() < semantic.check
            given = likeness >= alike.threshold and not drawn
            self._ring.likened(
                request.id, Likened(likeness, None if learning else alike.threshold, given, len(alike))
            )
            if given:
                del self._placed[request.id]
                self._answers.let_be(request.id)
                self._answers.gave(request.id, task.name, key)
                self._hit(request.id, (task.name, embedding.space, likeness))
                return kept
            if learning or drawn:
                self._near[request.id] = _Near(request, question.text, task, kept, likeness, embedding.space)
            return None
        return None

    def _hit(self, request_id: str, hit: tuple[str, str, float]) -> None:
        self._figures.setdefault(hit[0], Figures()).hits += 1
        self._hits[request_id] = hit
        while len(self._hits) > self._ring.size:
            self._hits.popitem(last=False)

    def bytes_of(self, request_id: str) -> int:
        """Return the bytes that finding the answer to a request by its meaning takes."""
        placed = self._placed.get(request_id)
        return 2 * placed.vector.nbytes if placed is not None else 0

    def answered(
        self, request_id: str, said: Said | None, variant: str, kept: tuple[str, bytes] | None
    ) -> None:
        """Take in the end of a request.

        Args:
            request_id: Whose.
            said: Its answer, None where it has none.
            variant: Who gave it.
            kept: Task and key under which it is kept, None where it is not.
        """
        placed = self._placed.pop(request_id, None)
        near = self._near.pop(request_id, None)
        if placed is not None and kept is not None:
            index = self._indexes.get(placed.place)
            if index is None:
                index = self._indexes[placed.place] = Index(len(placed.vector), _MOST_OF_A_KIND)
            gone = index.add(kept[1], placed.vector)
            if gone is not None:
                self._where.pop((kept[0], gone), None)
            self._where[kept] = placed.place
        if near is not None and said is not None:
            try:
                learn = partial(self._learn, near.task, near.space, near.likeness)
                self._comparing.compare(
                    near.request, near.question, near.task, near.kept, said, variant, learn
                )
            except Exception:
                log.exception("the answer to request %s could not be compared", request_id)

    # --- what is learned -------------------------------------------------------------------------------

    def judged(self, request_id: str, score: float, variant: str) -> bool:
        """Learn from feedback; tell whether it was on an answer to another request, given as this one's."""
        hit = self._hits.pop(request_id, None)
        if hit is None:
            return False
        name, space, likeness = hit
        task = self._state.catalog.tasks.get(name)
        about = self._state.catalog.variants.get(variant)
        if task is not None and task.cache.semantic is not None:
            # What a variant gets wrong anyway is no fault of the cache.
            usual = self._state.believed(about) if about is not None else None
            self._learn(task, space, likeness, (1.0 if usual is None else usual) - score)
        return True

    def figures(self) -> dict[str, Figures]:
        """Return by task what came of it."""
        for (task, _), alike in self._alike.items():
            figures = self._figures.setdefault(task, Figures())
            figures.threshold = alike.threshold
        return {
            name: self._figures.setdefault(name, Figures())
            for name, task in self._state.catalog.tasks.items()
            if task.cache.semantic is not None
        }

    def _learn(self, task: TaskType, space: str, likeness: float, loss: float) -> None:
        alike = self._learner(task, space)
        before = alike.threshold
        alike.learn(likeness, loss)
        self._new.add((task.name, space))
        self._figures.setdefault(task.name, Figures()).compared += 1
        if alike.threshold != before:
            log.info("answers of '%s' are given from a likeness of %.4f on", task.name, alike.threshold)

    def _learner(self, task: TaskType, space: str) -> Alike:
        assert task.cache.semantic is not None
        alike = self._alike.get((task.name, space))
        if alike is None:
            note = self._noted.pop(self._note(task.name, space), None)
            known = msgspec.msgpack.decode(note, type=Pairs) if note is not None else None
            alike = self._alike[task.name, space] = Alike(task.cache.semantic.most_wrong, known)
        return alike

    def notes(self) -> dict[str, bytes]:
        """Return what is to be kept over restarts, by name, where it is new."""
        new, self._new = self._new, set()
        return {
            self._note(*at): msgspec.msgpack.encode(self._alike[at].pairs())
            for at in new
            if at in self._alike
        }

    def noted(self, notes: dict[str, bytes]) -> None:
        """Take up what was kept."""
        self._noted = {name: note for name, note in notes.items() if name.startswith(_NOTE)}

    def _note(self, task: str, space: str) -> str:
        templates = self._state.catalog.templates
        found = [templates[name] for name in artefacts(self._state.catalog, space) if name in templates]
        about = sha256(repr(sorted((t.digest or t.source, t.runtime) for t in found)).encode())
        return f"{_NOTE}{task} {space} {about.hexdigest()[:16]}"

    # --- what goes -------------------------------------------------------------------------------------

    def changed(self, before: Catalog, after: Catalog) -> None:
        """Drop what is out of date in another catalog."""
        self._embeddings.changed()
        old = {name for name, task in before.tasks.items() if after.tasks.get(name) != task}
        spaces = {space for _, space in self._alike}
        gone = {s for s in spaces if not all(same(v, before, after) for v in artefacts(before, s))}
        for place in [p for p in self._indexes if p[0] in old or p[1] in gone]:
            del self._indexes[place]
        self._where = {at: place for at, place in self._where.items() if place in self._indexes}
        for at in [at for at in self._alike if at[0] in old or at[1] in gone]:
            alike = self._alike.pop(at)
            if at[1] not in gone:
                self._noted[self._note(*at)] = msgspec.msgpack.encode(alike.pairs())
        self._placed = {rid: p for rid, p in self._placed.items() if p.place[0] not in old}
        self._near = {rid: near for rid, near in self._near.items() if near.task.name not in old}

    def _dropped(self, task: str, key: bytes) -> None:
        place = self._where.pop((task, key), None)
        index = self._indexes.get(place) if place is not None else None
        if place is not None and index is not None:
            index.drop(key)
            if not len(index):
                del self._indexes[place]


def _left(request: Request, task: TaskType, waited: float, cost: float) -> Request:
    """Return a request less the time and the money that were spent on its embedding."""
    contract = request.contract
    deadline = contract.deadline_s if contract.deadline_s is not None else task.deadline_s
    most = contract.max_cost
    if deadline is None and (most is None or not cost):
        return request
    left = msgspec.structs.replace(
        contract,
        deadline_s=None if deadline is None else max(_LEAST_LEFT_S, deadline - waited),
        max_cost=None if most is None else max(0.0, most - cost),
    )
    return msgspec.structs.replace(request, contract=left)
