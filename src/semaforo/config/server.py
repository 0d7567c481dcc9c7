"""Settings of the front: where it listens, who may ask, and how much it takes.

Plain values that the fleet file fills in; `semaforo.build` hands them to the front.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from semaforo.config import forms
from semaforo.config.forms import Key, word, words


class KeySettings(msgspec.Struct, frozen=True, kw_only=True):
    """One API key."""

    key: Annotated[str, Key("The key, best from the environment; or `sha256:` and its digest.", forms.SECRET)]
    tenant: Annotated[str, Key("Tenant whose share its requests use.")] = ""
    roles: Annotated[tuple[str, ...], Key(
        "`infer` runs models, `read` sees decisions and figures, `operate` scales and loads, `admin` all.",
        words("infer", "read", "operate", "admin"),
    )] = ("infer",)  # fmt: skip
    may_set_tenant: Annotated[bool, Key("Whether it may speak for other tenants.")] = False


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may cost the front before it is refused."""

    body: Annotated[int, Key("Largest body, as sent and when decompressed.", forms.SIZE)] = 64_000_000
    headers: Annotated[int, Key("Request line and headers together.", forms.SIZE)] = 32_768
    header_time: Annotated[float, Key("Longest wait for the last header.", forms.DURATION)] = 10.0
    body_time: Annotated[float, Key("Longest wait for the last byte of a body.", forms.DURATION)] = 60.0
    keep_alive: Annotated[float, Key("How long an idle connection is kept.", forms.DURATION)] = 75.0
    connections: Annotated[int, Key("Connections at once.", forms.COUNT)] = 4096
    in_flight: Annotated[int, Key("Requests at once, waiting ones included.", forms.COUNT)] = 4096


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the front listens and whom it serves."""

    host: Annotated[str, Key("Address to bind.")] = "127.0.0.1"
    http_port: Annotated[int, Key("Port for HTTP; 0 takes a free one.", forms.PORT)] = 8080
    grpc_port: Annotated[int | None, Key(
        "Port for gRPC, which needs `semaforo[grpc]`; 0 takes a free one. Left out = no gRPC.", forms.PORT,
    )] = None  # fmt: skip
    grpc_transport: Annotated[str, Key(
        "What carries gRPC: `native` is much faster; `grpcio` takes `deflate` too, refuses messages that are too "
        "long before they are there, and ends idle connections. `auto` = native where it is installed.",
        word("auto", "native", "grpcio"),
    )] = "auto"  # fmt: skip
    keys: Annotated[tuple[KeySettings, ...], Key(
        "API keys. Without any, everybody may do everything, on a loopback address only.",
    )] = ()  # fmt: skip
    allow_anonymous: Annotated[bool, Key("Serve without keys on any address.")] = False
    limits: Annotated[LimitSettings, Key("Limits on bodies, headers and time.")] = LimitSettings()
    grace: Annotated[float, Key("How long a stop waits for work in flight.", forms.DURATION)] = 10.0
