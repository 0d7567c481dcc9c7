"""A small V2 server that speaks JSON only, made of the standard library; a second opinion on the protocol.

Its models: ``scale`` gives ``y = 2 · x`` of ``fp32[3]``, with a column where one value a row would do as well
(``total``); ``vector`` is the same without rows; ``loud`` gives texts in capitals.
Each of `V2Server.faults` is spent on one inference.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SCALE = {
    "name": "scale",
    "platform": "plain",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "total", "datatype": "FP32", "shape": [-1]},
    ],
}
LOUD = {
    "name": "loud",
    "platform": "plain",
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": "loud", "datatype": "BYTES", "shape": [-1]}],
}
VECTOR = {
    "name": "vector",
    "platform": "plain",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [3]}],
}
MUTE = {"name": "mute", "platform": "", "inputs": [], "outputs": []}


class V2Server:
    """The server.

    Attributes:
        faults: (status, headers, body) for each of the next inferences; a status of 0 drops the connection.
        seen: Headers and bodies of the inferences so far.
        ready: Whether it says that its models are ready.
        queued: Statistics of waiting: count and nanoseconds.
        gate: Inferences wait while it is not set.
        running: Released once for each inference that has come in.
    """

    def __init__(self, extensions: tuple[str, ...] = ()) -> None:
        self.extensions = list(extensions)
        self.faults: deque[tuple[int, dict[str, str], Any]] = deque()
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.ready = True
        self.queued = (0, 0)
        self.looks = 0
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Semaphore(0)
        self._models = {about["name"]: about for about in (SCALE, LOUD, VECTOR, MUTE)}

    def __enter__(self) -> V2Server:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._get(self)

            def do_POST(self) -> None:
                outer._post(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        parts = request.path.strip("/").split("/")
        if parts == ["v2"]:
            about = {"name": "plain", "version": "1", "extensions": self.extensions}
            return _answer(request, 200, about)
        model = self._models.get(parts[2]) if parts[:2] == ["v2", "models"] and len(parts) > 2 else None
        if model is None:
            return _answer(request, 404, {"error": f"no model {parts[-1]}"})
        if parts[-1] == "ready":
            self.looks += 1
            return _answer(request, 200 if self.ready else 503, {})
        if parts[-1] == "stats":
            count, nanoseconds = self.queued
            stats = {"queue": {"count": count, "ns": nanoseconds}, "success": {"count": 4, "ns": 40_000_000}}
            return _answer(request, 200, {"model_stats": [{"name": parts[2], "inference_stats": stats}]})
        return _answer(request, 200, model)

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        self.seen.append(({name.lower(): value for name, value in request.headers.items()}, body))
        self.running.release()
        self.gate.wait(20)
        if self.faults:
            status, headers, said = self.faults.popleft()
            if not status:
                request.close_connection = True
                return None
            return _answer(request, status, said, headers)
        name = request.path.split("/")[3]
        answer = {"scale": _scaled, "loud": _louder, "vector": _doubled}[name]
        outputs = answer(body["inputs"][0])
        wanted = [wish["name"] for wish in body.get("outputs", ())]
        outputs = [output for output in outputs if not wanted or output["name"] in wanted]
        return _answer(request, 200, {"model_name": name, "outputs": outputs})


def _doubled(tensor: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**tensor, "name": "y", "data": [2 * value for value in tensor["data"]]}]


def _scaled(tensor: dict[str, Any]) -> list[dict[str, Any]]:
    rows = tensor["shape"][0]
    total = [sum(tensor["data"][3 * row : 3 * row + 3]) for row in range(rows)]
    return [
        *_doubled(tensor),
        {"name": "total", "datatype": "FP32", "shape": [rows, 1], "data": total},
    ]


def _louder(tensor: dict[str, Any]) -> list[dict[str, Any]]:
    data = [word.upper() for word in tensor["data"]]
    return [{"name": "loud", "datatype": "BYTES", "shape": [len(data)], "data": data}]


def _answer(
    request: BaseHTTPRequestHandler, status: int, value: Any, headers: dict[str, str] | None = None
) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    request.send_response(status)
    for name, text in {"content-type": "application/json", **(headers or {})}.items():
        request.send_header(name, text)
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
