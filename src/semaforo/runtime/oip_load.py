"""What a V2 server says of itself and of a model, before the first batch is sent to it.

Rules this module keeps:

1. The first dimension counts rows where the options say so, or the model's configuration, or, without one, where
   it is -1 in every tensor.
2. Nothing is run: the first guess of the service time is what the server's statistics say, and the way there.
"""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec

from semaforo.entities import DTYPES, BatchProfile, Signature, TensorSpec
from semaforo.errors import ProtocolError, RuntimeLoadError
from semaforo.runtime.oip_options import Options, specs_of
from semaforo.wire.v2_client import Metadata, parse_metadata, parse_server, reply_error

_JSON_ONLY = ("FP16", "BF16")


class About(msgspec.Struct, frozen=True):
    """A model as its server describes it.

    Attributes:
        signature: Names, datatypes and shapes of one row.
        server: Name of the server, for example ``triton``.
        binary: Whether tensors travel as blobs.
        scheduled: Whether the server takes `priority` and `timeout` as parameters.
        statistics: Whether it tells its load.
        max_rows: Most rows of a batch; 0 = not said.
        profile: First guess of its service time, or None.
    """

    signature: Signature
    server: str
    binary: bool
    scheduled: bool
    statistics: bool
    max_rows: int = 0
    profile: BatchProfile | None = None


def look_up(options: Options) -> About:
    """Ask a server about a model.

    Raises:
        RuntimeLoadError: It cannot be reached, refuses the key, does not have the model, or is no V2 server.
    """
    timeout = httpx.Timeout(max(options.connect_timeout_s, 5.0), connect=options.connect_timeout_s)
    headers = options.link().request_headers()
    try:
        with httpx.Client(base_url=options.url, headers=headers, timeout=timeout) as http:
            return _look_up(_Server(http, options), options)
    except httpx.HTTPError as error:
        detail = str(error) or type(error).__name__
        raise RuntimeLoadError(
            f"the server {options.url} cannot be reached ({detail}): is it running?"
        ) from None


class _Server:
    def __init__(self, http: httpx.Client, options: Options) -> None:
        self._http = http
        self._options = options
        self.round_trip_s = 0.0

    def get(self, path: str) -> bytes:
        response = self._timed(path)
        if response.status_code != 200:
            raise self._refused(path, response)
        return response.content

    def maybe(self, path: str) -> Any:
        """Return the JSON at a path; None where the server has none, or keeps it to others."""
        response = self._timed(path)
        if response.status_code != 200:
            return None
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            return None

    def _timed(self, path: str) -> httpx.Response:
        begun = time.perf_counter()
        response = self._http.get(path)
        # The last one counts: the first has the connection's making in it.
        self.round_trip_s = time.perf_counter() - begun
        return response

    def _refused(self, path: str, response: httpx.Response) -> RuntimeLoadError:
        where = f"the server {self._options.url}"
        if response.status_code in (401, 403):
            return RuntimeLoadError(
                f"{where} refused the key ({response.status_code}): set 'key' to a valid one"
            )
        said = reply_error(response.status_code, response.headers, response.content, where).message
        said = self._options.link().without_key(said)
        return RuntimeLoadError(f"{where} answered {response.status_code} at /{path}: {said}")


def _look_up(server: _Server, options: Options) -> About:
    try:
        name, extensions = parse_server(server.get("v2"))
        metadata = parse_metadata(server.get(options.path))
    except ProtocolError as error:
        raise RuntimeLoadError(f"{options.url} is not a V2 server: {error.message}") from None
    ready = server.get(f"{options.path}/ready")
    del ready  # what is not ready has been refused
    config = server.maybe(f"{options.path}/config") if "model_configuration" in extensions else None
    most = config.get("max_batch_size") if isinstance(config, dict) else None
    most = most if isinstance(most, int) and not isinstance(most, bool) else None
    binary = "binary_tensor_data" in extensions if options.binary is None else options.binary
    signature = _signature(metadata, options, most)
    if not binary:
        _check_json(signature)
    statistics = "statistics" in extensions
    seen = server.maybe(f"{options.path}/stats") if statistics else None
    return About(
        signature,
        name,
        binary,
        "schedule_policy" in extensions,
        statistics,
        most or 0,
        _first_guess(seen, server.round_trip_s),
    )


def _signature(metadata: Metadata, options: Options, most: int | None) -> Signature:
    inputs, outputs = metadata.inputs, metadata.outputs
    if options.inputs:
        inputs = _declared("inputs", options)
    if options.outputs:
        outputs = _declared("outputs", options)
    if not inputs:
        raise RuntimeLoadError(
            f"options.inputs: the server does not say what '{options.model}' takes: declare it, as "
            "{x: 'fp32[64]'}"
        )
    for spec in (*inputs, *outputs):
        if spec.dtype not in DTYPES:
            raise RuntimeLoadError(
                f"'{options.model}' has the tensor '{spec.name}' of unknown type {spec.dtype}"
            )
    batched = options.batched
    if batched is None:
        batched = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs)) if most is None else most > 0
    if batched:
        scalar = next((spec.name for spec in (*inputs, *outputs) if not spec.shape), "")
        if scalar:
            raise RuntimeLoadError(
                f"options.batched: '{scalar}' has no dimension that could count rows; set it to false"
            )
        inputs, outputs = _rows(inputs), _rows(outputs)
    return Signature(inputs, outputs, batched=batched)


def _declared(side: str, options: Options) -> tuple[TensorSpec, ...]:
    specs = specs_of(side, getattr(options, side))
    if options.batched is False:
        return specs
    return tuple(msgspec.structs.replace(spec, shape=(-1, *spec.shape)) for spec in specs)


def _rows(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(msgspec.structs.replace(spec, shape=spec.shape[1:]) for spec in specs)


def _check_json(signature: Signature) -> None:
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype in _JSON_ONLY:
            raise RuntimeLoadError(
                f"tensor '{spec.name}' is {spec.dtype}, which travels only as binary, and the server takes JSON"
            )


def _first_guess(statistics: Any, round_trip_s: float) -> BatchProfile | None:
    count, nanoseconds = totals(statistics, "success")
    return BatchProfile(round_trip_s + nanoseconds * 1e-9 / count, 0.0) if count else None


def totals(statistics: Any, kind: str) -> tuple[int, int]:
    """Return count and nanoseconds of one kind of time over all models of a statistics reply; 0 where not told."""
    count = nanoseconds = 0
    models = statistics.get("model_stats") if isinstance(statistics, dict) else None
    for model in models if isinstance(models, list) else ():
        kinds = model.get("inference_stats") if isinstance(model, dict) else None
        entry = kinds.get(kind) if isinstance(kinds, dict) else None
        if isinstance(entry, dict):
            # Servers that map their statistics from protobuf write 64-bit integers as texts.
            with_count, with_ns = str(entry.get("count", 0)), str(entry.get("ns", 0))
            if with_count.isdigit() and with_ns.isdigit():
                count, nanoseconds = count + int(with_count), nanoseconds + int(with_ns)
    return count, nanoseconds
