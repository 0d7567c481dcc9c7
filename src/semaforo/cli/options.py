"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FleetPath = Annotated[Path, typer.Argument(metavar="FLEET", help="The fleet file.", show_default=False)]
Url = Annotated[str, typer.Option(help="Address of the server.", envvar="SEMAFORO_URL")]
ApiKey = Annotated[
    str, typer.Option("--key", help="API key.", envvar="SEMAFORO_KEY", show_default=False, show_envvar=True)
]
DEFAULT_URL = "http://127.0.0.1:8080"
