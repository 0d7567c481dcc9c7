"""Open Inference Protocol V2 over HTTP: health, metadata, statistics, configuration, repository.

Rules this module keeps:

1. ``{model}`` is a task type, a model or an alias; a version is a string.
2. On the health paths "not ready" is 400, elsewhere 503; what does not exist is 404.
3. Metadata speaks the task's names, dtypes and shapes, with -1 for the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semaforo.entities import ReplicaState, TaskType, TensorSpec, Variant
from semaforo.errors import InvalidRequest
from semaforo.server.generation import Generation
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.server.inference import Inference
from semaforo.server.statistics import model_statistics

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
_TEXT_IN = TensorSpec("text_input", "BYTES")
_TEXT_OUT = TensorSpec("text_output", "BYTES")


class V2:
    """The routes of V2 other than inference."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._version = version

    async def server(self, request: HttpRequest) -> Response:
        """``GET /v2``."""
        return json_response({"name": "semaforo", "version": self._version, "extensions": EXTENSIONS})

    async def live(self, request: HttpRequest) -> Response:
        """``GET /v2/health/live``: the event loop answers."""
        return json_response({"live": True})

    async def ready(self, request: HttpRequest) -> Response:
        """``GET /v2/health/ready``: some task can be served (all that cannot are named)."""
        tasks = self._engine.catalog.tasks
        missing = [name for name in tasks if not self._engine.ready(name)]
        if tasks and len(missing) == len(tasks):
            return json_response({"error": f"no task has a replica in service: {', '.join(missing)}"}, 400)
        return json_response({"ready": True, "not_ready": missing})

    async def models(self, request: HttpRequest) -> Response:
        """``GET /v2/models``: every name that can be asked for."""
        catalog = self._engine.catalog
        return json_response({"models": sorted({*catalog.tasks, *catalog.models(), *catalog.aliases})})

    async def metadata(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]``."""
        target, task, variants = self._find(request)
        inputs, outputs = _signature(task)
        catalog = self._engine.catalog
        named = catalog.resolve(target) if "version" not in request.params else variants
        models = {variant.model for variant in named}
        versions = sorted({v.version for v in catalog.variants.values() if v.model in models})
        return json_response(
            {
                "name": target,
                "versions": [request.params["version"]] if "version" in request.params else versions,
                "platform": self._platform(target, variants),
                "inputs": [_metadata(spec) for spec in inputs],
                "outputs": [_metadata(spec) for spec in outputs],
            }
        )

    async def model_ready(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/ready``."""
        target, _, _ = self._find(request)
        if not self._engine.ready(target, request.params.get("version", "")):
            return json_response({"error": f"'{target}' has no replica in service now"}, 400)
        return json_response({"name": target, "ready": True})

    async def config(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/config``: as Triton's model configuration."""
        target, task, variants = self._find(request)
        inputs, outputs = _signature(task)
        counts = {v.id: 0 for v in variants}
        for replica in self._engine.replicas():
            if replica.variant in counts and replica.state == ReplicaState.READY:
                counts[replica.variant] += 1
        templates = self._engine.catalog.templates
        return json_response(
            {
                "name": target,
                "platform": self._platform(target, variants),
                "backend": self._platform(target, variants),
                "max_batch_size": max((v.max_rows for v in variants), default=0),
                "input": [_config(spec) for spec in inputs],
                "output": [_config(spec) for spec in outputs],
                "instance_group": [
                    {
                        "name": v.id,
                        "count": counts[v.id],
                        "kind": _device_kind(templates[v.id].device if v.id in templates else "cpu"),
                    }
                    for v in variants
                ],
                "dynamic_batching": {},
            }
        )

    async def statistics(self, request: HttpRequest) -> Response:
        """``GET /v2/models/{model}[/versions/{version}]/stats`` and ``GET /v2/models/stats``."""
        if "model" in request.params:
            _, _, variants = self._find(request)
        else:
            variants = tuple(self._engine.catalog.variants.values())
        return json_response({"model_stats": model_statistics(variants, self._engine.metrics)})

    async def index(self, request: HttpRequest) -> Response:
        """``POST /v2/repository/index``: a bare array; ``{"ready": true}`` leaves out what is not ready."""
        asked = await request.json()
        if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
            raise InvalidRequest('the body is empty or {"ready": true}')
        models = [self._state(*named) for named in self._versions()]
        return json_response([m for m in models if m["state"] == "READY" or not asked.get("ready")])

    async def load(self, request: HttpRequest) -> Response:
        """``POST /v2/repository/models/{model}/load``: answers when the model is in service."""
        await request.json()
        await self._engine.load(self._model(request))
        return json_response({})

    async def unload(self, request: HttpRequest) -> Response:
        """``POST /v2/repository/models/{model}/unload``: answers when its replicas have been drained."""
        await request.json()
        await self._engine.unload(self._model(request))
        return json_response({})

    def _find(self, request: HttpRequest) -> tuple[str, TaskType, tuple[Variant, ...]]:
        target = request.params["model"]
        catalog = self._engine.catalog
        task = catalog.task_of(target)
        return target, task, catalog.resolve(target, request.params.get("version", ""))

    def _model(self, request: HttpRequest) -> str:
        name = request.params["model"]
        catalog = self._engine.catalog
        name = catalog.aliases.get(name, name)
        catalog.task_of(name)
        if name in catalog.tasks:
            models = sorted({v.model for v in catalog.variants.values() if v.task == name})
            raise InvalidRequest(
                f"'{name}' is a task type; load or unload one of its models: {', '.join(models)}"
            )
        return name

    def _platform(self, target: str, variants: tuple[Variant, ...]) -> str:
        templates = self._engine.catalog.templates
        runtimes = sorted({templates[v.id].runtime for v in variants if v.id in templates})
        return runtimes[0] if len(runtimes) == 1 else "semaforo"

    def _versions(self) -> list[tuple[str, str, list[Variant]]]:
        found: dict[tuple[str, str], list[Variant]] = {}
        for variant in self._engine.catalog.variants.values():
            found.setdefault((variant.model, variant.version), []).append(variant)
        return [(model, version, variants) for (model, version), variants in found.items()]

    def _state(self, model: str, version: str, variants: list[Variant]) -> dict[str, str]:
        ids = {variant.id for variant in variants}
        replicas = [replica for replica in self._engine.replicas() if replica.variant in ids]
        states = {str(replica.state) for replica in replicas}
        reason = ""
        if ReplicaState.READY in states or ReplicaState.EJECTED in states:
            state = "READY"
        elif ReplicaState.STARTING in states:
            state = "LOADING"
        elif ReplicaState.DRAINING in states:
            state = "UNLOADING"
        else:
            state = "UNAVAILABLE"
            errors = [replica.last_error for replica in replicas if replica.last_error]
            reason = errors[0] if errors else "unloaded"
        return {"name": model, "version": version, "state": state, "reason": reason}


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


def _signature(task: TaskType) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    if task.kind == "chat":
        return (_TEXT_IN,), (_TEXT_OUT,)
    return task.inputs, task.outputs


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    value: dict[str, Any] = {"name": spec.name, "datatype": spec.dtype, "shape": [-1, *spec.shape]}
    if spec.labels:
        value["parameters"] = {"labels": spec.labels}
    if spec.optional:
        value["parameters"] = {"optional": True}
    return value


def _config(spec: TensorSpec) -> dict[str, Any]:
    dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype
    value: dict[str, Any] = {"name": spec.name, "data_type": f"TYPE_{dtype}", "dims": list(spec.shape) or [1]}
    if spec.optional:
        value["optional"] = True
    return value


def _device_kind(device: str) -> str:
    return (
        "KIND_CPU"
        if device in ("cpu", "loop", "")
        else "KIND_GPU"
        if device.startswith("cuda")
        else "KIND_AUTO"
    )
