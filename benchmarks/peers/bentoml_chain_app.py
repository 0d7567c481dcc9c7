"""BentoML's composition: five services, one worker each, that a sixth depends on and calls one after the other."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np

from benchmarks.peers.bentoml_app import Tensor
from benchmarks.peers.model import Model

CONFIG: dict[str, Any] = {
    "workers": 1,
    "traffic": {"timeout": 30, "max_concurrency": 1024},
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
}


class _Step:
    """The model."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api
    async def run(self, rows: np.ndarray) -> np.ndarray:
        """Answer rows."""
        return self._model.run(rows.astype(np.float32, copy=False))


Step0 = bentoml.service(name="step0", **CONFIG)(type("Step0", (_Step,), {}))
Step1 = bentoml.service(name="step1", **CONFIG)(type("Step1", (_Step,), {}))
Step2 = bentoml.service(name="step2", **CONFIG)(type("Step2", (_Step,), {}))
Step3 = bentoml.service(name="step3", **CONFIG)(type("Step3", (_Step,), {}))
Step4 = bentoml.service(name="step4", **CONFIG)(type("Step4", (_Step,), {}))


@bentoml.service(name="chain", **CONFIG)
class Chain:
    """The five in order."""

    step0 = bentoml.depends(Step0)
    step1 = bentoml.depends(Step1)
    step2 = bentoml.depends(Step2)
    step3 = bentoml.depends(Step3)
    step4 = bentoml.depends(Step4)

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(route="/infer")
    async def infer(self, inputs: list[Tensor]) -> dict[str, Any]:
        """V2 over JSON: tensors in, tensors out."""
        rows: Any = np.array(inputs[0].data, np.float32).reshape(inputs[0].shape)
        for step in (self.step0, self.step1, self.step2, self.step3, self.step4):
            rows = await step.to_async.run(rows=rows)
        return self._model.to_v2(np.asarray(rows, np.float32))
