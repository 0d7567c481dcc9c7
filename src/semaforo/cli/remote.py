"""Talking to a running server where no method of `Client` asks it, with the same errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from semaforo.api.connection import Connection
from semaforo.api.exchange import Ask
from semaforo.errors import ProtocolError
from semaforo.wire.v2_client import reply_error

_TIMEOUT_S = 60.0


@contextmanager
def server(url: str, key: str) -> Iterator[httpx.Client]:
    """Open a client for a server.

    Raises:
        SemaforoError: The server is not there, or what it said.
    """
    connection = Connection(url, key, _TIMEOUT_S)
    timeout = httpx.Timeout(_TIMEOUT_S, connect=5.0)
    with connection.errors(Ask("GET", "")), httpx.Client(**connection.settings(), timeout=timeout) as client:
        yield client


def body_of(response: httpx.Response) -> Any:
    """Return the JSON of a good response.

    Raises:
        SemaforoError: What the server says is wrong.
    """
    where = str(response.url.copy_with(raw_path=b"/")).rstrip("/")
    if not response.is_success:
        raise reply_error(response.status_code, response.headers, response.content, where)
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        raise ProtocolError(f"{response.url} answers no JSON: is this a Semaforo server?") from None
