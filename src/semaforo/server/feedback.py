"""What callers say of answers, and what is believed of variants since.

| route | action | what |
| --- | --- | --- |
| POST feedback | infer | what an answer was worth: a score, the right answer, or that it was better than another |
| GET quality | read | every variant: what was measured, what is believed, latency by load, cost and drift |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.core.state import History
from semaforo.entities import Variant
from semaforo.errors import InvalidRequest
from semaforo.features.drift import Drift
from semaforo.live.feedback import Opinion
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.wire.not_json import NOT_JSON, told

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``feedback``: one of `score`, `label` and `preference`.

    Attributes:
        request_id: Whole id of the request, as its answer's ``semaforo-request-id`` has it.
        score: 0…1, in the task's metric.
        label: The right answer: a value, a list of one for each row, or {output: that}.
        preference: Id of another request, whose answer was not as good.
    """

    request_id: str
    score: float | None = None
    label: Any = None
    preference: str = ""


class FeedbackRoutes:
    """The handlers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def give(self, request: HttpRequest) -> Response:
        """Take feedback."""
        body = await request.body()
        try:
            given = msgspec.json.decode(body or b"{}", type=Given)
        except NOT_JSON as error:
            raise InvalidRequest(
                f"not feedback: {told(error)}. It takes request_id, and score, label or preference (the id of a "
                "request whose answer was not as good)"
            ) from None
        principal = request.principal
        tenant = None if principal.may_set_tenant else principal.tenant
        opinion = Opinion(given.score, given.label, given.preference)
        learned = self._engine.learning.feedback(given.request_id, opinion, tenant)
        return json_response(
            {
                "learned": [
                    {"request_id": f.request, "variant": f.variant, "score": f.score, "source": f.source}
                    for f in learned
                ]
            }
        )

    async def quality(self, request: HttpRequest) -> Response:
        """Show what is known of every variant."""
        history = self._engine.history
        variants = self._engine.catalog.variants.values()
        drifts = self._engine.learning.drifting.drifts()
        return json_response(
            {"variants": [_known(v, history.get(v.id) or History(), drifts.get(v.id)) for v in variants]}
        )


def routes(engine: Engine) -> list[Route]:
    """Return the routes."""
    at = "/semaforo/v1"
    feedback = FeedbackRoutes(engine)
    return [
        Route("POST", f"{at}/feedback", "infer", feedback.give),
        Route("GET", f"{at}/quality", "read", feedback.quality),
    ]


def _known(variant: Variant, history: History, drift: Drift | None) -> dict[str, Any]:
    believed = history.quality
    about: dict[str, Any] = {"variant": variant.id, "task": variant.task, "measured": variant.quality}
    if believed is not None:
        low, high = believed.interval()
        about |= {
            "believed": believed.mean, "low": low, "high": high, "feedback": believed.given,
            "changes": believed.changes,
        }  # fmt: skip
    if (ridge := history.ridge) is not None:
        about["alike"] = {
            "answers": ridge.answers, "trust": ridge.trust,
            "weights": dict(zip(["", *ridge.names], ridge.weights, strict=True)),
        }  # fmt: skip
    if drift is not None:
        about["drift"] = msgspec.to_builtins(drift)
    return about | {
        "latency_s": [mean.value if mean.count else None for mean in history.latency],
        "cost": history.cost.value if history.cost.count else None,
    }
