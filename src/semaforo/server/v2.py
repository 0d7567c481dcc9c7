"""Open Inference Protocol V2 over HTTP: health, metadata, statistics, configuration, repository.

Rules this module keeps:

1. ``{model}`` is a task type, a model or an alias; a version is a string.
2. On the health paths "not ready" is 400, elsewhere 503; what does not exist is 404.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semaforo.errors import InvalidRequest
from semaforo.server.description import Description
from semaforo.server.generation import Generation
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.server.inference import Inference

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)


class V2:
    """The routes of V2 other than inference."""

    def __init__(self, engine: Engine, description: Description) -> None:
        self._engine = engine
        self._description = description

    async def server(self, request: HttpRequest) -> Response:
        """``GET /v2``."""
        return json_response(self._description.server(EXTENSIONS))

    async def live(self, request: HttpRequest) -> Response:
        """``GET /v2/health/live``: the event loop answers."""
        return json_response({"live": True})

    async def ready(self, request: HttpRequest) -> Response:
        """``GET /v2/health/ready``: some task can be served (all that cannot are named)."""
        missing = self._description.not_ready()
        if not self._description.ready():
            return json_response({"error": f"no task has a replica in service: {', '.join(missing)}"}, 400)
        return json_response({"ready": True, "not_ready": missing})

    async def models(self, request: HttpRequest) -> Response:
        """``GET /v2/models``: every name that can be asked for."""
        return json_response({"models": self._description.names()})

    async def metadata(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]``."""
        return json_response(self._description.metadata(*_named(request)))

    async def model_ready(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/ready``."""
        target, version = _named(request)
        if not self._engine.ready(target, version):
            return json_response({"error": f"'{target}' has no replica in service now"}, 400)
        return json_response({"name": target, "ready": True})

    async def config(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/config``: as Triton's model configuration."""
        return json_response(self._description.config(*_named(request)))

    async def statistics(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/stats`` and ``GET /v2/models/stats``."""
        return json_response({"model_stats": self._description.statistics(*_named(request))})

    async def index(self, request: HttpRequest) -> Response:
        """``POST /v2/repository/index``: a bare array; ``{"ready": true}`` leaves out what is not ready."""
        asked = await request.json()
        if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
            raise InvalidRequest('the body is empty or {"ready": true}')
        return json_response(self._description.repository(asked.get("ready", False)))

    async def load(self, request: HttpRequest) -> Response:
        """``POST /v2/repository/models/{model}/load``: answers when the model is in service."""
        await request.json()
        await self._engine.operations.load(self._description.model(request.params["model"]))
        return json_response({})

    async def unload(self, request: HttpRequest) -> Response:
        """``POST /v2/repository/models/{model}/unload``: answers when its replicas have been drained."""
        await request.json()
        await self._engine.operations.unload(self._description.model(request.params["model"]))
        return json_response({})


def routes(v2: V2, inference: Inference, generation: Generation) -> list[Route]:
    """Return all routes of V2."""
    infer = inference.infer
    found = [
        Route("GET", "/v2", "probe", v2.server),
        Route("GET", "/v2/health/live", "probe", v2.live),
        Route("GET", "/v2/health/ready", "probe", v2.ready),
        Route("GET", "/v2/models", "describe", v2.models),
        Route("GET", "/v2/models/stats", "read", v2.statistics),
        Route("POST", "/v2/repository/index", "describe", v2.index),
        Route("POST", "/v2/repository/models/{model}/load", "operate", v2.load),
        Route("POST", "/v2/repository/models/{model}/unload", "operate", v2.unload),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            Route("GET", model, "describe", v2.metadata),
            Route("GET", f"{model}/ready", "probe", v2.model_ready),
            Route("GET", f"{model}/config", "describe", v2.config),
            Route("GET", f"{model}/stats", "read", v2.statistics),
            Route("POST", f"{model}/infer", "infer", infer, inference.infer_directly),
            Route("POST", f"{model}/generate", "infer", generation.generate),
            Route("POST", f"{model}/generate_stream", "infer", generation.generate_stream),
        ]
    return found


def _named(request: HttpRequest) -> tuple[str, str]:
    return request.params.get("model", ""), request.params.get("version", "")
