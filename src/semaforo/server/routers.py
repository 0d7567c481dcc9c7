"""Trained routers as they serve, and what an operator may change of them.

| route | action | what |
| --- | --- | --- |
| GET routers | read | by task: the router in service, its candidate, what came of both, versions, changes |
| POST routers/{task}/candidate | operate | try a router beside the one in service, or change how it is tried |
| POST routers/{task}/promote | operate | put the candidate in service |
| POST routers/{task}/rollback | operate | drop the candidate; without one, go back to the router before |

Files are read off the loop, and requests go on meanwhile; what is refused changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from semaforo.errors import ArtefactError, InvalidRequest
from semaforo.live.course import Course
from semaforo.live.rollouts import Change
from semaforo.repository.routers import About, about
from semaforo.routing.tryout import Side, Tryout
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.wire.not_json import NOT_JSON, told

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


class Proposal(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``routers/{task}/candidate``; what is left out stays as it was.

    Attributes:
        candidate: A version of the task's router, or a file seen from the fleet file.
        sha256: Digest the file must have.
        share: Share of requests that it decides, 0 to 0.9.
        shadow: Whether both routers look at every request.
        margin: Score that it may be behind and still count as not worse.
        promote: ``auto`` puts it in service once it is shown to be good enough.
    """

    candidate: str
    sha256: str = ""
    share: float | None = None
    shadow: bool | None = None
    margin: float | None = None
    promote: Literal["by hand", "auto"] | None = None


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``promote`` and ``rollback``: why, for those who look later."""

    why: str = ""


Body = TypeVar("Body", Proposal, Reason)


class RouterRoutes:
    """The handlers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: HttpRequest) -> Response:
        """Show the routers of all tasks."""
        courses = self._engine.learning.rollouts.courses
        return json_response({"routers": [await _shown(task, course) for task, course in courses.items()]})

    async def propose(self, request: HttpRequest) -> Response:
        """Try a router beside the one in service."""
        task = request.params["task"]
        body = await _read(request, Proposal)
        promote = None if body.promote is None else body.promote == "auto"
        change = Change(body.candidate, body.share, body.shadow, body.margin, promote, body.sha256)
        await self._engine.learning.rollouts.propose(task, change)
        return await self._now(task)

    async def promote(self, request: HttpRequest) -> Response:
        """Put the candidate in service."""
        task, body = request.params["task"], await _read(request, Reason)
        self._engine.learning.rollouts.promote(task, body.why or "asked for by an operator")
        return await self._now(task)

    async def roll_back(self, request: HttpRequest) -> Response:
        """Drop the candidate, or go back."""
        task, body = request.params["task"], await _read(request, Reason)
        self._engine.learning.rollouts.roll_back(task, body.why or "asked for by an operator")
        return await self._now(task)

    async def _now(self, task: str) -> Response:
        return json_response(await _shown(task, self._engine.learning.rollouts.course(task)))


def routes(engine: Engine) -> list[Route]:
    """Return the routes."""
    at, routers = "/semaforo/v1/routers", RouterRoutes(engine)
    return [
        Route("GET", at, "read", routers.list),
        Route("POST", f"{at}/{{task}}/candidate", "operate", routers.propose),
        Route("POST", f"{at}/{{task}}/promote", "operate", routers.promote),
        Route("POST", f"{at}/{{task}}/rollback", "operate", routers.roll_back),
    ]


async def _read(request: HttpRequest, kind: type[Body]) -> Body:
    body = await request.body()
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except NOT_JSON as error:
        raise InvalidRequest(f"not a change of a router: {told(error)}") from None


async def _shown(task: str, course: Course) -> dict[str, Any]:
    try:
        versions = await asyncio.to_thread(course.routed.shelf.all)
    except ArtefactError as error:
        versions = [About("", error=error.message)]
    rollout = course.rollout
    found: dict[str, Any] = {
        "task": task,
        "in_service": about(rollout.service),
        "candidate": about(rollout.candidate) if rollout.candidate is not None else None,
        "before": about(course.before) if course.before is not None else None,
        "share": rollout.share,
        "shadow": rollout.shadow,
        "margin": rollout.margin,
        "promote": "auto" if rollout.promote else "by hand",
        "tryout": _tried(course.tryout) if course.tryout is not None else None,
        "versions": versions,
        "ended": course.ended,
    }
    return found


def _tried(tryout: Tryout) -> dict[str, Any]:
    return {
        "verdict": tryout.verdict,
        "difference": tryout.score.interval(),
        "cost": tryout.cost.relation,
        "latency": tryout.latency.relation,
        "seen": tryout.seen,
        "apart": tryout.apart,
        "candidate": _side(tryout.candidate)
        | _judged(tryout.score.candidate.count, tryout.score.candidate.mean),
        "service": _side(tryout.service) | _judged(tryout.score.service.count, tryout.score.service.mean),
    }


def _side(side: Side) -> dict[str, Any]:
    n = side.answers
    return {
        "answers": n,
        "failed": side.failed,
        "cost": side.cost / n if n else None,
        "latency_s": side.seconds / n if n else None,
    }


def _judged(count: int, mean: float | None) -> dict[str, Any]:
    return {"judged": count, "score": mean}
