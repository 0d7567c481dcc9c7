"""Digests: an artefact is what its sha256 says, and nothing else is loaded in its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

from semaforo.errors import ArtefactError


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file, or of all files of a folder with their names, in order.

    Raises:
        ArtefactError: It cannot be read.
    """
    try:
        if path.is_dir():
            whole = hashlib.sha256()
            for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
                whole.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
            return whole.hexdigest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}") from None


def verify(path: Path, expected: str) -> str:
    """Return the digest of `path`.

    Raises:
        ArtefactError: It differs from `expected` (where that is not empty).
    """
    found = sha256_of(path)
    if expected and found != expected:
        raise ArtefactError(
            f"{path} has sha256 {found[:12]}…, not {expected[:12]}… as expected: it was changed or damaged"
        )
    return found
