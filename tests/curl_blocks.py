"""The `curl` commands of a page, run as they stand there, but for the port."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def curl_commands(page: Path) -> list[str]:
    """Return the commands of a page's ```sh blocks that begin with curl, continued lines included."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S)
    return [command for block in blocks for command in _commands(block)]


def run(command: str, url: str) -> str:
    """Run a command against another server and return what it prints; anything but a 2xx raises."""
    at = url.removeprefix("http://")
    here = re.sub(r"(localhost|127\.0\.0\.1):8080", at, command)
    assert here != command, f"asks no server at 8080: {command}"
    strict = 'curl() { command curl -sS --fail-with-body --max-time 20 "$@"; }\n'
    ran = subprocess.run(
        ["bash", "-c", strict + here], capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 0, f"{here}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def _commands(block: str) -> list[str]:
    """Find the commands in a block: one goes on while a quote is open or a line ends with a backslash."""
    found, held = [], ""
    for line in block.splitlines():
        if not held and not line.startswith("curl "):
            continue
        held = f"{held}\n{line}" if held else line
        if held.count("'") % 2 or held.endswith("\\"):
            continue
        found.append(held)
        held = ""
    assert not held, f"a quote is left open: {held}"
    return found
