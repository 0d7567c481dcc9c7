"""What carries gRPC: `native`, whose HTTP/2 runs in threads outside the interpreter, or `grpcio`.

Both take the same handlers; `docs/decisions/0009` has what was measured. Where they differ:

|                                     | native                       | grpcio                   |
|-------------------------------------|------------------------------|--------------------------|
| calls that arrive together          | are handed over together     | come one by one          |
| ``ModelStreamInfer``                | goes through a grpcio server | is served                |
| requests compressed with            | gzip                         | gzip, deflate            |
| a message that is too long          | is refused once it is there  | is refused by its length |
| connections without calls           | are kept                     | end after `keep_alive_s` |
| ``grpc-retry-pushback-ms``          | cannot be sent               | is sent                  |
| stopping                            | cuts off what is not written | waits until it is        |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import grpc
import msgspec

from semaforo.errors import ConfigError

if TYPE_CHECKING:
    from semaforo.server.settings import ServerSettings

_PING_S = 30.0
_LEAST_PING_S = 5.0


class Transport(msgspec.Struct, frozen=True):
    """A way to carry gRPC.

    Attributes:
        name: Its name.
        server: Returns a server of it, not started; takes `options`.
        together: Whether calls that arrive together are handed over in one round of the loop.
        pushback: Whether ``grpc-`` metadata may be sent.
        closes_idle: Whether it can end connections without calls.
        flushes: Whether its server writes all answers before it has stopped.
    """

    name: Literal["native", "grpcio"]
    server: Any
    together: bool
    pushback: bool
    closes_idle: bool
    flushes: bool


def transport(name: str) -> Transport:
    """Return the transport of a name; "auto" takes the native one where it is installed.

    Raises:
        ConfigError: It is not installed.
    """
    if name != "grpcio":
        try:
            from pygrpc_native.aio import server
        except ImportError:
            if name == "native":
                raise ConfigError(
                    "server.grpc_transport is native, which needs pygrpc-native: pip install pygrpc-native, "
                    "or leave grpc_transport out"
                ) from None
        else:
            return Transport(
                "native", server, together=True, pushback=False, closes_idle=False, flushes=False
            )
    return Transport("grpcio", grpc.aio.server, together=False, pushback=True, closes_idle=True, flushes=True)


def options(settings: ServerSettings, carrier: Transport) -> list[tuple[str, int]]:
    """Return the limits of a front as the options of its transport's server."""

    def milliseconds(seconds: float) -> int:
        return max(1, int(seconds * 1e3))

    found = [
        # A port that is taken is an error, not shared.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_concurrent_streams", settings.max_connections),
        # A client whose machine is gone is noticed, and its work stopped.
        ("grpc.keepalive_time_ms", milliseconds(_PING_S)),
        ("grpc.keepalive_timeout_ms", milliseconds(_PING_S)),
        ("grpc.http2.min_ping_interval_without_data_ms", milliseconds(_LEAST_PING_S)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if carrier.closes_idle:
        found.append(("grpc.max_connection_idle_ms", milliseconds(settings.keep_alive_s)))
    return found
