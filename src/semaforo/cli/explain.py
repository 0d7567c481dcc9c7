"""``semaforo explain``."""

from __future__ import annotations

from urllib.parse import quote

import typer

from semaforo.cli.remote import body_of, server
from semaforo.errors import NotFound


def run(request: str, url: str, key: str) -> None:
    """Print the explanation of a request, or of the latest one.

    Raises:
        SemaforoError: The server is not there, or keeps no such request.
    """
    with server(url, key) as client:
        if not request:
            latest = body_of(client.get("/semaforo/v1/decisions", params={"limit": 1}))["decisions"]
            if not latest:
                raise NotFound("the server has decided nothing yet")
            request = latest[0]["id"]
        typer.echo(body_of(client.get(f"/semaforo/v1/decisions/{quote(request, safe='')}"))["text"])
