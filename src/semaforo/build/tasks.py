"""The tasks of a fleet file: what its settings amount to."""

from __future__ import annotations

from typing import Any

from semaforo.config import TaskSettings
from semaforo.config.settings import CacheSettings, PreferSettings
from semaforo.config.tensors import tensors_of
from semaforo.entities import Caching, Exploration, Judging, Look, Preference, Semantics, TaskType
from semaforo.entities.interface import INTERFACES

LOOK_S = 0.02
"""Seconds within which a request that is looked at has been, or is decided without."""


def task_type(name: str, task: TaskSettings, *, extras: bool = False) -> TaskType:
    """Turn a task's settings into the value that everything else reads; `extras` as `tensors_of` takes it."""
    inputs, outputs = tensors_of(task, extras=extras)
    stated = task.explore
    by: Any = stated.by  # one of its words: its form has checked that
    explore = Exploration(stated.share, stated.max_loss, stated.shadow, by)
    return TaskType(
        name=name,
        kind="chat" if task.kind == "chat" else "tensor",
        interface=task.kind if task.kind in INTERFACES else "",  # type: ignore[arg-type]  # these are its words
        inputs=inputs,
        outputs=outputs,
        prefer=_preference(task.prefer),
        deadline_s=task.deadline,
        max_queue_rows=task.max_queue,
        hedge=task.hedge,
        score_s=_look_s(task, explore),
        embedding=task.router.embedding if task.router is not None else "",
        cache=_caching(task.cache),
        looks={
            name: Look(tensor.looks, tensor.rate)
            for name, tensor in task.inputs.items()
            if tensor.looks or tensor.rate
        },
        features=task.features,
        explore=explore,
        judge=Judging(task.judge.model, task.judge.share, task.judge.prompt)
        if task.judge is not None
        else None,
    )


def _caching(stated: CacheSettings) -> Caching:
    found = stated.semantic
    semantic = None
    if found is not None:
        semantic = Semantics(
            found.embedding, found.input, found.wait, found.most_wrong, found.check, found.judge
        )
    return Caching(stated.size if stated.exact else 0, stated.keep, stated.sampled, semantic)


def _look_s(task: TaskSettings, explore: Exploration) -> float:
    """Return within which seconds requests are looked at, 0 = they are not."""
    if task.router is not None:
        return task.router.wait
    # Where features are asked for and nobody reads them yet, a history has them for the first router.
    return LOOK_S if explore.contextual or task.features else 0.0


def _preference(prefer: PreferSettings) -> Preference:
    return Preference(
        goal="cost" if prefer.minimise else "quality" if prefer.maximise else "weights",
        keep_quality=prefer.keep_quality,
        within_s=prefer.within,
        at_most=prefer.at_most,
        quality=prefer.quality,
        latency=prefer.latency,
        cost=prefer.cost,
    )
