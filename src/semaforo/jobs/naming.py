"""Names for what was found without one: variants, tasks, models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_PRECISIONS = re.compile(r"(u?int\d+|fp\d+|bf16|f16|half|q\d\w*|quant\w*|static|dynamic)")
_GENERIC = frozenset({"model", "models", "onnx", "fleet", "data", "repository", "model_repository", "tmp"})


def variant_names(files: Sequence[str]) -> list[str]:
    """Name variants by what their file names do not have in common; the plain one is `fp32` beside others."""
    stems = [re.split(r"[._-]+", Path(file).stem) for file in files]
    shared = len(_shared(stems))
    rests = ["-".join(words[shared:]) for words in stems]
    plain = "fp32" if any(_PRECISIONS.fullmatch(rest.lower()) for rest in rests if rest) else "base"
    taken: set[str] = set()
    return [unique(re.sub(r"[^A-Za-z0-9._-]+", "-", rest).strip("-._") or plain, taken) for rest in rests]


def task_name(names: Sequence[str], folder: Path | None) -> str:
    """Name a task after what the names of its models have in common, or after the folder where it is given."""
    words = [re.split(r"[-_.]+", name) for name in names]
    first = names[0]
    if len(names) == 1:
        return clean(first)
    suffix = list(reversed(_shared([list(reversed(each)) for each in words])))
    for shared in (_shared(words), suffix):
        name = "-".join(shared)
        if len(name) > 1 and not name.isdigit():
            return clean(name)
    place = folder.resolve().name if folder is not None else ""
    return clean(first if not place or place.lower() in _GENERIC else place)


def clean(name: str) -> str:
    """Return a name as a fleet file allows it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "task"


def unique(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, with a number where that needs one, and take it."""
    chosen, number = name, 2
    while chosen in taken:
        chosen, number = f"{name}-{number}", number + 1
    taken.add(chosen)
    return chosen


def _shared(words: Sequence[Sequence[str]]) -> list[str]:
    """Return the words that all begin with."""
    shared = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared
