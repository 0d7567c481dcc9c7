"""Settings of the front, as a fleet file and the command line give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from semaforo.build.catalog import Blueprint
from semaforo.config import FleetFile

if TYPE_CHECKING:
    from semaforo.server.deferred.settings import DeferredSettings
    from semaforo.server.settings import ServerSettings


def server_settings(
    plan: Blueprint,
    *,
    host: str | None = None,
    http_port: int | None = None,
    grpc_port: int | None = None,
) -> ServerSettings:
    """Return the front's settings as the file gives them, with what the command line overrides."""
    from semaforo.server.settings import GrpcTransport, KeySettings, ServerSettings

    front = plan.file.settings.server
    limits = front.limits
    keys = {
        key.key: msgspec.convert(
            {"tenant": key.tenant, "roles": key.roles, "may_set_tenant": key.may_set_tenant}, KeySettings
        )
        for key in front.keys
    }
    return ServerSettings(
        host=front.host if host is None else host,
        port=front.http_port if http_port is None else http_port,
        grpc_port=front.grpc_port if grpc_port is None else grpc_port,
        grpc_transport=msgspec.convert(front.grpc_transport, GrpcTransport),
        keys=keys,
        allow_anonymous=front.allow_anonymous,
        max_body_bytes=limits.body,
        max_header_bytes=limits.headers,
        header_timeout_s=limits.header_time,
        body_timeout_s=limits.body_time,
        keep_alive_s=limits.keep_alive,
        max_connections=limits.connections,
        max_in_flight=limits.in_flight,
        grace_s=front.grace,
        deferred=_deferred(plan.file),
    )


def _deferred(file: FleetFile) -> DeferredSettings | None:
    from semaforo.server.deferred.settings import DeferredSettings

    stated = file.settings.deferred
    if stated is None:
        return None
    return DeferredSettings(
        path=file.folder / stated.path,
        keep_s=stated.keep,
        max_items=stated.max,
        max_bytes=stated.bytes,
        in_flight=stated.in_flight,
        webhooks=stated.webhooks,
        secret=stated.secret,
    )
