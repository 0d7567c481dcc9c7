"""Finds the task of a request that names none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semaforo.catalog.state import Catalog
from semaforo.errors import NotFound
from semaforo.features.extract import chat_signals, tensor_signals
from semaforo.routing.tasks import Given, Inferred, TaskModel, fitting, infer
from semaforo.wire.payload import Array

AUTO = "auto"


def is_auto(catalog: Catalog, target: str) -> bool:
    """Tell whether a target asks for its task to be found: ``auto``, unless something has this name."""
    if target != AUTO:
        return False
    try:
        catalog.task_of(target)
    except NotFound:
        return True
    return False


def candidates(catalog: Catalog, given: Mapping[str, Given]) -> list[str]:
    """Return the tasks that can take tensors of these names and forms."""
    return fitting(catalog.tasks, given)


def of_tensors(model: TaskModel | None, found: list[str], arrays: Mapping[str, Array]) -> Inferred:
    """Find the task of tensors ``(rows, …)`` among those that can take them.

    Raises:
        InvalidRequest: It cannot be told; the candidates are named.
    """
    return infer(model, found, tensor_signals(arrays))


def of_prompt(catalog: Catalog, model: TaskModel | None, text: str) -> Inferred:
    """Find the task of a chat of one message.

    Raises:
        InvalidRequest: It cannot be told; the candidates are named.
    """
    return of_chat(catalog, model, {"messages": [{"role": "user", "content": text}]})


def of_chat(catalog: Catalog, model: TaskModel | None, body: Mapping[str, Any]) -> Inferred:
    """Find the task of a chat.

    Raises:
        InvalidRequest: It cannot be told; the candidates are named.
    """
    return infer(model, fitting(catalog.tasks, None), chat_signals(body))
