"""``features.json``: what the rows were like that the files in a version's folder were measured on.

It stands beside ``quality.json``; requests are held against it, so that drift is seen.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from semaforo.features.profile import DataProfile
from semaforo.repository.measured import noted, write_note

FILE = "features.json"


class Profiled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one file was measured on.

    Attributes:
        sha256: Digest of the file.
        profile: The features of the rows.
    """

    sha256: str
    profile: DataProfile


def profiled(artefact: Path, digest: str) -> DataProfile | None:
    """Return what an artefact of this digest was measured on, or None where that is not noted.

    Raises:
        ArtefactError: The note cannot be read, or is none.
    """
    found = noted(artefact.parent / FILE, dict[str, Profiled]).get(artefact.name)
    return found.profile if found is not None and found.sha256 == digest else None


def note_profile(artefact: Path, digest: str, profile: DataProfile) -> None:
    """Write what an artefact was measured on into the note beside it, keeping what is there of others.

    Raises:
        ArtefactError: The note there is none, or the folder cannot be written.
    """
    path = artefact.parent / FILE
    notes = noted(path, dict[str, Profiled])
    notes[artefact.name] = Profiled(digest, profile)
    write_note(path, msgspec.json.encode(notes))
