"""An environment for each peer under ``.venvs/peers``, made when first needed and kept for the next run.

What is installed is pinned in ``benchmarks/peers/requirements-NAME.txt``; a change of that file installs again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import ROOT
from benchmarks.serving.peers import Peer

HOME = ROOT / ".venvs" / "peers"
INSTALL_S = 900


class NotInstalled(Exception):
    """A peer's environment cannot be had; says why."""


def requirements(peer: Peer) -> Path:
    """Return the file of a peer's pinned packages."""
    return ROOT / "benchmarks" / "peers" / f"requirements-{peer.home or peer.name}.txt"


def _folder(peer: Peer) -> Path:
    return HOME / (peer.home or peer.name)


def python_of(peer: Peer) -> str | None:
    """Return the interpreter of a peer's environment if it is there and as pinned."""
    if not peer.own:
        return sys.executable
    python = _folder(peer) / "bin" / "python"
    mark = _folder(peer) / ".installed"
    there = python.exists() and mark.is_file() and mark.read_text() == _digest(peer)
    return str(python) if there else None


def install(peer: Peer, progress: Callable[[str], None]) -> str:
    """Make a peer's environment where it is missing and return its interpreter.

    Raises:
        NotInstalled: It cannot be made here.
    """
    if (python := python_of(peer)) is not None:
        return python
    base = next((p for p in peer.pythons if Path(p).exists()), None if peer.pythons else sys.executable)
    if base is None:
        raise NotInstalled(f"{peer.title} needs one of {', '.join(peer.pythons)}")
    folder = _folder(peer)
    progress(f"installing {peer.title} into {folder.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The running interpreter's pip fills it: a system's Python may come without ensurepip.
    _run([base, "-m", "venv", "--without-pip", str(folder)])
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(folder / "bin" / "python"),
    ]
    _run([*pip, "install", "-q", "-r", str(requirements(peer))])
    (folder / ".installed").write_text(_digest(peer))
    return str(folder / "bin" / "python")


def _digest(peer: Peer) -> str:
    return hashlib.sha256(requirements(peer).read_bytes()).hexdigest()


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{' '.join(command[:4])} … took more than {INSTALL_S} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalled(said[-1] if said else f"{' '.join(command[:4])} … ended with {done.returncode}")
