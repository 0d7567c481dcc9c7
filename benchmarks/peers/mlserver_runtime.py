"""MLServer: a custom runtime, the tensors read by its own codecs."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.model import Model


class Net(MLModel):
    """The model as a runtime."""

    async def load(self) -> bool:
        self._net = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output(self._net.output, self._net.run(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
