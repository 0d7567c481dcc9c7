"""Talking to a running server, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from semaforo.errors import NotReady, SemaforoError, error_from

_CODES = {400: "invalid_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 422: "unsatisfiable",
          503: "refused", 504: "expired"}  # fmt: skip


@contextmanager
def server(url: str, key: str) -> Iterator[httpx.Client]:
    """Open a client for a server.

    Raises:
        SemaforoError: The server is not there, or what it said.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(60, connect=5)) as client:
            yield client
    except httpx.ConnectError:
        raise NotReady(
            f"nothing answers at {url}: start a server by `semaforo serve`, or give --url"
        ) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise SemaforoError(f"'{url}' is not a url: it must begin with http:// or https://") from None
    except httpx.HTTPError as error:
        raise NotReady(f"{url} broke off: {error or type(error).__name__}") from None


def body_of(response: httpx.Response) -> Any:
    """Return the JSON of a good response.

    Raises:
        SemaforoError: What the server says is wrong.
    """
    try:
        body = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        body = None
    if response.is_success and body is not None:
        return body
    said = body.get("error") if isinstance(body, dict) else None
    message = said.get("message") if isinstance(said, dict) else said
    raise error_from(
        _CODES.get(response.status_code, "internal"),
        f"{response.status_code}: {message or f'{response.url} answers no JSON: is this a Semaforo server?'}",
    )
