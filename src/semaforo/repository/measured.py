"""``quality.json``: what was measured of the files in a version's folder, kept beside them.

```json
{"model.onnx": {"quality": 0.97, "metric": "accuracy", "rows": 450, "sha256": "…",
                "profile": {"base_s": 0.00001, "row_s": 0.000002}}}
```
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from semaforo.entities import BatchProfile
from semaforo.errors import ArtefactError

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
    path = artefact.parent / FILE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Measured]).get(artefact.name)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        raise ArtefactError(f"{path} is no note of quality: {error}") from None


def note(artefact: Path, value: Measured) -> None:
    """Write what was measured of an artefact into the note beside it, keeping what is there of others.

    Raises:
        ArtefactError: The note there is cannot be read, or the folder cannot be written.
    """
    path = artefact.parent / FILE
    try:
        notes = msgspec.json.decode(path.read_bytes(), type=dict[str, Measured]) if path.is_file() else {}
        notes[artefact.name] = value
        text = msgspec.json.format(msgspec.json.encode(notes), indent=2)
        # Whoever reads it meanwhile sees the old note or the new one, never half of one.
        fresh = path.with_name(f".{FILE}.{os.getpid()}")
        fresh.write_bytes(text + b"\n")
        fresh.replace(path)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be written: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        raise ArtefactError(f"{path} is no note of quality: {error}. Mend it, or remove it") from None
