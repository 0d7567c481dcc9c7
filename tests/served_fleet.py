"""A fleet of small real models behind the HTTP front, in a thread of its own, for tests that speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper

from semaforo.build import Secrets, engine_for
from semaforo.catalog.state import Catalog, Scaling
from semaforo.entities import ReplicaSpec, TaskType, TensorSpec, Variant
from semaforo.features.plan import Sources
from semaforo.live.engine import Engine
from semaforo.repository.routers import Routed
from semaforo.routing.tasks import TaskModel
from semaforo.server.front import make_app
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.listener import HttpServer
from semaforo.server.settings import ServerSettings

ONNX_DTYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip
LABELS = ("zero", "one", "two")


def fail(x: Any) -> Any:
    """A model that cannot do anything."""
    raise RuntimeError("this model always fails")


def sleep(seconds: Any) -> Any:
    """A model that takes as long as its rows say."""
    time.sleep(float(np.sum(seconds)))
    return seconds


def same(x: Any) -> Any:
    """A model that gives back what it gets."""
    return x


def _save(path: Path, nodes: Any, inputs: Any, outputs: Any, initializers: Any = ()) -> str:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def identity(folder: Path, dtype: str) -> str:
    """Write a model that gives back its only input."""
    kind = ONNX_DTYPES[dtype]
    return _save(
        folder / f"identity-{dtype}.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", kind, ["n", "m"])],
        [helper.make_tensor_value_info("y", kind, ["n", "m"])],
    )


def classifier(folder: Path, name: str, bias: float) -> str:
    """Write a model of four features and three classes, `scores = softmax(image · W + bias)`."""
    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    offset = np.array([bias, 0, -bias], np.float32)
    return _save(
        folder / f"{name}.onnx",
        [
            helper.make_node("Gemm", ["image", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [4, 3], weights.ravel()),
            helper.make_tensor("b", TensorProto.FLOAT, [3], offset),
        ],
    )


class Fleet:
    """Collects tasks and variants into a catalog."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskType] = {}
        self.variants: dict[str, Variant] = {}
        self.templates: dict[str, ReplicaSpec] = {}
        self.scaling: dict[str, Scaling] = {}
        self.in_service: dict[str, str] = {}
        self.aliases: dict[str, str] = {}

    def task(self, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.tasks[name] = TaskType(name, inputs=inputs, outputs=outputs)

    def add(self, variant: str, task: str, runtime: str, source: str, **more: Any) -> None:
        """Add ``model/version/name``; `most` replicas, `isolation`, and fields of `Variant`."""
        model, version, name = variant.split("/")
        isolation = more.pop("isolation", "inline")
        self.scaling[variant] = Scaling(more.pop("least", 1), more.pop("most", 1))
        self.variants[variant] = Variant(variant, model, version, name, task, **more)
        about = self.tasks[task]
        self.templates[variant] = ReplicaSpec(
            "", variant, runtime, source, isolation,
            task=task,
            inputs=tuple(msgspec.to_builtins(spec) for spec in about.inputs),
            outputs=tuple(msgspec.to_builtins(spec) for spec in about.outputs),
        )  # fmt: skip
        self.in_service.setdefault(model, version)

    def catalog(self) -> Catalog:
        return Catalog(self.tasks, self.variants, self.templates, self.scaling, self.aliases, self.in_service)


def small_fleet(folder: Path) -> Catalog:
    """Two classifiers of one task (one in two versions), a model for every dtype, one slow and one that fails."""
    fleet = Fleet()
    fleet.task(
        "digits",
        (TensorSpec("image", "FP32", (4,)),),
        (TensorSpec("label", "INT64"), TensorSpec("scores", "FP32", (3,), labels=LABELS)),
    )
    fleet.add("linear/3/fp32", "digits", "onnx", classifier(folder, "linear", 0.0), quality=0.9)
    fleet.add("net/v10/int8", "digits", "onnx", classifier(folder, "net", 0.5), quality=0.97)
    fleet.add("net/v9/int8", "digits", "onnx", classifier(folder, "net9", -0.5), quality=0.96)
    fleet.in_service["net"] = "v10"
    fleet.aliases = {"best": "net", "numbers": "digits"}
    for dtype in (*ONNX_DTYPES, "BF16"):
        name = f"echo-{dtype.lower()}"
        fleet.task(name, (TensorSpec("x", dtype, (-1,)),), (TensorSpec("y", dtype, (-1,)),))
        if dtype == "BF16":
            fleet.add(f"same-{name}/1/x", name, "python", "served_fleet:same", isolation="thread")
        else:
            fleet.add(f"same-{name}/1/x", name, "onnx", identity(folder, dtype))
    seconds = (TensorSpec("seconds", "FP32"),)
    fleet.task("wait", seconds, (TensorSpec("slept", "FP32"),))
    fleet.add("sleeper/1/x", "wait", "python", "served_fleet:sleep", isolation="thread", max_rows=1)
    fleet.task("fail", (TensorSpec("x", "FP32"),), (TensorSpec("y", "FP32"),))
    fleet.add("failer/1/x", "fail", "python", "served_fleet:fail", isolation="thread")
    return fleet.catalog()


def only(catalog: Catalog, *tasks: str) -> Catalog:
    """Keep a few tasks of a catalog, so that it starts quickly."""
    variants = {i: v for i, v in catalog.variants.items() if v.task in tasks}
    return Catalog(
        {name: catalog.tasks[name] for name in tasks},
        variants,
        {i: catalog.templates[i] for i in variants},
        {i: catalog.scaling[i] for i in variants},
        {},
        catalog.in_service,
    )


class Served:
    """A served fleet.

    Attributes:
        url: Where it is served.
        port: Its port.
        grpc: Address for gRPC, where its settings ask for that.
        engine: The engine behind it; to be touched on its own loop only (`call`).
    """

    def __init__(self, engine: Engine, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.port = server.port
        self.url = f"http://127.0.0.1:{server.port}"
        self.grpc = ""
        self._loop = loop

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the server's loop and return its result."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def unload(self, model: str) -> None:
        """Take a model out of service and wait until it is."""
        asyncio.run_coroutine_threadsafe(self.engine.operations.unload(model), self._loop).result(10)

    def await_in_flight(self, requests: int) -> None:
        """Wait until so many requests are being served."""
        until = time.monotonic() + 10
        while self.call(lambda: len(self.engine._waiters)) < requests:
            assert time.monotonic() < until
            time.sleep(0.002)


@contextlib.contextmanager
def serving(
    catalog: Catalog,
    settings: ServerSettings | None = None,
    secrets: Secrets | None = None,
    tasks: TaskModel | None = None,
    routers: Mapping[str, Routed] | None = None,
    sources: Sources | None = None,
) -> Iterator[Served]:
    """Serve a catalog on a free port until the block ends."""
    settings = settings or ServerSettings(port=0, grace_s=2.0)
    up = threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        ending = asyncio.Event()
        engine = engine_for(secrets=secrets, tasks=tasks, routers=routers, sources=sources)
        try:
            await engine.start(catalog)
            kept = KeptAnswers(settings.idempotency_entries, settings.idempotency_ttl_s)
            server = HttpServer(make_app(engine, settings, kept), settings)
            await server.start()
            loop = asyncio.get_running_loop()
            served = Served(engine, server, loop)
            beside = None
            if settings.grpc_port is not None:
                from semaforo.server.grpc.listener import GrpcServer

                beside = GrpcServer(engine, settings, kept)
                await beside.start()
                served.grpc = f"127.0.0.1:{beside.port}"
            found.extend((served, lambda: loop.call_soon_threadsafe(ending.set)))
            up.set()
            await ending.wait()
            server.end()
            await server.wait()
            if beside is not None:
                beside.end()
                await beside.wait()
        except BaseException as error:
            found.append(error)
            raise
        finally:
            up.set()
            await engine.stop(1.0)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    up.wait(60)
    try:
        if len(found) < 2:
            raise RuntimeError(f"the fleet could not be served: {found}")
        yield found[0]
    finally:
        if len(found) >= 2:
            found[1]()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"
