"""Finding models in a folder: a Triton-style repository, loose files, functions.

Rules this module keeps:

1. Nothing is loaded or run here; files are told apart by `semaforo.repository.formats` and, where they are Python,
   by reading.
2. A folder with a version's folder that holds a model (``<model>/<version>/<file>``) is one model; what else lies
   in it is not looked at. Every other model file is a model of its own.
3. Hidden folders, environments and caches are passed over, links to folders are not followed, and a search
   ends at `MOST_FILES`.
4. What looks like a model and cannot be one here is told, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from semaforo.errors import ArtefactError, InvalidRequest
from semaforo.repository.folder import ModelFolder, natural
from semaforo.repository.formats import runtime_of
from semaforo.repository.functions import FoundFunction, functions_of
from semaforo.repository.triton import FILE, TritonConfig, read_config

MOST_FILES = 50_000
MOST_DEPTH = 6
_VERSION = re.compile(r"v?\d+([._-]\d+)*")
_PASSED = frozenset({"node_modules", "site-packages", "dist", "build", "__pycache__", "venv", "env"})
_GENERIC = frozenset(
    {"model", "models", "onnx", "weights", "checkpoint", "export", "model_repository", "repository"}
)
_OTHERS = {
    ".plan": "a TensorRT plan: export it to ONNX, or serve it by Triton and name it by `url`",
    ".engine": "a TensorRT engine: export it to ONNX",
    ".pb": "a TensorFlow graph: convert it to ONNX",
    ".savedmodel": "a TensorFlow model: convert it to ONNX",
    ".h5": "a Keras model: convert it to ONNX",
    ".keras": "a Keras model: convert it to ONNX",
    ".tflite": "a TensorFlow Lite model: convert it to ONNX",
    ".gguf": "a language model for llama.cpp: serve it there, and name it by `url` under a task of kind chat",
    ".mlmodel": "a Core ML model: convert it to ONNX",
}


class FoundModel(msgspec.Struct, frozen=True):
    """Files that are one model, all read by one runtime.

    Attributes:
        name: A name for it, from its folder or file.
        runtime: Runtime that reads it.
        source: Folder with versions, or the file.
        version: Version to serve; "" = a single file.
        pinned: Whether `version` must be stated, as the folder's natural order ends elsewhere.
        files: Files in the version's folder, the plain one first; one, without a need to be named, where `named`
            is False.
        named: Whether `files` must be named as variants.
        config: What its ``config.pbtxt`` says, or None.
    """

    name: str
    runtime: str
    source: Path
    files: tuple[Path, ...]
    version: str = ""
    pinned: bool = False
    named: bool = False
    config: TritonConfig | None = None


class Found(msgspec.Struct):
    """What a folder holds.

    Attributes:
        models: Models in files.
        functions: Python file → its functions that are models.
        left: (path, why it is left out).
    """

    models: list[FoundModel] = []
    functions: dict[Path, list[FoundFunction]] = {}
    left: list[tuple[Path, str]] = []


def scan(folder: Path, looked: Callable[[Path], object] = lambda path: None) -> Found:
    """Look for models in a folder and what is below it; `looked` hears of each folder.

    Raises:
        InvalidRequest: It is no folder, or holds too much to be a folder of models.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder: name the one that holds the models")
    found = Found()
    for here, below, files in _walk(folder, looked):
        versions = [name for name in below if _VERSION.fullmatch(name) and _model_files(here / name)]
        alone = len(versions) == len(below) and not any(runtime_of(here / name) for name in files)
        if versions and (here != folder or alone):
            below.clear()
            _versioned(here, max(versions, key=natural), found)
            continue
        if FILE in files and any(_VERSION.fullmatch(name) for name in below):
            below.clear()
            found.left.append(
                (here, f"no version of it holds a model file that is known here{_platform(here)}")
            )
            continue
        for path in sorted(here / name for name in files):
            _loose(path, found)
    return found


def _walk(folder: Path, looked: Callable[[Path], object]) -> Iterator[tuple[Path, list[str], list[str]]]:
    seen = 0
    for top, below, files in os.walk(folder):
        here = Path(top)
        deep = len(here.relative_to(folder).parts) >= MOST_DEPTH
        below[:] = sorted(
            name
            for name in below
            if not deep and not name.startswith((".", "_")) and name not in _PASSED
            and not (here / name / "pyvenv.cfg").exists()
        )  # fmt: skip
        seen += len(files)
        if seen > MOST_FILES:
            raise InvalidRequest(
                f"{folder} holds more than {MOST_FILES} files: name the folder of the models in it"
            )
        looked(here)
        yield here, below, sorted(name for name in files if not name.startswith("."))


def _model_files(folder: Path) -> list[Path]:
    """Return the model files of a version's folder, the plainest name first."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted((e for e in entries if runtime_of(e)), key=lambda e: (len(e.stem), e.name))


def _versioned(folder: Path, version: str, found: Found) -> None:
    config = None
    try:
        config = read_config(folder)
    except ArtefactError as error:
        found.left.append((folder / FILE, str(error).partition(" cannot be read: ")[2] or str(error)))
    files = _model_files(folder / version)
    wanted = config.file if config else ""
    files.sort(key=lambda file: file.name != wanted)
    known = ModelFolder(folder).versions()
    runtimes = list(dict.fromkeys(filter(None, map(runtime_of, files))))
    for runtime in runtimes:
        mine = tuple(file for file in files if runtime_of(file) == runtime)
        name = folder.resolve().name
        title = name if len(runtimes) == 1 else f"{name}-{runtime}"
        found.models.append(
            FoundModel(
                title,
                runtime,
                folder,
                mine,
                version,
                known[-1] != version,
                named=len(files) > 1,
                config=config,
            )
        )


def _platform(folder: Path) -> str:
    try:
        config = read_config(folder)
    except ArtefactError:
        config = None
    return f": its platform is {config.platform}" if config is not None and config.platform else ""


def _loose(path: Path, found: Found) -> None:
    runtime = runtime_of(path)
    if runtime:
        found.models.append(FoundModel(_title(path), runtime, path, (path,)))
    elif path.suffix == ".py":
        try:
            text = path.read_bytes()
            functions, left = functions_of(path) if b"semaforo" in text and b"model(" in text else ([], [])
        except (OSError, ArtefactError) as error:
            found.left.append((path, str(error).removeprefix(f"{path}: ")))
            return
        found.left.extend((path, reason) for reason in left)
        if functions:
            found.functions[path] = functions
    elif path.suffix.lower() in _OTHERS:
        found.left.append((path, f"is {_OTHERS[path.suffix.lower()]}"))


def _title(path: Path) -> str:
    """Name a loose file: its stem, or its folder's name where the stem says nothing."""
    words = re.split(r"[._-]+", path.stem)
    if words[0].lower() not in _GENERIC:
        return path.stem
    parents = (parent.name for parent in path.resolve().parents)
    telling = (name for name in parents if name.lower() not in _GENERIC and not _VERSION.fullmatch(name))
    named = next(filter(None, telling), path.stem)
    return "-".join([named, *words[1:]])
