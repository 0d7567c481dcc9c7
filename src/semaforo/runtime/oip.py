"""The runtime for models behind any server of the Open Inference Protocol V2, over HTTP.

Rules this module keeps:

1. A batch is one request; tensors travel as blobs where the server takes them, as JSON otherwise.
2. What is left of the batch's deadline, its priority and its trace go with it.
3. Cancelling the task closes the connection, which tells the server to stop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from semaforo.entities import DTYPES, Priority, TensorSpec
from semaforo.errors import ModelFailed, Refused, RuntimeLoadError, SemaforoError
from semaforo.runtime.handed import HANDED, NOTHING
from semaforo.runtime.oip_load import About, look_up
from semaforo.runtime.oip_options import Options, parse_options
from semaforo.runtime.oip_watch import Told, Watch
from semaforo.runtime.openai_upstream import JSON, Upstream, whole
from semaforo.wire.payload import Array
from semaforo.wire.v2_client import HEADER_LENGTH, decode_reply, encode_request

_PROBE_S = 5.0
_LEAST_S = 1e-3


class OipModel(Upstream):
    """A model behind a V2 server.

    Attributes:
        signature: As its server describes it.
        max_rows: Most rows of a batch there; 0 = not said.
        profile: First guess of its service time, or None.
        shared: True: others use it too.
    """

    shared = True

    def __init__(self, options: Options, about: About) -> None:
        super().__init__(options.link())
        self.signature = about.signature
        self.max_rows = about.max_rows
        self.profile = about.profile
        self._oip = options
        self._about = about
        self._datatypes = {spec.name: spec.dtype for spec in about.signature.inputs}
        self._wanted: Sequence[str] = ()
        self._watch: Watch | None = None
        self._watching: asyncio.Task[None] | None = None

    def want(self, outputs: Sequence[str]) -> None:
        """Name the outputs that are needed."""
        self._wanted = outputs

    def watch(self, told: Told) -> None:
        """Begin to look at readiness and load, on the loop that runs."""
        if self._oip.poll_s:
            self._watch = Watch(self._get, self._oip.path, self._about.statistics, self._oip.poll_s, told)
            self._watching = asyncio.ensure_future(self._watch.run())

    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Ask for one batch, or for one row where the model knows no rows.

        Raises:
            Refused: The server is over its limit (`retry_after_s` says how long).
            InvalidRequest: The server found fault with the request.
            ModelFailed: The server failed, refused the operator's key, or cannot be reached.
        """
        headers, contract = self._contract()
        body, length = encode_request(
            inputs,
            self._datatypes,
            binary=self._about.binary,
            parameters={**parameters, **contract},
            outputs=self._wanted,
        )
        if length is None:
            headers |= JSON
        else:
            headers |= {HEADER_LENGTH: str(length), "content-type": "application/octet-stream"}
        watch = self._watch
        if watch is not None:
            watch.begin()
        try:
            async with self._response(f"{self._oip.path}/infer", content=body, headers=headers) as response:
                content = await whole(response)
                _, _, outputs = decode_reply(content, response.headers.get(HEADER_LENGTH))
        finally:
            if watch is not None:
                watch.end()
        missing = [name for name in self._wanted if name not in outputs]
        if missing:
            raise ModelFailed(f"{self._options.where} left out the output {', '.join(missing)}")
        for spec in self.signature.outputs:
            if spec.name in outputs:
                outputs[spec.name] = self._as_declared(spec, outputs[spec.name])
        return outputs

    def close(self) -> None:
        """Stop watching, and close the connections."""
        if self._watching is not None and not self._watching.done():
            self._watching.cancel()
        super().close()

    def _as_declared(self, spec: TensorSpec, array: Array) -> Array:
        """Return an output in its declared shape: servers differ in whether one value a row is a column."""
        leading = array.shape[:1] if self.signature.batched else ()
        row = array.shape[len(leading) :]
        if array.dtype == DTYPES[spec.dtype]:
            if spec.accepts(row):
                return array
            if -1 not in spec.shape and math.prod(row) == math.prod(spec.shape):
                return array.reshape((*leading, *spec.shape))
        raise ModelFailed(
            f"{self._options.where} gave '{spec.name}' as {array.dtype}{list(row)}; {spec} is declared"
        )

    def _contract(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return what is handed on with a batch, as headers and as parameters."""
        handed = HANDED.get() or NOTHING
        headers: dict[str, str] = {}
        parameters: dict[str, Any] = {}
        if handed.traceparent:
            headers["traceparent"] = handed.traceparent
        ours = self._about.server == "semaforo"
        if handed.deadline_at is not None:
            left_s = max(_LEAST_S, handed.deadline_at - time.monotonic())
            if ours:
                headers["semaforo-deadline-ms"] = f"{left_s * 1e3:.3f}"
            elif self._about.scheduled:
                parameters["timeout"] = int(left_s * 1e6)
        if handed.priority != Priority.NORMAL:
            if ours:
                headers["semaforo-priority"] = Priority(handed.priority).name.lower()
            elif self._about.scheduled:
                parameters["priority"] = handed.priority + 1
        return headers, parameters

    def _unreached(self, error: httpx.ConnectError) -> SemaforoError:
        # Nothing has been run, so that it may run elsewhere; but only what is watched is given up at last.
        if self._watch is None:
            return super()._unreached(error)
        return Refused(f"{self._options.where} cannot be reached: {error}", retry_after_s=self._oip.poll_s)

    async def _get(self, path: str) -> httpx.Response:
        return await self._connect().get(path, timeout=_PROBE_S)


class OipRuntime:
    """Serves models behind V2 servers."""

    name = "oip"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> OipModel:
        """Ask the server what the model takes and gives.

        Args:
            source: The url, unless ``url`` is among the options.
            options: Fields of `semaforo.runtime.oip_options.Options`.
            device: Of no meaning here.

        Raises:
            RuntimeLoadError: An option is wrong, the server cannot be reached, refuses the key, or has no such
                model ready.
        """
        parsed = parse_options(source, options)
        try:
            return OipModel(parsed, look_up(parsed))
        except OSError as error:
            raise RuntimeLoadError(f"the certificates of this machine cannot be read: {error}") from None
