"""``semaforo feedback``."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from semaforo.api import Client


def run(request: str, score: float | None, label: str, better_than: str, url: str, key: str) -> None:
    """Give feedback on an answer.

    Raises:
        SemaforoError: The server is not there, or does not take it.
    """
    right: Any = None
    if label:
        try:
            right = msgspec.json.decode(label)
        except msgspec.DecodeError:
            right = label
    with Client(url, key=key) as client:
        client.feedback(request, score=score, label=right, better_than=better_than)
    typer.echo("learned")
