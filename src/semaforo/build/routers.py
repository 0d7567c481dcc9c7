"""The trained routers that a fleet file names."""

from __future__ import annotations

import logging

from semaforo.config import FleetFile, Problem
from semaforo.errors import ArtefactError
from semaforo.repository.routers import Routed, RouterShelf
from semaforo.routing.rollout import Rollout, check_margin, check_share
from semaforo.routing.tasks import TaskModel

log = logging.getLogger(__name__)


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


def routers_of(file: FleetFile) -> dict[str, Routed]:
    """Load the routers of all tasks, and the candidates beside them.

    Raises:
        FleetFileError: Files are missing, damaged, or know none of the models of their task.
    """
    found: dict[str, Routed] = {}
    problems: list[Problem] = []
    for name, task in file.settings.tasks.items():
        stated = task.router
        if stated is None:
            continue
        models = tuple(model for model, about in file.settings.models.items() if about.task == name)
        shelf = RouterShelf(file.folder, stated.file, name, models)
        key = "candidate"
        try:
            candidate = shelf.load(stated.candidate) if stated.candidate else None
            key = "share"
            check_share(stated.share)
            key = "margin"
            check_margin(stated.margin)
            key = ""
            service = shelf.load(stated.version, stated.sha256)
        except ArtefactError as error:
            place = ("tasks", name, "router", key) if key else ("tasks", name, "router")
            problems.append(file.problem(place, error.message))
            continue
        if candidate is not None and candidate.digest == service.digest:
            text = f"'{stated.candidate}' is the router in service, {service.name}: name another one"
            problems.append(file.problem(("tasks", name, "router", "candidate"), text))
            continue
        if stated.embedding and service.router.predictor.embedded is None:
            text = (
                f"{service.name} was trained without embeddings: train it with `--embed`, or leave this out"
            )
            problems.append(file.problem(("tasks", name, "router", "embedding"), text))
            continue
        for loaded in (service, candidate):
            if loaded is not None and loaded.warning:
                log.warning("the router of '%s', %s, %s", name, loaded.name, loaded.warning)
        rollout = Rollout(
            service,
            candidate,
            stated.share,
            stated.shadow,
            stated.margin,
            stated.promote == "auto",
            name,
            models,
        )
        found[name] = Routed(rollout, shelf)
    if problems:
        raise file.error(problems)
    return found
