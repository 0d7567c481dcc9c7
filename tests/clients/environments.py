"""Environments of clients that do not get on with ours, under ``.venvs/clients``; ``make clients`` makes them all.

What goes into one is pinned in ``constraints/clients-NAME.txt``; a change of that file makes it anew. One is made
aside and renamed when it is whole, so that no broken or half-made one is ever found.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venvs" / "clients"
NAMES = ("kserve", "litellm")
INSTALL_S = 600
_UNREACHED = re.compile(
    "NewConnectionError|ConnectTimeoutError|NameResolutionError|ReadTimeoutError|ProxyError"
)


class Unreachable(Exception):
    """No package index can be reached from here."""


def pins(name: str) -> Path:
    """Return the file of a client's pinned packages."""
    return ROOT / "constraints" / f"clients-{name}.txt"


def interpreter(name: str) -> Path | None:
    """Return the interpreter of a client's environment, if it is there and as pinned."""
    mark = HOME / name / ".installed"
    there = mark.is_file() and mark.read_text() == _digest(name)
    return HOME / name / "bin" / "python" if there else None


def make(name: str) -> Path:
    """Make a client's environment where it is missing, and return its interpreter.

    Raises:
        Unreachable: pip reaches no index.
        RuntimeError: It cannot be made; says why.
    """
    if (python := interpreter(name)) is not None:
        return python
    begun = time.monotonic()
    _say(f"installing {name} into {(HOME / name).relative_to(ROOT)}")
    aside = HOME / f"{name}.{os.getpid()}"
    try:
        # The running interpreter's pip fills it: a system's Python may come without ensurepip.
        _run([sys.executable, "-m", "venv", "--without-pip", str(aside)])
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            str(aside / "bin/python"),
        ]
        _run([*pip, "install", "-q", "--no-compile", "--retries", "2", "-r", str(pins(name))])
        (aside / ".installed").write_text(_digest(name))
        shutil.rmtree(HOME / name, ignore_errors=True)
        aside.rename(HOME / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _say(f"installed {name} in {time.monotonic() - begun:.0f} s")
    return HOME / name / "bin" / "python"


def make_all() -> None:
    """Make all of them, at once."""
    with ThreadPoolExecutor() as threads:
        list(threads.map(make, NAMES))


def _digest(name: str) -> str:
    return hashlib.sha256(pins(name).read_bytes() + sys.version.encode()).hexdigest()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        if _UNREACHED.search(said):
            raise Unreachable(said.splitlines()[-1])
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-2000:]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        make_all()
    except (Unreachable, RuntimeError, subprocess.TimeoutExpired) as error:
        sys.exit(str(error))
