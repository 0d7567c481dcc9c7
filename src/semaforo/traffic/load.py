"""One run of load: where it goes, what is sent, and when."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from semaforo.errors import InvalidRequest
from semaforo.traffic.arrivals import Moments
from semaforo.wire.v2_client import HEADER_LENGTH

JOINED_BYTES = 16_384

Encoded = tuple[bytes, int | None]
"""A body, and the length of its JSON where blobs follow."""


class Server(msgspec.Struct, frozen=True):
    """Where the load goes.

    Attributes:
        host, port: Its address.
        secure: Whether it speaks TLS.
        path: What comes before every path, without a slash at its end.
    """

    host: str
    port: int
    secure: bool = False
    path: str = ""


class Kind(msgspec.Struct, frozen=True):
    """Requests that are alike but for their data.

    Attributes:
        name: For people.
        path: Path, after the server's own.
        headers: Beside host, length and content type.
        bodies: Sent in turn; each with the length of its JSON where blobs follow (V2's binary tensors).
        chat: ``""``, ``whole`` or ``stream``: how the answer of a chat comes.
        deadline_s: Answers later than this are not in time; None = any is.
    """

    name: str
    path: str
    headers: dict[str, str]
    bodies: tuple[Encoded, ...]
    chat: str = ""
    deadline_s: float | None = None

    def headers_of(self, json_length: int | None) -> dict[str, str]:
        """Return the headers of a body whose JSON has this length before blobs."""
        return self.headers if json_length is None else {**self.headers, HEADER_LENGTH: str(json_length)}


class Load(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        server: Where it goes.
        kinds: What is asked.
        seconds: How long requests are sent.
        moments: Of an open loop: when each request is sent, in order; None = closed loop.
        which: The index of each request's kind, in a closed loop over and over; empty = the first.
        connections: Of a closed loop; the most of an open one.
        most: Requests of a closed loop at most.
        wait_s: Seconds for which answers are waited for after the last request was sent.
        cores: Cores to stay on; empty = any.
    """

    server: Server
    kinds: tuple[Kind, ...]
    seconds: float
    moments: Moments | None = None
    which: tuple[int, ...] = ()
    connections: int = 1024
    most: int = 1_000_000
    wait_s: float = 10.0
    cores: tuple[int, ...] = ()

    def parts(self, count: int) -> list[Load]:
        """Deal the load out to at most so many generators; together they send the very same requests."""
        count = min(count, self.connections)
        share = [len(range(k, self.connections, count)) for k in range(count)]
        return [
            msgspec.structs.replace(
                self,
                moments=None if self.moments is None else self.moments[k::count],
                which=self.which[k::count],
                connections=share[k],
                most=len(range(k, self.most, count)),
            )
            for k in range(count)
        ]


def server_at(url: str) -> Server:
    """Return the server at a url.

    Raises:
        InvalidRequest: It is no http url.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(f"'{url}' is not a url: it is like http://127.0.0.1:8080") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"'{url}' is not a url: it must begin with http:// or https://")
    secure = parts.scheme == "https"
    return Server(parts.hostname, port or (443 if secure else 80), secure, parts.path.rstrip("/"))


def on_the_wire(kind: Kind, server: Server) -> list[tuple[bytes, ...]]:
    """Return each of a kind's requests as the parts that are written."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    found: list[tuple[bytes, ...]] = []
    for body, json_length in kind.bodies:
        headers = {"host": f"{host}:{server.port}", "content-length": str(len(body))}
        headers |= kind.headers_of(json_length)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {server.path}{kind.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        # A large body is not copied behind each head; a small one is cheaper in one piece.
        found.append((head + body,) if len(body) < JOINED_BYTES else (head, body))
    return found
