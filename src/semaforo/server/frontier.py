"""Where the fleet stands between quality and cost.

| route | action | what |
| --- | --- | --- |
| GET frontier?task=T | read | by task: its variants, what mixing gives, where it stands, what its goal aims at |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from semaforo.core.effects import Considered
from semaforo.entities import Ref, Request, Variant
from semaforo.errors import NotFound, SemaforoError, nearest
from semaforo.observe.frontier import LATELY, answered, frontiers
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.server.shown import shown

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


class FrontierRoute:
    """The handler."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def show(self, request: HttpRequest) -> Response:
        """Show the frontiers of all tasks, or of one."""
        engine = self._engine
        wanted = request.query().get("task", "")
        tasks = engine.catalog.tasks
        if wanted and wanted not in tasks:
            raise NotFound(f"no task is named '{wanted}'.{nearest(wanted, tasks)}")
        answers = answered(engine.ring.recent(LATELY), engine.catalog, self._believed)
        found = frontiers(engine.catalog, engine.history, answers, self._predicted)
        told: list[Any] = [shown(one) for one in found if wanted in ("", one.task)]
        return json_response({"tasks": told})

    def _believed(self, variant: Variant) -> float | None:
        history = self._engine.history.get(variant.id)
        return variant.quality if history is None or history.quality is None else history.quality.shown

    def _predicted(self, task: str) -> Mapping[str, Considered]:
        stream = self._engine.catalog.tasks[task].kind == "chat"
        try:
            decided = self._engine.decide(Request("", task, ref=Ref(1, 0, ""), stream=stream))
        except SemaforoError:
            return {}
        return {c.variant: c for c in decided.considered}


def routes(engine: Engine) -> list[Route]:
    """Return the route."""
    return [Route("GET", "/semaforo/v1/frontier", "read", FrontierRoute(engine).show)]
