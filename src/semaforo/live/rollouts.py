"""Routers rolled out like models: tried beside the one in service, compared by what came of both, kept or dropped.

Rules this module keeps:

1. An answer counts for the candidate that was there when its request was decided on, and for no later one.
2. What was promoted or rolled back stays so over a restart, where there is a history, until the fleet file states
   something else.
3. Files are read off the loop; a router that is refused changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from semaforo.core.effects import Decided, Finish
from semaforo.core.events import Feedback, Scored
from semaforo.errors import ArtefactError, Conflict, InvalidRequest, NotFound, nearest
from semaforo.features.profile import DataProfile
from semaforo.live.course import Asked, Course, Ended, Gains
from semaforo.repository.routers import Routed
from semaforo.routing.embedded import Embedded
from semaforo.routing.rollout import Loaded, Rollout, check_margin, check_share
from semaforo.routing.tryout import Tryout

_MOST_KEPT = 100_000
_NOTE = "rollout "
_SAME = "@"

log = logging.getLogger("semaforo.routing")


class Change(msgspec.Struct, frozen=True):
    """A candidate as an operator asks for it; None = as it was, or as the fleet file says.

    Attributes:
        candidate: Version, or file seen from the fleet file.
        share, shadow, margin, promote: As in `Rollout`.
        sha256: Digest it must have; "" = any.
    """

    candidate: str
    share: float | None = None
    shadow: bool | None = None
    margin: float | None = None
    promote: bool | None = None
    sha256: str = ""


class _Assigned(msgspec.Struct):
    """Who decides on a request: `heard` once it was so decided."""

    task: str
    digest: str
    by_candidate: bool
    share: float
    heard: bool = False
    apart: bool = True
    pick: str = ""


class _Noted(msgspec.Struct, frozen=True):
    """What is kept over restarts; `stated` are the digests of the fleet file that it follows from."""

    stated: tuple[str, ...]
    service: tuple[str, str]
    candidate: tuple[str, str] | None
    before: tuple[str, str] | None
    share: float
    shadow: bool
    margin: float
    promote: bool
    ended: list[Ended]
    tryout: Tryout | None


class Rollouts:
    """The routers of all tasks.

    Args:
        routed: By task, as the fleet file states them.
    """

    def __init__(self, routed: Mapping[str, Routed]) -> None:
        self.courses = {task: Course(one) for task, one in routed.items()}
        self._assigned: dict[str, _Assigned] = {}
        self._saved: dict[str, bytes] = {}

    def course(self, task: str) -> Course:
        """Return the routers of a task.

        Raises:
            NotFound: It has none.
        """
        found = self.courses.get(task)
        if found is None:
            has = ", ".join(self.courses) or "none has"
            raise NotFound(
                f"task '{task}' has no router.{nearest(task, self.courses)} Tasks with a router: {has}; the fleet "
                "file names the first one of a task"
            )
        return found

    def trained_on(self, task: str) -> DataProfile | None:
        """Return what the requests were like that the router of a task was trained on."""
        course = self.courses.get(task)
        return course.rollout.service.router.data.get(task) if course is not None else None

    def levels(self, task: str) -> list[Embedded]:
        """Return what the routers of a task read embeddings with."""
        course = self.courses.get(task)
        if course is None:
            return []
        rollout = course.rollout
        found = [
            one.router.predictor.embedded for one in (rollout.service, rollout.candidate) if one is not None
        ]
        return [level for level in found if level is not None]

    # --- a request -------------------------------------------------------------------------------------

    def score(self, task: str, asked: Asked, gains: Gains) -> list[Scored]:
        """Predict for requests of a task; without a router nothing is predicted."""
        course = self.courses.get(task)
        if course is None:
            return [Scored(effect.request, {}, 0.0) for effect, _ in asked]
        scored = course.score(asked, gains)
        rollout = course.rollout
        if rollout.candidate is not None:
            for one in scored:
                if len(self._assigned) >= _MOST_KEPT:
                    self._assigned.pop(next(iter(self._assigned)))
                by_candidate = one.router == rollout.candidate.name
                self._assigned[one.request] = _Assigned(
                    task, rollout.candidate.digest, by_candidate, rollout.share
                )
        return scored

    def spoke(self, effect: Decided) -> None:
        """Take in that a router was heard."""
        found, spoke = self._assigned.get(effect.request), effect.spoke
        if found is None or found.heard or spoke is None:
            return
        found.heard = True
        if spoke.other:
            found.apart, found.pick = spoke.pick != spoke.beside, spoke.pick
            tryout = self._tryout(found)
            if tryout is not None:
                tryout.seen += 1
                tryout.apart += found.apart

    def finished(self, effect: Finish) -> None:
        """Take in how a request ended."""
        found = self._assigned.get(effect.request)
        if found is None:
            return
        tryout, done = self._tryout(found), effect.outcome == "done"
        counts = tryout is not None and found.heard
        if tryout is not None and counts and (done or effect.outcome == "failed"):
            tryout.finished(done, effect.cost, effect.total_s, found.by_candidate, found.share, found.apart)
        if not (counts and done and found.share):
            # No feedback on it will be of use.
            del self._assigned[effect.request]

    def judged(self, feedback: Feedback) -> None:
        """Take in what an answer was worth, and do what follows."""
        found = self._assigned.pop(feedback.request, None)
        if found is None or not found.heard or not found.share:
            return
        tryout = self._tryout(found)
        if tryout is not None:
            tryout.score.add(
                float(feedback.score), found.by_candidate, found.share, apart=found.apart,
                weight=min(1.0, float(feedback.weight)),
            )  # fmt: skip
            self.courses[found.task].act()

    def chance(self, request_id: str, variant: str) -> float:
        """Return with which probability the router that picked this variant was the one to decide; 1 = surely."""
        found = self._assigned.get(request_id)
        if found is None or not found.share or not found.heard or not found.apart or found.pick != variant:
            return 1.0
        return found.share if found.by_candidate else 1.0 - found.share

    def _tryout(self, assigned: _Assigned) -> Tryout | None:
        course = self.courses[assigned.task]
        candidate = course.rollout.candidate
        return course.tryout if candidate is not None and candidate.digest == assigned.digest else None

    # --- what an operator asks -------------------------------------------------------------------------

    async def propose(self, task: str, change: Change) -> None:
        """Try a router beside the one in service, or change how it is tried.

        Raises:
            NotFound: The task has no router.
            InvalidRequest: The router is not there, damaged, or unfit; everything stays as it was.
            Conflict: It is the one in service.
        """
        course = self.course(task)
        rollout = course.rollout
        share = rollout.share if change.share is None else float(change.share)
        margin = rollout.margin if change.margin is None else float(change.margin)
        try:
            check_share(share)
            check_margin(margin)
            shelf = course.routed.shelf
            loaded = await asyncio.to_thread(shelf.load, change.candidate, change.sha256, within=True)
        except ArtefactError as error:
            raise InvalidRequest(
                f"{error.message}. Nothing has changed: {rollout.service.name} serves '{task}'"
            ) from None
        now = course.rollout
        if loaded.digest == now.service.digest:
            raise Conflict(f"'{change.candidate}' is in service for '{task}' as {now.service.name} already")
        if loaded.name == now.service.name:
            # The file was written anew since.
            loaded = msgspec.structs.replace(loaded, name=f"{loaded.name}{_SAME}{loaded.digest[:8]}")
        scorer = await asyncio.to_thread(course.ready, loaded)
        course.keep(loaded, scorer)
        now = course.rollout
        wanted = msgspec.structs.replace(
            now,
            candidate=loaded,
            share=share,
            margin=margin,
            shadow=now.shadow if change.shadow is None else change.shadow,
            promote=now.promote if change.promote is None else change.promote,
        )
        same = now.candidate is not None and now.candidate.digest == loaded.digest and now.margin == margin
        course.take(wanted, course.tryout if same else None)

    def promote(self, task: str, why: str) -> None:
        """Put the candidate of a task in service.

        Raises:
            NotFound: The task has no router.
            Conflict: It has no candidate.
        """
        self.course(task).promote(why)

    def roll_back(self, task: str, why: str) -> None:
        """Drop the candidate of a task, or else go back to the router before.

        Raises:
            NotFound: The task has no router.
            Conflict: There is neither.
        """
        self.course(task).roll_back(why)

    # --- over restarts ---------------------------------------------------------------------------------

    def notes(self) -> dict[str, bytes]:
        """Return what is to be kept over restarts, by name, where it is new."""
        found = {
            _NOTE + task: msgspec.msgpack.encode(_noted(course)) for task, course in self.courses.items()
        }
        new = {name: note for name, note in found.items() if self._saved.get(name) != note}
        self._saved = found
        return new

    def noted(self, notes: Mapping[str, bytes]) -> None:
        """Take up what was kept, where the fleet file still states what it did."""
        for task, course in self.courses.items():
            if (note := notes.get(_NOTE + task)) is None:
                continue
            try:
                _resume(course, msgspec.msgpack.decode(note, type=_Noted))
            except (ArtefactError, msgspec.DecodeError) as error:
                log.warning("the routers of '%s' are those of the fleet file again: %s", task, error)


def _stated(rollout: Rollout) -> tuple[str, ...]:
    candidate = rollout.candidate
    return (rollout.service.digest, candidate.digest if candidate is not None else "")


def _noted(course: Course) -> _Noted:
    rollout = course.rollout

    def named(one: Loaded | None) -> tuple[str, str] | None:
        return None if one is None else (one.name, one.digest)

    return _Noted(
        _stated(course.routed.rollout), (rollout.service.name, rollout.service.digest),
        named(rollout.candidate), named(course.before), rollout.share, rollout.shadow, rollout.margin,
        rollout.promote, course.ended, course.tryout,
    )  # fmt: skip


def _resume(course: Course, noted: _Noted) -> None:
    stated = course.routed.rollout
    if noted.stated != _stated(stated):
        return
    course.ended = noted.ended
    service, candidate, before = _found(course, noted.service), None, None
    if noted.candidate is not None:
        candidate = _found(course, noted.candidate)
    if noted.before is not None:
        with suppress(ArtefactError):
            before = _found(course, noted.before)
    # How the fleet file's own candidate is tried, the fleet file says.
    own = (
        stated.candidate is not None and candidate is not None and stated.candidate.digest == candidate.digest
    )
    how = stated if own else noted
    course.before = before
    course.take(
        msgspec.structs.replace(
            stated, service=service, candidate=candidate, share=how.share, shadow=how.shadow, margin=how.margin,
            promote=how.promote,
        ),
        noted.tryout if noted.tryout is not None and noted.tryout.score.margin == how.margin else None,
    )  # fmt: skip


def _found(course: Course, named: tuple[str, str]) -> Loaded:
    name, digest = named
    stated = course.routed.rollout
    for one in (stated.service, stated.candidate):
        if one is not None and one.digest == digest:
            return one  # the same file, which the fleet file may call by another name by now
    return msgspec.structs.replace(course.routed.shelf.load(name.partition(_SAME)[0], digest), name=name)
