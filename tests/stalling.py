"""A small V2 server whose only fault is known: after so many requests it does nothing at all for a while."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import uvicorn


class Stalling:
    """Answers each request at once but for one, which holds up the whole server.

    Attributes:
        url: Where it is served.
        served: Requests answered so far.
    """

    def __init__(self, after: int, seconds: float) -> None:
        self._after, self._seconds = after, seconds
        self.served = 0
        self.headers: list[dict[str, str]] = []

    def __enter__(self) -> Stalling:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self, lifespan="off", log_config=None, log_level="critical", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["method"] == "GET":
            tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
            body: Any = {"name": "m", "platform": "test", "inputs": [tensor], "outputs": []}
        else:
            self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
            self.served += 1
            if self.served == self._after:
                time.sleep(self._seconds)
            body = {"model_name": "m", "outputs": []}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
