"""``semaforo explain``."""

from __future__ import annotations

import typer

from semaforo.api import Client


def run(request: str, url: str, key: str) -> None:
    """Print the explanation of a request, or of the latest one.

    Raises:
        SemaforoError: The server is not there, or keeps no such request.
    """
    with Client(url, key=key) as client:
        typer.echo(client.explain(request or client.latest()))
