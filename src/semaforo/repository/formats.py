"""Which runtime reads a model file: the one table that folders, fleet files and `semaforo init` share.

Rules this module keeps:

1. The suffix decides; ``.json`` and ``.txt`` hold notes more often than models, so there the first bytes do.
2. Nothing is loaded, and at most a few kilobytes are read.
"""

from __future__ import annotations

import re
from pathlib import Path

FORMATS: dict[str, str] = {
    ".onnx": "onnx",
    ".pt2": "torch",
    ".pt": "torch",
    ".pth": "torch",
    ".safetensors": "torch",
    ".skops": "sklearn",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".txt": "lightgbm",
    ".json": "xgboost",
    ".ubj": "xgboost",
}
"""Suffix → name of the runtime."""

BESIDE = frozenset({".json", ".md", ".txt", ".pbtxt", ".yaml", ".yml", ".py", ".data", ".onnx_data", ".bin"})
"""Suffixes of what may lie beside a model: notes, code, weights that the model's own file refers to."""

_HEADS = {
    ".txt": re.compile(rb"tree\r?\nversion="),
    ".json": re.compile(rb'\s*\{\s*"(learner|version)"\s*:\s*[\[{]'),
}
_HEAD_BYTES = 4096


def runtime_of(path: Path) -> str | None:
    """Return the name of the runtime that reads a file; None where it is no model file that is known."""
    suffix = path.suffix.lower()
    name = FORMATS.get(suffix)
    head = _HEADS.get(suffix)
    if name is None or head is None:
        return name
    try:
        with path.open("rb") as file:
            return name if head.match(file.read(_HEAD_BYTES)) else None
    except OSError:
        return None
