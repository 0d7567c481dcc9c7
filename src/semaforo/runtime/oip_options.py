"""Options of a model behind a server of the Open Inference Protocol V2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from semaforo.entities import DTYPES, TensorSpec
from semaforo.errors import RuntimeLoadError, nearest
from semaforo.runtime import openai_options
from semaforo.runtime.options import read_options

_TYPE = re.compile(r"\s*(\w+)\s*(?:\[([^\]]*)\])?\s*")
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a model behind a V2 server.

    Attributes:
        url: Address of the server, for example ``http://127.0.0.1:8000``.
        model: Its name there.
        version: Its version there; "" = the one that the server picks.
        protocol: How it is spoken to.
        key: Sent as ``Authorization: Bearer``; "" = none.
        headers: Further headers.
        timeout_s: Most seconds without a byte from the server.
        connect_timeout_s: Most seconds to connect.
        concurrency: Batches that are sent at once.
        batched: Whether the first dimension counts rows; None = as the server's configuration or shapes say.
        binary: Whether tensors travel as blobs; None = where the server says that it takes them.
        inputs, outputs: Name → type and shape of one row, as ``fp32[64]``, for a server that does not say.
        poll_s: Seconds between two looks at readiness and load while the model is in use; 0 = never.
    """

    url: str
    model: str
    version: str = ""
    protocol: Literal["http"] = "http"
    key: str = ""
    headers: dict[str, str] = {}
    timeout_s: _Seconds = 60.0
    connect_timeout_s: _Seconds = 5.0
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 8
    batched: bool | None = None
    binary: bool | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    poll_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0

    def __repr__(self) -> str:
        return f"Options(url={self.url!r}, model={self.model!r}, key={'set' if self.key else 'none'})"

    @property
    def path(self) -> str:
        """Path of the model, below the server's address."""
        path = f"v2/models/{quote(self.model, safe='')}"
        return f"{path}/versions/{quote(self.version, safe='')}" if self.version else path

    def link(self) -> openai_options.Options:
        """Return what all links to models behind urls share."""
        shared = {
            name: getattr(self, name)
            for name in ("model", "key", "headers", "timeout_s", "connect_timeout_s")
        }
        return openai_options.Options(url=self.url, slots=self.concurrency, **shared)


def parse_options(source: str, options: Mapping[str, Any]) -> Options:
    """Check the options of a model; `source` is the url where they name none.

    Raises:
        RuntimeLoadError: Which option is wrong, and how.
    """
    given = {"url": source, **options}
    if not isinstance(given.get("version", ""), str):
        given["version"] = str(given["version"])
    # Before the general check, which shows the value that has the wrong type.
    if not isinstance(given.get("key", ""), str):
        raise RuntimeLoadError("options.key: must be a text; write it in quotes")
    parsed = read_options("oip", given, Options)
    if not parsed.model:
        raise RuntimeLoadError("options.model: give the name of the model at the server")
    openai_options.check_address(parsed.url, parsed.key, parsed.headers)
    for side in ("inputs", "outputs"):
        specs_of(side, getattr(parsed, side))
    # The address of the protocol and that of the server are easily taken for each other.
    return msgspec.structs.replace(parsed, url=parsed.url.rstrip("/").removesuffix("/v2"))


def specs_of(side: str, declared: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """Return declared tensors.

    Raises:
        RuntimeLoadError: One is no type and shape.
    """
    specs = []
    for name, text in declared.items():
        match = _TYPE.fullmatch(text)
        datatype = match[1].upper() if match else ""
        dims = [d.strip() for d in match[2].split(",")] if match and match[2] else []
        if datatype not in DTYPES or not all(d == "?" or d.isdigit() for d in dims):
            raise RuntimeLoadError(
                f"options.{side}.{name}: '{text}' is no type and shape of one row, as fp32[64] or bytes."
                f"{nearest(datatype, DTYPES)}"
            )
        specs.append(TensorSpec(name, datatype, tuple(-1 if d == "?" else int(d) for d in dims)))
    return tuple(specs)
