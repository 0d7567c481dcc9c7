"""Settings of the fronts."""

from __future__ import annotations

from typing import Literal

import msgspec

from semaforo.server.deferred.settings import DeferredSettings
from semaforo.server.identity import Role

GrpcTransport = Literal["auto", "native", "grpcio"]


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an API key stands for.

    Attributes:
        tenant: Tenant whose share its requests use.
        roles: What it may do.
        may_set_tenant: Whether it may speak for other tenants by the tenant header or parameter.
    """

    tenant: str = ""
    roles: tuple[Role, ...] = ("infer",)
    may_set_tenant: bool = False


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, who may ask, and how much of it.

    Attributes:
        host, port: Address; port 0 takes a free one.
        grpc_port: Port for gRPC at the same host, 0 takes a free one; None = no gRPC.
        grpc_transport: What carries gRPC: "native" or "grpcio"; "auto" = native where it is installed.
        keys: API key, or ``sha256:`` and the hex digest of one → what it stands for. Without any, everybody
            is anonymous and may do everything, which is allowed on a loopback address only unless
            `allow_anonymous` is set.
        allow_anonymous: Serve without keys on any address.
        max_body_bytes: Bytes of a body, as sent and when decompressed.
        max_header_bytes: Bytes of the request line and all headers together.
        max_headers: Number of headers.
        header_timeout_s: Seconds from the connection, or from a request's first byte, to its last header.
        body_timeout_s: Seconds from the headers to the last byte of the body.
        keep_alive_s: Seconds an idle connection is kept.
        max_connections: Connections at once.
        max_in_flight: Requests at once, waiting ones included.
        idempotency_entries: Answers kept for ``semaforo-idempotency-key``, over all tenants.
        idempotency_ttl_s: Seconds an answer is kept for.
        grace_s: Seconds that requests in flight are given when the server stops.
        deferred: Where work is kept that is answered later; None = nowhere.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    grpc_transport: GrpcTransport = "auto"
    keys: dict[str, KeySettings] = {}
    allow_anonymous: bool = False
    max_body_bytes: int = 64_000_000
    max_header_bytes: int = 32_768
    max_headers: int = 100
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    max_connections: int = 4096
    max_in_flight: int = 4096
    idempotency_entries: int = 4096
    idempotency_ttl_s: float = 600.0
    grace_s: float = 10.0
    deferred: DeferredSettings | None = None
