"""The trained routers that a fleet file names."""

from __future__ import annotations

from hashlib import sha256

from semaforo.config import FleetFile, Problem
from semaforo.errors import ArtefactError
from semaforo.routing.router import Router
from semaforo.routing.tasks import TaskModel


def task_model_of(file: FleetFile) -> TaskModel | None:
    """Load what tells tasks apart; None where the file names none.

    Raises:
        FleetFileError: It is missing or damaged.
    """
    if not file.settings.auto:
        return None
    path = file.folder / file.settings.auto
    try:
        return TaskModel.decode(path.read_bytes(), str(path))
    except OSError as error:
        text = f"{path}: {error.strerror}. `semaforo router tasks` writes one"
        raise file.error([file.problem(("auto",), text)]) from None
    except ArtefactError as error:
        raise file.error([file.problem(("auto",), str(error))]) from None


def routers_of(file: FleetFile) -> dict[str, Router]:
    """Load the routers of all tasks, each file once.

    Raises:
        FleetFileError: Files are missing, damaged, or know none of the models of their task.
    """
    found: dict[str, Router] = {}
    loaded: dict[str, Router] = {}
    problems: list[Problem] = []
    for name, task in file.settings.tasks.items():
        if task.router is None:
            continue
        path = file.folder / task.router.file
        try:
            data = path.read_bytes()
        except OSError as error:
            text = f"{path}: {error.strerror}. `semaforo router train` writes one"
            problems.append(file.problem(("tasks", name, "router"), text))
            continue
        digest = sha256(data).hexdigest()
        if task.router.sha256 and digest != task.router.sha256:
            text = f"{path} has the digest {digest}, which is not the one that is asked for"
            problems.append(file.problem(("tasks", name, "router"), text))
            continue
        try:
            router = loaded.get(digest) or Router.decode(data, str(path))
        except ArtefactError as error:
            problems.append(file.problem(("tasks", name, "router"), str(error)))
            continue
        loaded[digest] = router
        models = [model for model, about in file.settings.models.items() if about.task == name]
        if not any(known.partition("/")[0] in models for known in router.predictor.models):
            text = f"{path} was trained on {', '.join(router.predictor.models)}; the task has {', '.join(models)}"
            problems.append(file.problem(("tasks", name, "router"), text))
            continue
        if task.router.embedding and router.predictor.embedded is None:
            text = f"{path} was trained without embeddings: train it with `--embed`, or leave this out"
            problems.append(file.problem(("tasks", name, "router", "embedding"), text))
            continue
        found[name] = router
    if problems:
        raise file.error(problems)
    return found
