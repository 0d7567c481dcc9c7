"""Where the trained routers of one task lie: ``<version>/<name>.router`` as models have it, or a single file.

Rules this module keeps:

1. A router is known by its version, or by its file as it was named where that is no version.
2. What is loaded has the digest that is asked for, and knows a model of the task.
3. No file outside the folder of the fleet file is read on the word of a client (`within`).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from semaforo.errors import ArtefactError
from semaforo.repository.folder import ModelFolder
from semaforo.routing.rollout import Loaded, Rollout, foreign, unfit
from semaforo.routing.router import Router

SUFFIX = ".router"


class About(msgspec.Struct, frozen=True):
    """What is told of a router.

    Attributes:
        name: Its version, or its file as it was named.
        sha256: Digest of the file.
        rows: Requests it was trained on.
        made: When, as ISO 8601; "" = not said.
        figures: Out-of-fold figures by name.
        warning: Why little should be hoped from it, or "".
        error: Why it cannot be used, or "".
    """

    name: str
    sha256: str = ""
    rows: int = 0
    made: str = ""
    figures: dict[str, float] = {}
    warning: str = ""
    error: str = ""


def about(loaded: Loaded) -> About:
    """Return what is told of a router that was read."""
    router = loaded.router
    return About(loaded.name, loaded.digest, router.rows, router.made, router.figures, loaded.warning)


class RouterShelf:
    """The routers of one task.

    Args:
        folder: Folder of the fleet file, which names are seen from.
        named: The file or folder, as the fleet file names it.
        task: The task.
        models: Models that serve the task.
    """

    def __init__(self, folder: Path, named: str, task: str, models: Sequence[str]) -> None:
        self._folder = folder
        self._named = named
        self._task = task
        self._models = models
        self._known: dict[tuple[Path, int, int], About] = {}

    def names(self) -> list[str]:
        """Return the versions, oldest first; the name of the file where it is a single one.

        Raises:
            ArtefactError: Nothing is there, or no version.
        """
        path = self._folder / self._named
        if not path.exists():
            raise ArtefactError(f"{path}: No such file or folder. `semaforo router train` writes a router")
        return [self._named] if path.is_file() else _versions(path)

    def load(self, name: str = "", expected: str = "", *, within: bool = False) -> Loaded:
        """Read a router.

        Args:
            name: A version, or a file seen from the fleet file; "" = the newest.
            expected: Digest that it must have; "" = any.
            within: Refuse files outside the folder of the fleet file.

        Raises:
            ArtefactError: It is not there, is damaged, has another digest, or knows none of the models.
        """
        names = self.names()
        name = name or names[-1]
        if within and name not in names:
            self._check_within(name)
        path = self._path(name, names)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtefactError(f"{path}: {error.strerror}. `semaforo router train` writes one") from None
        router = Router.decode(data, str(path))
        found = Loaded(name, sha256(data).hexdigest(), router, foreign(router, self._task))
        if expected and found.digest != expected:
            raise ArtefactError(
                f"{path} has the digest {found.digest}, which is not the one that is asked for"
            )
        if problem := unfit(found.router, self._models, str(path)):
            raise ArtefactError(problem)
        return found

    def all(self) -> list[About]:
        """Tell of every version, oldest first; what cannot be used says why."""
        found = []
        for name in self.names():
            try:
                path = self._path(name, self.names())
                stat = path.stat()
                key = (path, stat.st_mtime_ns, stat.st_size)
                if key not in self._known:
                    self._known[key] = about(self.load(name))
                found.append(self._known[key])
            except (ArtefactError, OSError) as error:
                found.append(About(name, error=str(error)))
        return found

    def _check_within(self, name: str) -> None:
        if not (self._folder / name).resolve().is_relative_to(self._folder.resolve()):
            raise ArtefactError(f"'{name}' is outside the folder of the fleet file: put the router there")

    def _path(self, name: str, names: Sequence[str]) -> Path:
        path = self._folder / self._named
        if path.is_file() and name in names:
            return path
        if name not in names:
            other = self._folder / name
            if other.is_file():
                return other
            has = (
                f"{self._named} has {', '.join(names)}" if path.is_dir() else f"the task names {self._named}"
            )
            raise ArtefactError(f"no router is '{name}': it is no file in {self._folder}, and {has}")
        return ModelFolder(path).file(name, _only(path / name))


def newest(path: Path) -> Path:
    """Return the file of a router: the path itself, or that of the newest version in a folder.

    Raises:
        ArtefactError: The folder holds no version, or no single router.
    """
    if not path.is_dir():
        return path
    if any(file.suffix == SUFFIX for file in path.iterdir()):
        return path / _only(path)
    version = _versions(path)[-1]
    return path / version / _only(path / version)


def _versions(path: Path) -> list[str]:
    try:
        return ModelFolder(path).versions()
    except ArtefactError:
        raise ArtefactError(
            f"{path} has no version: put the router into a folder named by its version, as 1/{path.name}{SUFFIX}"
        ) from None


def _only(folder: Path) -> str:
    there = sorted(file.name for file in folder.iterdir() if file.suffix == SUFFIX)
    if len(there) != 1:
        what = f"holds {', '.join(there)}" if there else f"holds no {SUFFIX} file"
        raise ArtefactError(f"{folder} {what}: put one router into the folder of a version")
    return there[0]


class Routed(msgspec.Struct, frozen=True):
    """The routers that a fleet file states for a task, and where others are."""

    rollout: Rollout
    shelf: RouterShelf
