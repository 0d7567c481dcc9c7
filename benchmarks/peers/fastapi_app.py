"""FastAPI on uvicorn: pydantic bodies, the model called in the event loop.

The model takes microseconds to a fraction of a millisecond: a thread for each call would cost more than it frees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from benchmarks.peers.model import Model


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Body(BaseModel):
    inputs: list[Tensor]


class Answer(BaseModel):
    model_name: str
    outputs: list[Tensor]


app = FastAPI()
model = Model()


@app.post("/infer")
async def infer(body: Body) -> Answer:
    """V2 over JSON."""
    tensor = body.inputs[0]
    answers = model.run(np.array(tensor.data, np.float32).reshape(tensor.shape))
    return Answer(model_name="net", outputs=[Tensor(**model.to_tensor(answers))])


@app.post("/raw")
async def raw(request: Request) -> Any:
    """Raw fp32 rows."""
    answers = model.run(model.from_bytes(await request.body()))
    return Response(answers.tobytes(), media_type="application/octet-stream")
