"""``quality.json``: what was measured of the files in a version's folder, kept beside them.

```json
{"model.onnx": {"quality": 0.97, "metric": "accuracy", "rows": 450, "sha256": "…",
                "profile": {"base_s": 0.00001, "row_s": 0.000002}}}
```
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from semaforo.entities import BatchProfile
from semaforo.errors import ArtefactError

T = TypeVar("T")

FILE = "quality.json"


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_s: Annotated[float, msgspec.Meta(ge=0)]
    row_s: Annotated[float, msgspec.Meta(ge=0)]


class Measured(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was measured of one file.

    Attributes:
        quality: 0…1 in the metric.
        metric: For example ``accuracy``.
        rows: Held-out rows it was measured on.
        sha256: Digest of the file that was measured; "" = not noted.
        profile: Service time measured on this kind of device, or None.
    """

    quality: Annotated[float, msgspec.Meta(ge=0, le=1)]
    metric: str = ""
    rows: Annotated[int, msgspec.Meta(ge=0)] = 0
    sha256: str = ""
    profile: _Line | None = None

    def batch_profile(self) -> BatchProfile | None:
        """Return the profile as the scheduler reads it."""
        return BatchProfile(self.profile.base_s, self.profile.row_s) if self.profile else None


def measured(artefact: Path) -> Measured | None:
    """Return what was measured of an artefact, or None where nothing is noted.

    Raises:
        ArtefactError: The note cannot be read, or is not as described above.
    """
    return noted(artefact.parent / FILE, dict[str, Measured]).get(artefact.name)


def note(artefact: Path, value: Measured) -> None:
    """Write what was measured of an artefact into the note beside it, keeping what is there of others.

    Raises:
        ArtefactError: The note there cannot be read, or the folder cannot be written.
    """
    path = artefact.parent / FILE
    notes = noted(path, dict[str, Measured])
    notes[artefact.name] = value
    write_note(path, msgspec.json.encode(notes))


def noted(path: Path, form: type[dict[str, T]]) -> dict[str, T]:
    """Read a note beside artefacts: by name of the file, what is known of it; empty where there is none.

    Raises:
        ArtefactError: It cannot be read, or has another form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=form) if path.is_file() else {}
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        raise ArtefactError(f"{path} is no note of {path.stem}: {error}. Mend it, or remove it") from None


def write_note(path: Path, data: bytes) -> None:
    """Write a note, as JSON that people can read.

    Raises:
        ArtefactError: It cannot be written.
    """
    try:
        # Whoever reads it meanwhile sees the old note or the new one, never half of one.
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.format(data, indent=2) + b"\n")
        fresh.replace(path)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be written: {error.strerror or error}") from None
