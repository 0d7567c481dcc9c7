"""The whole HTTP front of an engine: every protocol's routes in one application."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from semaforo.server import admin, metrics, openai, v2
from semaforo.server.app import App, ErrorForm
from semaforo.server.generation import Generation
from semaforo.server.http import Route
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.inference import Inference
from semaforo.server.settings import ServerSettings

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


def make_app(
    engine: Engine,
    settings: ServerSettings,
    *,
    routes: Sequence[Route] = (),
    error_forms: Sequence[tuple[str, ErrorForm]] = (),
) -> App:
    """Return the application that serves an engine.

    Args:
        engine: A started engine.
        settings: Limits and keys.
        routes: Routes of further protocols.
        error_forms: Prefix of paths → form of their errors.
    """
    kept = KeptAnswers(settings.idempotency_entries, settings.idempotency_ttl_s)
    inference = Inference(engine, kept)
    own = v2.V2(engine, _version())
    return App(
        [
            *v2.routes(own, inference, Generation(engine, inference)),
            *admin.routes(engine, inference, own),
            *metrics.routes(engine),
            *openai.routes(engine, inference, kept),
            *routes,
        ],
        settings,
        engine.new_id,
        ((openai.PREFIX, openai.error_body), *error_forms),
    )


def _version() -> str:
    try:
        return version("semaforo")
    except PackageNotFoundError:
        return "0"
