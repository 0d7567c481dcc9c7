"""Ray Serve's composition: five deployments, one replica each, called one after the other by handles."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from benchmarks.peers.model import Model, from_v2
from benchmarks.peers.ray_app import QUIET, keep_to_loopback

STEPS = 5


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1})
class Step:
    """The model in a replica."""

    def __init__(self) -> None:
        self._model = Model()

    async def run(self, rows: np.ndarray) -> np.ndarray:
        """Answer rows."""
        return self._model.run(rows)


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1})
class Chain:
    """The five in order."""

    def __init__(self, *steps: DeploymentHandle) -> None:
        self._steps = steps
        self._model = Model()

    async def __call__(self, request: Request) -> Any:
        rows: Any = from_v2((await request.json())["inputs"][0])
        for step in self._steps:
            # A response that is passed on as it is goes from replica to replica.
            rows = step.run.remote(rows)
        return self._model.to_v2(await rows)


if __name__ == "__main__":
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
    steps = [Step.options(name=f"step{n}").bind() for n in range(STEPS)]
    serve.run(Chain.bind(*steps), route_prefix="/infer", logging_config=QUIET)
    ended.wait()
    serve.shutdown()
    ray.shutdown()
