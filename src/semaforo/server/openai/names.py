"""What `model` may name on each route, and what ``auto`` stands for.

Rules this module keeps:

1. A name is a task type, a model or an alias; what it leads to must do what the route is for.
2. ``auto`` is the only task that does that; where there are several, the error names them.
"""

from __future__ import annotations

import msgspec

from semaforo.catalog import Catalog
from semaforo.entities import TaskType
from semaforo.errors import NotFound
from semaforo.wire.openai import UnknownModel
from semaforo.wire.openai_fields import InvalidField

AUTO = "auto"


class Kind(msgspec.Struct, frozen=True):
    """What a route is for.

    Attributes:
        word: ``chat``, or the interface of a tensor task.
        does: What such a model does, for messages.
        path: Where it is asked.
    """

    word: str
    does: str
    path: str


CHAT = Kind("chat", "chats", "/v1/chat/completions")
EMBEDDING = Kind("embedding", "embeds", "/v1/embeddings")
MODERATION = Kind("moderation", "moderates", "/v1/moderations")
TRANSCRIPTION = Kind("transcription", "transcribes", "/v1/audio/transcriptions")
KINDS = {kind.word: kind for kind in (CHAT, EMBEDDING, MODERATION, TRANSCRIPTION)}


def names(catalog: Catalog, kind: Kind) -> list[str]:
    """Return every name that a route takes, ``auto`` first where it stands for something."""
    tasks = tasks_of(catalog, kind)
    models = dict.fromkeys(v.model for v in catalog.variants.values() if v.task in tasks)
    aliases = [alias for alias, name in catalog.aliases.items() if name in tasks or name in models]
    auto = [AUTO] if len(tasks) == 1 else []
    return list(dict.fromkeys((*auto, *tasks, *models, *aliases)))


def all_names(catalog: Catalog) -> list[str]:
    """Return every name that some route takes."""
    return list(dict.fromkeys(name for kind in KINDS.values() for name in names(catalog, kind)))


def tasks_of(catalog: Catalog, kind: Kind) -> list[str]:
    """Return the tasks that a route is for."""
    return [name for name, task in catalog.tasks.items() if _kind(task) == kind.word]


def find(catalog: Catalog, model: str, kind: Kind) -> tuple[str, TaskType]:
    """Return the target that `model` stands for, and its task.

    Raises:
        UnknownModel: Nothing has this name.
        InvalidField: It does something else, or is ``auto`` where there is not exactly one task.
    """
    try:
        task = catalog.task_of(model)
    except NotFound:
        if model != AUTO:
            raise UnknownModel(model, names(catalog, kind), kind.does) from None
        tasks = tasks_of(catalog, kind)
        if len(tasks) != 1:
            raise InvalidField(
                "model", f"'auto' needs one {kind.word} task, and this fleet has {_several(tasks)}"
            ) from None
        return tasks[0], catalog.tasks[tasks[0]]
    does = KINDS.get(_kind(task))
    if does is kind:
        return model, task
    known = names(catalog, kind)
    others = f". What {kind.does} here: {', '.join(known)}" if known else f". Nothing {kind.does} here"
    if does is None:
        raise InvalidField("model", f"'{model}' takes tensors: ask it at /v2/models/{model}/infer{others}")
    raise InvalidField("model", f"'{model}' {does.does}: ask it at {does.path}{others}")


def _kind(task: TaskType) -> str:
    return task.interface or task.kind


def _several(tasks: list[str]) -> str:
    return f"{len(tasks)}: name one of {', '.join(tasks)}" if tasks else "none"
