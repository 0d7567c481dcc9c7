"""Ray Serve's composition: five deployments, one replica each, called one after the other by handles."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from benchmarks.peers.model import Model, from_v2
from benchmarks.peers.ray_app import run

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
    run(Chain.bind(*(Step.options(name=f"step{n}").bind() for n in range(STEPS))))
