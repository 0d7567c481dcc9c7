"""``inference.GRPCInferenceService``: every method with the action it asks for, and what it answers.

Messages come as bytes and leave as bytes: each is parsed once, here, so that a malformed one is the caller's
error and not the server's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import ParseDict

from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.server.description import Description
from semaforo.server.grpc.door import Context, Door, Handler, Handlers, headers_of
from semaforo.server.grpc.inference import Inference
from semaforo.server.grpc.stream import InferStream
from semaforo.server.identity import Action
from semaforo.wire.inference_messages import message
from semaforo.wire.v2_grpc import parsed

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)
_SHARED_MEMORY = "shared memory is not served: send tensors in raw_input_contents"
_NOT_SERVED = {
    **{
        f"{kind}SharedMemory{verb}": _SHARED_MEMORY
        for kind in ("System", "Cuda")
        for verb in ("Status", "Register", "Unregister")
    },
    "TraceSetting": "trace settings are not served: send a traceparent with the requests to be traced",
    "LogSettings": "log settings are not served: start the server with --log-level",
}

Answer = Callable[[Any], Awaitable[dict[str, Any]]]


class _NotServed(SemaforoError):
    code = "unimplemented"
    status = 501


class Service:
    """The methods of the service."""

    def __init__(self, engine: Engine, description: Description, door: Door, inference: Inference) -> None:
        self._engine = engine
        self._description = description
        self._door = door
        self._inference = inference
        self._streams: set[InferStream] = set()

    def handlers(self) -> Handlers:
        """Return the service's methods by name."""
        unary: dict[str, tuple[Action, Answer]] = {
            "ServerLive": ("probe", self._live),
            "ServerReady": ("probe", self._ready),
            "ModelReady": ("probe", self._model_ready),
            "ServerMetadata": ("probe", self._server),
            "ModelMetadata": ("describe", self._metadata),
            "ModelConfig": ("describe", self._config),
            "ModelStatistics": ("read", self._statistics),
            "RepositoryIndex": ("describe", self._index),
            "RepositoryModelLoad": ("operate", self._load),
            "RepositoryModelUnload": ("operate", self._unload),
        }
        found = {name: self._unary(name, *how) for name, how in unary.items()}
        found |= {name: self._refusal(text) for name, text in _NOT_SERVED.items()}
        found["ModelInfer"] = self._inference.infer
        handlers = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in found.items()}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return handlers

    def end(self) -> None:
        """End the streams on which nothing is in flight, now and as they get there."""
        for stream in self._streams:
            stream.wake()

    def _unary(self, name: str, action: Action, answer: Answer) -> Handler:
        request, response = message(f"{name}Request"), message(f"{name}Response")

        async def handle(body: bytes, context: Context) -> bytes:
            try:
                self._door.admit(headers_of(context), action, name)
                value = await answer(parsed(request, body))
                reply: bytes = ParseDict(value, response(), ignore_unknown_fields=True).SerializeToString()
                return reply
            except Exception as error:
                await self._door.refuse(context, error, self._door.new_id())
                raise

        return handle

    def _refusal(self, text: str) -> Handler:
        async def handle(body: bytes, context: Context) -> bytes:
            await self._door.refuse(context, _NotServed(text), self._door.new_id())
            return b""

        return handle

    async def _stream(self, requests: Any, context: Context) -> None:
        stream: InferStream | None = None
        try:
            stream = InferStream(
                self._inference, context, self._inference.caller(context, "ModelStreamInfer")
            )
            self._streams.add(stream)
            with self._door.stream():
                await stream.run()
        except Exception as error:
            await self._door.refuse(context, error, self._door.new_id())
        finally:
            if stream is not None:
                self._streams.discard(stream)

    async def _live(self, request: Any) -> dict[str, Any]:
        return {"live": True}

    async def _ready(self, request: Any) -> dict[str, Any]:
        return {"ready": self._description.ready()}

    async def _model_ready(self, request: Any) -> dict[str, Any]:
        return {"ready": self._engine.ready(request.name, request.version)}

    async def _server(self, request: Any) -> dict[str, Any]:
        return self._description.server(EXTENSIONS)

    async def _metadata(self, request: Any) -> dict[str, Any]:
        return self._description.metadata(request.name, request.version)

    async def _config(self, request: Any) -> dict[str, Any]:
        return {"config": self._description.config(request.name, request.version)}

    async def _statistics(self, request: Any) -> dict[str, Any]:
        return {"model_stats": self._description.statistics(request.name, request.version)}

    async def _index(self, request: Any) -> dict[str, Any]:
        return {"models": self._description.repository(request.ready)}

    async def _load(self, request: Any) -> dict[str, Any]:
        if request.parameters:
            raise InvalidRequest(
                f"{', '.join(sorted(request.parameters))}: a load takes no parameters; "
                "the fleet file says what a model is"
            )
        await self._engine.operations.load(self._description.model(request.model_name))
        return {}

    async def _unload(self, request: Any) -> dict[str, Any]:
        await self._engine.operations.unload(self._description.model(request.model_name))
        return {}
