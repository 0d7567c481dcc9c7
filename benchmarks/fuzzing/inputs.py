"""Inputs for every route that takes a body: valid ones, and what becomes of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import numpy as np

from benchmarks.fuzzing.mutate import DATATYPES, ODD_TEXT, mutated, odd, scrambled, text
from semaforo.wire.inference_messages import message

Headers = dict[str, str]


class Input(msgspec.Struct, frozen=True):
    """One HTTP request."""

    method: str
    path: str
    headers: Headers
    body: bytes

    @property
    def may_be_late(self) -> bool:
        """Whether it may ask for a deadline, or for less than can be had, so that 503 and 504 are right."""
        said = self.body + repr(self.headers).encode()
        return any(word in said for word in (b"timeout", b"deadline", b"unload", b"replicas"))


class Call(msgspec.Struct, frozen=True):
    """One gRPC call."""

    method: str
    body: bytes

    @property
    def may_be_late(self) -> bool:
        """Whether it may ask for a deadline."""
        return b"timeout" in self.body or b"deadline" in self.body


IMAGE = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": [float(n % 17) for n in range(64)]}
TEXT = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["hello", "world"]}
VALID: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v2/models/digits/infer", {"id": "1", "inputs": [IMAGE], "outputs": [{"name": "scores"}]}),
    ("POST", "/v2/models/digits/infer", {"inputs": [IMAGE], "parameters": {"priority": 2}}),
    (
        "POST",
        "/v2/models/digits/infer",
        {"inputs": [IMAGE], "outputs": [{"name": "scores", "parameters": {"classification": 3}}]},
    ),
    ("POST", "/v2/models/text/infer", {"inputs": [TEXT]}),
    ("POST", "/v2/models/digits/generate", {"image": IMAGE["data"]}),
    ("POST", "/v2/models/chat/generate", {"text_input": "hello", "parameters": {"max_tokens": 4}}),
    ("POST", "/v2/models/chat/generate_stream", {"text_input": "hello", "max_tokens": 4}),
    ("POST", "/v2/repository/index", {"ready": True}),
    (
        "POST",
        "/v1/chat/completions",
        {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4},
    ),
    (
        "POST",
        "/v1/chat/completions",
        {"model": "auto", "messages": [{"role": "user", "content": [{"type": "text"}]}], "stream": True},
    ),
    ("POST", "/v1/completions", {"model": "chat", "prompt": "hello", "max_tokens": 4}),
    ("POST", "/v1/embeddings", {"model": "embed", "input": ["a", "b"], "encoding_format": "base64"}),
    ("POST", "/v1/moderations", {"model": "judge", "input": ["hello", "you idiot"]}),
    ("POST", "/semaforo/v1/decide", {"target": "digits", "rows": 2, "contract": {"min_quality": 0.5}}),
)  # fmt: skip
CONTRACT = (
    "semaforo-priority", "semaforo-min-quality", "semaforo-max-cost", "semaforo-privacy", "semaforo-tenant",
    "semaforo-session", "semaforo-idempotency-key", "semaforo-nothing", "traceparent", "content-type", "accept",
    "accept-encoding", "content-encoding", "inference-header-content-length", "authorization",
)  # fmt: skip
FORMS: tuple[tuple[str, dict[bytes, bytes]], ...] = (
    (
        "/v1/audio/transcriptions",
        {b"file": b"RIFF" + bytes(60), b"model": b"hear", b"response_format": b"text"},
    ),
    (
        "/v1/files",
        {b"purpose": b"batch", b"file": b'{"custom_id": "1", "url": "/v1/embeddings"}'},
    ),
)
_PRINTABLE = [word for word in ODD_TEXT if word.isprintable() and word.isascii()]


def http(draw: Random) -> Iterator[Input]:
    """Yield requests without end."""
    while True:
        kind = draw.random()
        if kind < 0.6:
            yield _of_json(draw)
        elif kind < 0.9:
            yield _of_binary(draw)
        elif kind < 0.93:
            yield _of_forms(draw)
        elif kind < 0.96:
            yield Input("POST", draw.choice(VALID)[1], _headers(draw), draw.randbytes(draw.randrange(200)))
        else:
            yield _of_paths(draw)


def _of_json(draw: Random) -> Input:
    method, path, value = draw.choice(VALID)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        value = mutated(value, draw)
    body = text(value)
    if draw.random() < 0.3:
        body = scrambled(body, draw)
    return Input(method, path, _headers(draw), body)


def _of_binary(draw: Random) -> Input:
    """Tensors behind a JSON head, any part of which may be wrong: lengths, shapes, types, blobs."""
    if draw.random() < 0.5:
        path, name, shape, kind = "/v2/models/digits/infer", "image", [2, 64], "FP32"
        blob = np.arange(128, dtype=np.float32).tobytes()
    else:
        path, name, shape, kind = "/v2/models/text/infer", "text", [2], "BYTES"
        blob = b"".join(struct.pack("<I", len(word)) + word for word in (b"hello", b"world"))
    tensor: dict[str, Any] = {
        "name": name, "shape": shape, "datatype": kind, "parameters": {"binary_data_size": len(blob)},
    }  # fmt: skip
    wrong = draw.randrange(8)
    if wrong == 0:
        tensor["parameters"]["binary_data_size"] = odd(draw)
    elif wrong == 1:
        tensor["shape"] = [draw.choice((0, 1, 3, 2**31, 2**40, 2**62)) for _ in range(draw.randrange(4))]
    elif wrong == 2:
        tensor["datatype"] = draw.choice(DATATYPES)
    elif wrong == 3:
        blob = scrambled(blob, draw)
    elif wrong == 4:
        tensor = mutated(tensor, draw)
    value: Any = {"inputs": [tensor], "outputs": [{"name": "scores", "parameters": {"binary_data": True}}]}
    if path.endswith("text/infer"):
        del value["outputs"]
    if wrong == 5:
        value = mutated(value, draw)
    head = text(value)
    length = str(len(head))
    if wrong == 6:
        length = draw.choice(
            ("0", "-1", "1", str(len(head) - 1), str(len(head) + 1), str(2**63), "x", "", "1e3")
        )
    elif wrong == 7:
        head = scrambled(head, draw)
    return Input("POST", path, {**_headers(draw), "inference-header-content-length": length}, head + blob)


def _of_forms(draw: Random) -> Input:
    """Forms with a file, a batch that names no file, a request for later."""
    kind = draw.randrange(4)
    if kind == 0:
        value = {"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h"}
        return Input("POST", "/v1/batches", _headers(draw), text(mutated(value, draw)))
    if kind == 1:
        _, path, value = draw.choice(VALID[:5])
        headers = {**_headers(draw), "semaforo-mode": draw.choice(("queue", "queue", "now"))}
        return Input("POST", path, headers, text(mutated(value, draw)))
    path, fields = draw.choice(FORMS)
    body = b"".join(
        b'--edge\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name, b'; filename="a.wav"' if name == b"file" else b"", value)
        for name, value in fields.items()
    )
    body += b"--edge--\r\n"
    if draw.random() < 0.8:
        body = scrambled(body, draw)
    kinds = (
        "multipart/form-data; boundary=edge",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "x",
    )
    return Input(
        "POST", path, {"content-type": kinds[0] if draw.random() < 0.9 else draw.choice(kinds)}, body
    )


def _of_paths(draw: Random) -> Input:
    names = ("digits", "nothing", "chat", "%2F", "a%00b", "%ff%fe", "..", "x" * 300, "é".encode().hex())
    name, version = draw.choice(names), draw.choice(("1", "v2", "-1", "99999999999999999999", "%20"))
    paths = (
        f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}", f"/v2/models/{name}/ready",
        f"/v2/models/{name}/stats", f"/v2/models/{name}/config", f"/v1/models/{name}", "/v2/models",
        f"/semaforo/v1/decisions/{name}", f"/semaforo/v1/decisions?limit={draw.choice(_PRINTABLE[2:8])[:20]}",
        f"/semaforo/v1/deferred/{name}", "/v1/files", "/metrics", f"/{name}", "/", "//", "/v2//models",
    )  # fmt: skip
    method = draw.choice(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"))
    path = draw.choice(paths).replace(" ", "%20")
    return Input(method, path, _headers(draw), b"" if method != "POST" else draw.choice((b"", b"{}", b"[]")))


def _headers(draw: Random) -> Headers:
    if draw.random() < 0.8:
        return {}
    name = draw.choice(CONTRACT)
    if name == "content-encoding":
        return {name: draw.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", ""))}
    if name == "accept-encoding":
        return {name: draw.choice(("gzip", "deflate;q=0.5", "*", "gzip;q=x", "br"))}
    return {name: draw.choice((*_PRINTABLE, "0", "0.5", "high", "site", "1", "5"))[:200]}


def grpc(draw: Random) -> Iterator[Call]:
    """Yield gRPC calls without end; bodies are protocol buffers in which something is wrong."""
    request = message("ModelInferRequest")
    methods = (
        "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex",
        "ServerLive",
    )  # fmt: skip
    while True:
        if draw.random() < 0.15:
            name = message(f"{draw.choice(('ModelReady', 'ModelMetadata', 'ModelConfig'))}Request")
            body = name(name=draw.choice(("digits", "", "x" * 100)), version=draw.choice(("", "1", "-1")))
            yield Call(draw.choice(methods), scrambled(body.SerializeToString(), draw))
            continue
        made = request(model_name=draw.choice(("digits", "digits", "text", "chat", "", "nothing")), id="1")
        tensor = made.inputs.add()
        bytes_wanted = made.model_name == "text"
        tensor.name = "text" if bytes_wanted else "image"
        tensor.datatype = (
            draw.choice(DATATYPES) if draw.random() < 0.2 else "BYTES" if bytes_wanted else "FP32"
        )
        shape = [2] if bytes_wanted else [1, 64]
        if draw.random() < 0.3:
            shape = [draw.choice((-1, 0, 1, 64, 2**31, 2**62)) for _ in range(draw.randrange(4))]
        tensor.shape.extend(shape)
        if draw.random() < 0.5:
            blob = b"\x05\x00\x00\x00hello\x00\x00\x00\x00" if bytes_wanted else bytes(256)
            made.raw_input_contents.append(scrambled(blob, draw) if draw.random() < 0.4 else blob)
        elif bytes_wanted:
            tensor.contents.bytes_contents.extend([b"hello", b"\xff\xfe"])
        else:
            field = draw.choice(("fp32_contents", "fp32_contents", "fp64_contents", "int_contents"))
            getattr(tensor.contents, field).extend([1] * draw.choice((64, 63, 0)))
        if draw.random() < 0.2:
            made.parameters["priority"].int64_param = draw.choice((0, 1, 4, 5, -1, 2**62))
        body = made.SerializeToString()
        yield Call("ModelInfer", scrambled(body, draw) if draw.random() < 0.5 else body)
