"""Calls by kserve's own clients, run in their environment: prints what came of each as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL, GRPC = sys.argv[1], sys.argv[2]
IMAGE = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
SAMPLES: dict[str, Any] = {
    "BOOL": [[True, False]],
    "INT8": [[-128, 127]],
    "UINT64": [[0, 2**64 - 1]],
    "INT64": [[-(2**63), 5]],
    "FP16": [[-1.5, 0.25]],
    "FP32": [[-1.5, 1e30]],
    "FP64": [[-1.5, 1e300]],
    "BYTES": [["", "grüße"]],
}
KINDS = {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}


def asked(model: str, name: str, array: Any, dtype: str, *, binary: bool, **more: Any) -> InferRequest:
    tensor = InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model, [tensor], **more)


def plain(answer: Any) -> dict[str, Any]:
    return {
        "model": answer.model_name,
        "id": answer.id,
        "outputs": {one.name: one.as_numpy().tolist() for one in answer.outputs},
    }


def echoes(*, binary: bool) -> dict[str, InferRequest]:
    found = {}
    wanted = [RequestedOutput("y", {"binary_data": binary})]
    for dtype, values in SAMPLES.items():
        array = np.array(values, KINDS.get(dtype) or dtype.lower())
        if binary or dtype != "FP16":
            model = f"echo-{dtype.lower()}"
            found[dtype] = asked(model, "x", array, dtype, binary=binary, request_outputs=wanted)
    return found


def texts(values: Any) -> Any:
    return [[cell.decode() if isinstance(cell, bytes) else cell for cell in row] for row in values]


async def over_http() -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20, retries=0))

    async def infer(request: InferRequest, **more: Any) -> Any:
        return await client.infer(URL, request, model_name=request.model_name, **more)

    found: dict[str, Any] = {
        "live": await client.is_server_live(URL),
        "ready": await client.is_server_ready(URL),
        "model ready": await client.is_model_ready(URL, "digits"),
    }
    for binary in (False, True):
        way = "binary" if binary else "json"
        headers: dict[str, str] = {}
        request = asked("digits", "image", IMAGE, "FP32", binary=binary, request_id="mine")
        found[way] = plain(await infer(request, response_headers=headers))
        found[f"{way} served by"] = headers.get("semaforo-model")
        for dtype, echo in echoes(binary=binary).items():
            answer = await infer(echo)
            found[f"{way} {dtype}"] = texts(answer.outputs[0].as_numpy().tolist())
    better = asked("digits", "image", IMAGE, "FP32", binary=True)
    contract = {"semaforo-min-quality": "0.95"}
    found["contract"] = plain(await infer(better, headers=contract))["model"]
    wrong = {
        "unknown model": (asked("digitz", "image", IMAGE, "FP32", binary=False), {}),
        "wrong input": (asked("digits", "picture", IMAGE, "FP32", binary=True), {}),
        "wrong shape": (asked("digits", "image", IMAGE[:, :3], "FP32", binary=False), {}),
        "no such quality": (better, {"semaforo-min-quality": "1"}),
    }
    for name, (request, headers) in wrong.items():
        try:
            found[name] = plain(await infer(request, headers=headers))
        except httpx.HTTPStatusError as error:
            found[name] = [error.response.status_code, error.response.json()["error"]]
    found["many"] = await many(infer)
    await client.close()
    return found


async def over_grpc() -> dict[str, Any]:
    client = InferenceGRPCClient(GRPC, timeout=20, retries=2)
    found: dict[str, Any] = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model ready": await client.is_model_ready("digits"),
    }
    for binary in (False, True):
        way = "binary" if binary else "json"
        request = asked("digits", "image", IMAGE, "FP32", binary=binary, request_id="mine")
        found[way] = plain(await client.infer(request))
        for dtype, echo in echoes(binary=binary).items():
            answer = await client.infer(echo)
            found[f"{way} {dtype}"] = texts(answer.outputs[0].as_numpy().tolist())
    better = asked("digits", "image", IMAGE, "FP32", binary=True)
    contract = (("semaforo-min-quality", "0.95"),)
    found["contract"] = plain(await client.infer(better, headers=contract))["model"]
    wrong = {
        "unknown model": asked("digitz", "image", IMAGE, "FP32", binary=False),
        "wrong input": asked("digits", "picture", IMAGE, "FP32", binary=True),
        "wrong shape": asked("digits", "image", IMAGE[:, :3], "FP32", binary=False),
    }
    for name, request in wrong.items():
        try:
            found[name] = plain(await client.infer(request))
        except grpc.RpcError as error:
            found[name] = [error.code().name, error.details()]
    found["many"] = await many(client.infer)
    await client.close()
    return found


async def many(infer: Any) -> list[int]:
    """Ask 64 at once; each gets its own number back."""
    requests = [asked("echo-int64", "x", np.array([[n]]), "INT64", binary=True) for n in range(64)]
    answers = await asyncio.gather(*(infer(request) for request in requests))
    return [int(answer.outputs[0].as_numpy()[0, 0]) for answer in answers]


async def main() -> None:
    print(json.dumps({"http": await over_http(), "grpc": await over_grpc()}))


asyncio.run(main())
