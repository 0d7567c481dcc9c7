"""The trained verifiers that graphs name: whether their files are what the steps need."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from semaforo.catalog import Catalog
from semaforo.errors import ArtefactError
from semaforo.graph.graph import Graph, Step, step_of
from semaforo.repository.routers import newest
from semaforo.routing.router import Router
from semaforo.routing.verifier import Verifier

Say = Callable[[tuple[str, ...], str], None]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, "" where it cannot be read."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def file_of(path: Path) -> Path:
    """Return the file of a verifier: of the newest version where a folder of them is named."""
    try:
        return newest(path)
    except ArtefactError:
        # A folder that holds none: told with its line by `check_verifiers`.
        return path


def check_verifiers(graph: Graph, catalog: Catalog, fitted: bool, say: Say) -> None:
    """Say which verifiers of a graph are missing, damaged, or of other models.

    Args:
        graph: The graph.
        catalog: What it asks.
        fitted: Whether they must be there; else a missing file is to be trained yet.
        say: Called with the keys under the graph, and what is wrong there.
    """
    for step in graph.steps:
        if step.kind == "verify":
            key, wrong = _problem(graph, step, catalog, fitted)
            if wrong:
                say(("steps", step.name, key), wrong)


def models_of(target: str, catalog: Catalog) -> list[str]:
    """Return the models that a target may be answered by."""
    name = catalog.aliases.get(target, target)
    if name not in catalog.tasks:
        return [name]
    return list(dict.fromkeys(v.model for v in catalog.variants.values() if v.task == name))


def _problem(graph: Graph, step: Step, catalog: Catalog, fitted: bool) -> tuple[str, str]:
    path = Path(step.target)
    if path.is_dir():
        return (
            "by",
            f"{path} holds no verifier: name a file that `semaforo router train --cascade` has written",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        if not fitted and isinstance(error, FileNotFoundError):
            return "", ""
        return (
            "by",
            f"{path}: {error.strerror}. `semaforo graph fit` or `semaforo router train --cascade` writes one",
        )
    digest = sha256(data).hexdigest()
    if digest != step.digest:
        return "sha256", f"{path} has the digest {digest}, which is not the one that is asked for"
    try:
        verifier = Verifier(Router.decode(data, str(path)), graph.task, step.against, str(path))
    except ArtefactError as error:
        return "by", str(error)
    cheap = next((one for one in graph.steps if one.name == step_of(step.verifies)), None)
    if cheap is None or cheap.kind not in ("ask", "loop"):
        return "", ""
    known = verifier.cheap.partition("/")[0]
    asked = [cheap.target, *models_of(cheap.target, catalog)]
    if known not in asked:
        told = ", ".join(dict.fromkeys(asked))
        text = f"{path} was trained on answers of '{known}', and '{cheap.name}' asks {told}"
        return "by", text
    return "", ""
