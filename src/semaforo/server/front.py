"""The whole HTTP front of an engine: every protocol's routes in one application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semaforo.server import admin, metrics, openai, openapi, v2
from semaforo.server.app import App
from semaforo.server.deferred.service import Deferred, routes_without
from semaforo.server.description import Description
from semaforo.server.generation import Generation
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.inference import Inference
from semaforo.server.settings import ServerSettings

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


def make_app(engine: Engine, settings: ServerSettings, kept: KeptAnswers | None = None) -> App:
    """Return the application that serves a started engine; fronts of one engine share the answers they keep."""
    if kept is None:
        kept = KeptAnswers(settings.idempotency_entries, settings.idempotency_ttl_s)
    inference = Inference(engine, kept)
    description = Description(engine)
    own = v2.V2(engine, description)
    deferred = Deferred(engine, settings.deferred) if settings.deferred else None
    routes = [
        *v2.routes(own, inference, Generation(engine, inference)),
        *openai.routes(engine, inference, kept),
        *admin.routes(engine, inference, own),
        *(deferred.routes() if deferred else routes_without()),
        *metrics.routes(engine, deferred),
    ]
    routes += openapi.routes(routes, description.server(())["version"], bool(settings.keys))
    app = App(routes, settings, engine.new_id, [(openai.PREFIX, openai.error_response)])
    if deferred:
        deferred.attach(app)
    return app
