"""Found models → the tasks they can serve, as a first draft of a fleet.

How models become tasks:

1. A function serves the task that its decorator names.
2. Models that take and give the same tensors, by name, type and shape, are taken to serve one task. What the
   names have in common names it; a single model hands its name to the task, so that clients who ask by it go on.
3. Tensors of the same types and shapes under other names may be the same task or another: that is proposed, with
   the adapter it takes, and left to the user.
4. A name that cannot stand in a fleet file is bridged by an adapter.
5. What cannot be served as it is stays in the draft with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from semaforo.config.forms import NAME
from semaforo.entities import Signature, TensorSpec
from semaforo.errors import ConfigError, SemaforoError
from semaforo.jobs.naming import clean, task_name, unique, variant_names
from semaforo.repository.scan import Found, FoundModel
from semaforo.repository.signature import Loaded, signature_of
from semaforo.repository.triton import TritonConfig
from semaforo.runtime.adapter import plan

_MODULE = re.compile(r"[\w./-]+\.py")

Key = tuple[tuple[tuple[str, str, tuple[int, ...]], ...], ...]


class DraftModel(msgspec.Struct):
    """One model of the draft.

    Attributes:
        name: Its name.
        source: File or folder; None for a function.
        python: ``file.py:function``, or "".
        runtime: Runtime that reads it.
        inputs, outputs: The task's tensors as this model would have them.
        variants: Name → file name; empty = one that needs no name.
        version: Version that must be stated, or "".
        adapter: Bridge to its own names, or None.
        max_batch, replicas, quality: Where something says so, else None.
        notes: Comments.
        proposal: Another task it may serve, with the adapter that takes.
    """

    name: str
    source: Path | None
    python: str
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: dict[str, str] = {}
    version: str = ""
    adapter: dict[str, Any] | None = None
    max_batch: int | None = None
    replicas: int | None = None
    quality: float | None = None
    notes: list[str] = []
    proposal: tuple[str, dict[str, Any]] | None = None


class DraftTask(msgspec.Struct):
    """One task of the draft, with the models that serve it."""

    name: str
    models: list[DraftModel]


class Draft(msgspec.Struct):
    """A fleet that can be served, and what could not be part of it as (path, reason)."""

    tasks: list[DraftTask]
    left: list[tuple[Path, str]]


def draft(
    found: Found, folder: Path, beside: Path, loading: Callable[[Path], object] = lambda path: None
) -> Draft:
    """Load what was found and group it; `loading` hears of each file.

    Args:
        found: What a folder holds.
        folder: The folder, which may name a task.
        beside: Folder the fleet file will stand in.
        loading: Called with each file before it is loaded.
    """
    left = list(found.left)
    ordered = sorted(found.models, key=lambda one: one.name)
    files = [model for one in ordered for model in _models(one, left, loading)]
    groups: dict[Key, list[DraftModel]] = {}
    for model in files:
        groups.setdefault(_key(model), []).append(model)
    tasks = _functions(found, beside, left)
    taken = {task.name for task in tasks}
    for members in groups.values():
        name = task_name([model.name for model in members], folder if len(groups) == 1 else None)
        same = next((t for t in tasks if t.name == name and _key(t.models[0]) == _key(members[0])), None)
        if same is not None:
            same.models.extend(members)
            continue
        tasks.append(DraftTask(unique(name, taken), members))
    _name_models(tasks)
    _propose(tasks)
    return Draft(tasks, left)


def _models(
    found: FoundModel, left: list[tuple[Path, str]], loading: Callable[[Path], object]
) -> list[DraftModel]:
    """Return the models of one folder: a model for each signature its files have."""
    titles = variant_names([file.name for file in found.files]) if found.named else [""]
    models: list[DraftModel] = []
    for file, title in zip(found.files, titles, strict=True):
        loading(file)
        try:
            made = _model(found, signature_of(file, found.runtime))
        except SemaforoError as error:
            left.append((file, error.message.removeprefix(f"{file}: ")))
            continue
        same = next((m for m in models if _key(m) == _key(made) and m.adapter == made.adapter), None)
        if same is None:
            made.name = found.name if not models else f"{found.name}-{title}"
            models.append(made)
        if title:
            (same or made).variants[title] = file.name
    return models


def _model(found: FoundModel, loaded: Loaded) -> DraftModel:
    config, signature = found.config, loaded.signature
    if config is not None:
        signature = _with_config(signature, config)
    if loaded.rowless:
        name = min(loaded.rowless)
        raise ConfigError(
            f"it takes '{name}' once for a whole batch: write a task without it, and give the model "
            f"adapter: {{inputs: {{{name}: {{value: 1}}}}}} with the value it should have"
        )
    tensors = (*signature.inputs, *signature.outputs)
    if not signature.inputs or not signature.outputs or not all(spec.dtype for spec in tensors):
        raise ConfigError("it does not say what it takes and gives: write a task with its inputs and outputs")
    inputs, below = _allowed(signature.inputs)
    outputs, above = _allowed(signature.outputs)
    adapter: dict[str, Any] = {}
    if any(own != name for own, name in below.items()):
        adapter["inputs"] = {own: name for own, name in below.items() if own != name}
    if any(own != name for own, name in above.items()):
        adapter["outputs"] = {name: own for own, name in above.items() if own != name}
    # What cannot be bridged would only fail when it is loaded.
    plan(inputs, outputs, loaded.signature, adapter or None)
    made = DraftModel(
        found.name, found.source, "", found.runtime, inputs, outputs,
        version=found.version if found.pinned else "", adapter=adapter or None,
    )  # fmt: skip
    if config is not None:
        _configure(made, config, signature.batched)
    return made


def _with_config(signature: Signature, config: TritonConfig) -> Signature:
    """Fill in what the model does not say itself: open tensors, and labels."""
    labels = {spec.name: spec.labels for spec in config.outputs}
    open_inputs = not signature.inputs or not all(spec.dtype for spec in signature.inputs)
    open_outputs = not signature.outputs or not all(spec.dtype for spec in signature.outputs)
    outputs = config.outputs if open_outputs else signature.outputs
    named = (
        msgspec.structs.replace(spec, labels=_fitting(spec, labels.get(spec.name, ()))) for spec in outputs
    )
    return msgspec.structs.replace(
        signature, inputs=config.inputs if open_inputs else signature.inputs, outputs=tuple(named)
    )


def _fitting(spec: TensorSpec, labels: tuple[str, ...]) -> tuple[str, ...]:
    fits = not spec.shape or spec.shape[-1] in (-1, len(labels))
    return labels if fits and len(set(labels)) == len(labels) else ()


def _configure(model: DraftModel, config: TritonConfig, batched: bool) -> None:
    if config.max_batch:
        model.max_batch = config.max_batch
    elif batched:
        model.max_batch = 1
    if config.copies > 1:
        model.replicas = config.copies
    if config.gpu:
        model.notes.append("config.pbtxt asks for a GPU: device: cuda:0, where there is one")


def _functions(found: Found, beside: Path, left: list[tuple[Path, str]]) -> list[DraftTask]:
    tasks: dict[str, DraftTask] = {}
    names: set[str] = set()
    for path, functions in found.functions.items():
        place = relative(path, beside)
        for one in functions:
            first = tasks[one.task].models[0] if one.task in tasks else None
            made = DraftModel(
                one.name, path, one.function, "python", one.signature.inputs, one.signature.outputs,
                quality=one.quality, max_batch=one.max_batch,
            )  # fmt: skip
            if not _MODULE.fullmatch(place):
                left.append(
                    (path, f"{one.function}: a path with such characters cannot stand before a function")
                )
            elif first is not None and _key(first) != _key(made):
                left.append(
                    (path, f"{one.function}: it takes and gives other tensors than {first.name} of its task")
                )
            elif one.name in names:
                left.append((path, f"{one.function}: another function is the model '{one.name}' already"))
            else:
                names.add(one.name)
                tasks.setdefault(one.task, DraftTask(one.task, [])).models.append(made)
    return list(tasks.values())


def relative(path: Path, beside: Path) -> str:
    """Return a path as seen from the folder of the fleet file."""
    return Path(os.path.relpath(path.resolve(), beside.resolve())).as_posix()


def _key(model: DraftModel) -> Key:
    return tuple(
        tuple(sorted((spec.name, spec.dtype, spec.shape) for spec in side))
        for side in (model.inputs, model.outputs)
    )


def _allowed(specs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], dict[str, str]]:
    """Return tensors under names that a fleet file allows, and own name → that name."""
    names: dict[str, str] = {}
    for spec in specs:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", spec.name).strip("_.-")[:100] or "tensor"
        names[spec.name] = unique(name if not NAME.fullmatch(spec.name) else spec.name, set(names.values()))
    return tuple(msgspec.structs.replace(spec, name=names[spec.name]) for spec in specs), names


def _name_models(tasks: Sequence[DraftTask]) -> None:
    taken = {task.name for task in tasks}
    for model in (model for task in tasks for model in task.models):
        name = clean(model.name)
        model.name = unique(f"{name}-{model.runtime}" if name in taken else name, taken)


def _propose(tasks: Sequence[DraftTask]) -> None:  # 3
    for place, task in enumerate(tasks):
        model = task.models[0]
        for other in tasks[:place]:
            pairs = [
                _paired(getattr(model, side), getattr(other.models[0], side))
                for side in ("inputs", "outputs")
            ]
            if model.adapter is None and len(task.models) == 1 and all(pair is not None for pair in pairs):
                below, above = pairs
                adapter = {
                    "inputs": {own: name for own, name in (below or {}).items() if own != name},
                    "outputs": {name: own for own, name in (above or {}).items() if own != name},
                }
                model.proposal = (other.name, {side: names for side, names in adapter.items() if names})
                break


def _paired(own: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> dict[str, str] | None:
    """Pair tensors by type and shape; None where that leaves a choice."""
    mine = {(spec.dtype, spec.shape): spec.name for spec in own}
    theirs = {(spec.dtype, spec.shape): spec.name for spec in other}
    if mine.keys() != theirs.keys() or len(mine) != len(own) or len(theirs) != len(other):
        return None
    return {name: theirs[kind] for kind, name in mine.items()}
