"""The whole HTTP front of an engine: every protocol's routes in one application."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from semaforo.server import admin, metrics, openai, v2
from semaforo.server.app import App
from semaforo.server.generation import Generation
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.inference import Inference
from semaforo.server.settings import ServerSettings

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


def make_app(engine: Engine, settings: ServerSettings) -> App:
    """Return the application that serves a started engine."""
    kept = KeptAnswers(settings.idempotency_entries, settings.idempotency_ttl_s)
    inference = Inference(engine, kept)
    own = v2.V2(engine, _version())
    routes = [
        *v2.routes(own, inference, Generation(engine, inference)),
        *openai.routes(engine, inference, kept),
        *admin.routes(engine, inference, own),
        *metrics.routes(engine),
    ]
    return App(routes, settings, engine.new_id, [(openai.PREFIX, openai.error_response)])


def _version() -> str:
    try:
        return version("semaforo")
    except PackageNotFoundError:
        return "0"
