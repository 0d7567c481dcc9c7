"""Ray Serve: one replica behind its HTTP proxy, with its batching.

``FORM`` is ``json`` or ``raw`` (fp32 rows).
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.model import BATCH, Model, from_v2

QUIET = {"enable_access_log": False, "log_level": "WARNING"}


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Net:
    """The model in a replica."""

    def __init__(self, form: str) -> None:
        self._model = Model()
        self._raw = form == "raw"

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.001)
    async def run(self, requests: list[Any]) -> list[Any]:
        return self._model.run_each(requests)

    async def __call__(self, request: Request) -> Any:
        if self._raw:
            answers = await self.run(self._model.from_bytes(await request.body()))
            return Response(answers.tobytes(), media_type="application/octet-stream")
        return self._model.to_v2(await self.run(from_v2((await request.json())["inputs"][0])))


def keep_to_loopback() -> None:
    """Bind the port that replicas have between themselves, which is on all addresses and has no option."""
    from ray.serve._private import replica

    add = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add(
        server, address.replace("[::]", "127.0.0.1")
    )


def run(application: Any) -> None:
    """Serve an application on loopback until told to end."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    environment = {
        "env_vars": {name: os.environ[name] for name in ("MODEL", "PYTHONPATH")},
        "worker_process_setup_hook": keep_to_loopback,
    }
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        runtime_env=environment,
        _node_ip_address="127.0.0.1",
        _temp_dir=os.environ["SCRATCH"],
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])}, logging_config=QUIET)
    serve.run(application, route_prefix="/infer", logging_config=QUIET)
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    run(Net.bind(os.environ["FORM"]))
