"""Model folders: ``<version>/<file>``, as in a Triton repository, or a single file.

Rules this module keeps:

1. Versions are strings. Their order is natural (``v2`` before ``v10``); the last is the newest.
2. A path never leaves its model's folder.
3. What is missing is named, with what stands there instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from semaforo.errors import ArtefactError, nearest
from semaforo.repository.formats import BESIDE, runtime_of

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEFAULT_FILE = "model.onnx"
_DEFAULT_STEM = "model"


def natural(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return the sort key of a version: runs of digits count as numbers."""
    parts = re.findall(r"\d+|\D+", version)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


class ModelFolder:
    """Where the artefacts of one model lie.

    Raises:
        ArtefactError: There is nothing at this path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ArtefactError(f"nothing is at {path}.{nearest(path.name, there)}")
        self._single = path if path.is_file() else None

    def versions(self) -> list[str]:
        """Return the versions, oldest first; a single file is version ``1``.

        Raises:
            ArtefactError: The folder holds no version.
        """
        if self._single:
            return ["1"]
        try:
            entries = sorted(entry for entry in self.path.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise ArtefactError(f"{self.path} cannot be read: {error}") from None
        found = [entry.name for entry in entries if entry.is_dir() and _VERSION.fullmatch(entry.name)]
        if not found:
            files = [entry.name for entry in entries if entry.is_file()]
            what = f"holds {', '.join(files[:4])} and no version" if files else "is empty"
            example = files[0] if files else _DEFAULT_FILE
            raise ArtefactError(
                f"{self.path} {what}: put the model into a folder named by its version, as 1/{example}"
            )
        return sorted(found, key=natural)

    def file(self, version: str, name: str = "") -> Path:
        """Return the path of a variant's file.

        Args:
            version: One of `versions`.
            name: File inside the version's folder; "" = ``model.onnx``, or the only ``model.*`` that a
                runtime reads, or the only file that one reads.

        Raises:
            ArtefactError: No such version or file, or a path that leaves the folder.
        """
        if self._single:
            if name and name != self._single.name:
                raise ArtefactError(f"{self.path} is one file and holds no '{name}'")
            return self._single
        known = self.versions()
        if version not in known:
            raise ArtefactError(f"{self.path} has no version '{version}'; it has {', '.join(known)}")
        folder = self.path / version
        there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if not name:
            name = _default(folder, there)
        path = folder / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ArtefactError(f"'{name}' leaves the model's folder {self.path}")
        if not path.exists():
            what = f"it holds {', '.join(there)}" if there else "it is empty"
            raise ArtefactError(f"{folder} has no file '{name}'; {what}.{nearest(name, there)}")
        return path


def _default(folder: Path, there: list[str]) -> str:
    if _DEFAULT_FILE in there:
        return _DEFAULT_FILE
    known = [entry for entry in there if runtime_of(folder / entry)]
    # What no built-in runtime reads may be a plug-in's.
    models = known or [entry for entry in there if Path(entry).suffix.lower() not in BESIDE]
    named = [entry for entry in models if Path(entry).stem == _DEFAULT_STEM]
    for only in (named, models):
        if len(only) == 1:
            return only[0]
    what = f"holds {', '.join(models)}" if models else "is empty"
    raise ArtefactError(f"{folder} {what}: name the file under `variants`, or call it {_DEFAULT_FILE}")
