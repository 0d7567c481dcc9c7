"""What several commands leave behind: JSON on stdout, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import typer

from semaforo.errors import InvalidRequest


def show_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def write_file(path: Path, data: bytes, *, folders: bool = False) -> None:
    """Write a file, and the folders above it where `folders`.

    Raises:
        InvalidRequest: It cannot be written.
    """
    try:
        if folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from None
