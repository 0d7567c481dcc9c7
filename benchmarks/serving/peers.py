"""The servers that are compared: how each is started, in which forms it is asked, and what it was given.

Rules this module keeps:

1. Everything binds 127.0.0.1, telemetry and access logs are off, one model replica, one onnxruntime thread.
2. A peer's own batching is on wherever it makes that peer faster here; `how` says what was chosen, for its users
   to judge.
3. Nothing here starts anything.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from benchmarks.serving.forms import BASE64, BINARY, GRPC, JSON, RAW, Form

_LOOPBACK = "127.0.0.1"

FLEET = """
tasks:
  net:
    inputs: {{x: "fp32[{shape}]"}}
    outputs: {{{output}: "fp32[10]"}}
models:
  net-model: {{task: net, source: {model}, isolation: {isolation}, max_batch: 32}}
server:
  limits: {{connections: 20000, keep_alive: 10m}}
"""


class Place(msgspec.Struct, frozen=True):
    """What a server is started with."""

    python: str
    model: Path
    form: Form
    scratch: Path
    port: int
    grpc_port: int
    metrics_port: int


class Peer(msgspec.Struct, frozen=True):
    """One server.

    Attributes:
        name: As `--peers` takes it.
        title: As tables show it.
        command: What starts it.
        how: How it is configured, for the page.
        path, heavy_path: Where JSON and the heavy form are sent.
        heavy: The cheapest form it speaks for the convolution's 12 kB, HTTP or gRPC; JSON = it is not asked.
        grpc: Whether it speaks V2 over gRPC.
        runs_model: Whether a process of its tree runs the model; None = one process does everything.
        environment: More variables for its process.
        own: Whether it needs an environment of its own.
        home: Name of that environment; its own name where empty.
        pythons: Interpreters that can carry its environment, the first there is; empty = the running one.
    """

    name: str
    title: str
    command: Callable[[Place], list[str]]
    how: str
    path: str = "/infer"
    heavy_path: str = "/infer"
    heavy: Form = RAW
    grpc: bool = False
    runs_model: Callable[[psutil.Process, bool], bool] | None = None
    environment: dict[str, str] = {}
    own: bool = True
    home: str = ""
    pythons: tuple[str, ...] = ()


def _is_child(process: psutil.Process, root: bool) -> bool:
    return not root


# Messages of V2 come from tritonclient's stubs.
GRPC_THERE = all(importlib.util.find_spec(name) is not None for name in ("grpc", "tritonclient"))


def speaks_grpc(peer: Peer) -> bool:
    """Return whether a server can be asked over gRPC here."""
    return peer.grpc and GRPC_THERE


def _grpc_option(place: Place) -> tuple[str, ...]:
    return ("--grpc-port", str(place.grpc_port)) if speaks_grpc(INLINE) else ()


def _semaforo(isolation: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        import onnx

        graph = onnx.load(str(place.model), load_external_data=False).graph
        shape = ",".join(str(d.dim_value) for d in graph.input[0].type.tensor_type.shape.dim[1:])
        fleet = place.scratch / "fleet.yaml"
        fleet.write_text(
            FLEET.format(
                shape=shape, output=graph.output[0].name, model=place.model.resolve(), isolation=isolation
            )
        )
        return [
            place.python, "-m", "semaforo", "serve", str(fleet), "--http-port", str(place.port),
            "--log-level", "warning", *_grpc_option(place),
        ]  # fmt: skip

    return command


def _module(name: str, *arguments: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [place.python, "-m", f"benchmarks.peers.{name}", *arguments]

    return command


def _uvicorn(app: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [
            place.python, "-m", "uvicorn", app, "--host", _LOOPBACK, "--port", str(place.port), "--loop", "uvloop",
            "--http", "httptools", "--no-access-log", "--log-level", "warning",
        ]  # fmt: skip

    return command


def _mosec(place: Place) -> list[str]:
    return [
        place.python, "-m", "benchmarks.peers.mosec_app", "--address", _LOOPBACK, "--port", str(place.port),
        "--path", str(place.scratch / "ipc"), "--timeout", "30000", "--log-level", "error",
    ]  # fmt: skip


def _bentoml(place: Place) -> list[str]:
    return [
        str(Path(place.python).with_name("bentoml")), "serve", "benchmarks.peers.bentoml_app:Net",
        "--host", _LOOPBACK, "--port", str(place.port), "--do-not-track",
    ]  # fmt: skip


def _is_replica(process: psutil.Process, root: bool) -> bool:
    return any(part.startswith("ray::ServeReplica") for part in process.cmdline())


def _echo(place: Place) -> list[str]:
    return [place.python, "-m", "benchmarks.peers.echo"]


def _is_root(process: psutil.Process, root: bool) -> bool:
    return root


V2_PATH = "/v2/models/net/infer"

BARE = Peer(
    name="bare",
    title="bare app",
    command=_uvicorn("benchmarks.peers.bare:app"),
    how="Raw ASGI on uvicorn (uvloop, httptools), typed msgspec, onnxruntime called in the event loop: no product "
    "but the yardstick, with no scheduling, no batching and no checks.",
    path="/",
    heavy_path="/",
    heavy=JSON,
    own=False,
)
INLINE = Peer(
    name="semaforo-inline",
    title="Semaforo, inline",
    command=_semaforo("inline"),
    how="`semaforo serve` with `isolation: inline` (what `auto` picks for a model this short) and `max_batch: 32`.",
    path=V2_PATH,
    heavy_path=V2_PATH,
    heavy=BINARY,
    grpc=True,
    own=False,
)
PROCESS = Peer(
    name="semaforo-process",
    title="Semaforo, process",
    command=_semaforo("process"),
    how="`semaforo serve` with `isolation: process` and `max_batch: 32`: one worker process. For the convolution "
    "the worker is kept on one core, the gateway on the other.",
    path=V2_PATH,
    heavy_path=V2_PATH,
    heavy=BINARY,
    grpc=True,
    runs_model=_is_child,
    own=False,
)

ECHO = Peer(
    name="echo",
    title="grpc.aio echo",
    command=_echo,
    how="A `grpc.aio` server on uvloop that gives back the bytes it gets: the yardstick for gRPC.",
    heavy=JSON,
    grpc=True,
    own=False,
)

PEERS = (
    Peer(
        name="mosec",
        title="mosec",
        command=_mosec,
        how="One worker process behind its Rust front, dynamic batching of 32 with 1 ms to wait, JSON by its own "
        "codec. Convolution: raw fp32 rows; the worker on one core, the front on the other.",
        runs_model=_is_child,
    ),
    Peer(
        name="mosec-msgspec",
        title="mosec, msgspec",
        command=_mosec,
        how="The same with its `serialize` and `deserialize` overridden, so that msgspec reads and writes JSON. "
        "Not asked for the convolution, where no JSON is read.",
        environment={"CODEC": "msgspec"},
        home="mosec",
        heavy=JSON,
    ),
    Peer(
        name="triton",
        title="Triton (pytriton)",
        command=_module("triton_app"),
        how="`nvidia-pytriton`: Triton's server with its dynamic batcher (32, no delay), the model as a Python "
        "function in its Python back end, which is what can be installed with pip; Triton's native onnxruntime "
        "back end comes in its container only and is not measured here. Convolution: V2's binary tensors; the "
        "process of the function on one core, the server on the other.",
        path=V2_PATH,
        heavy_path=V2_PATH,
        heavy=BINARY,
        grpc=True,
        runs_model=_is_root,
        environment={"PYTRITON_HOME": "pytriton"},
        pythons=("/usr/bin/python3.11", "/usr/bin/python3.10", "/usr/bin/python3.12"),
    ),
    Peer(
        name="litserve",
        title="LitServe",
        command=_module("litserve_app"),
        how="One inference process, one API server, batches of 32 with 1 ms to wait, `fast_queue`. It takes no raw "
        "bodies: the convolution gets fp32 rows as base64 in JSON; both cores are free to all of its processes.",
        heavy=BASE64,
    ),
    Peer(
        name="mlserver",
        title="MLServer",
        command=_module("mlserver_app"),
        how="A custom runtime with its NumPy codec, `parallel_workers: 0` (its worker processes are slower for a "
        "model this small) and no adaptive batching (slower too). Convolution: raw tensors over its gRPC, as it "
        "has no binary form over HTTP; one process, both cores free.",
        path=V2_PATH,
        heavy_path=V2_PATH,
        heavy=GRPC,
        grpc=True,
    ),
    Peer(
        name="fastapi",
        title="FastAPI",
        command=_uvicorn("benchmarks.peers.fastapi_app:app"),
        how="uvicorn (uvloop, httptools), pydantic bodies, `async def`, the model called in the event loop. "
        "Convolution: raw fp32 rows; one process, both cores free.",
        heavy_path="/raw",
    ),
    Peer(
        name="bentoml",
        title="BentoML",
        command=_bentoml,
        how="One worker; a batchable API (32) over a list of tensors. Convolution: an octet stream of fp32 rows, "
        "which cannot be batched; both cores free.",
        heavy_path="/raw",
        environment={"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": "bentoml"},
    ),
    Peer(
        name="ray",
        title="Ray Serve",
        command=_module("ray_app"),
        how="One replica with one CPU behind the HTTP proxy, `serve.batch` of 32 with 1 ms to wait. Convolution: "
        "raw fp32 rows; the replica on one core, the proxy and the rest on the other.",
        runs_model=_is_replica,
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    ),
)
