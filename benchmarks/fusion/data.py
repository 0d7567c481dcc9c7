"""Labelled data: handwritten digits, which scikit-learn brings, and the intents of CLINC150 where at hand.

`SEMAFORO_DATA` names a folder with ``intent/data_full.json`` (clinc/oos-eval, CC BY 3.0); else it is sought beside
the project. Without it, short texts of made-up intents take its place, and the report says so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import ROOT

Array = NDArray[Any]


class Split(msgspec.Struct, frozen=True):
    """Rows to train members on, to fit fusions and thresholds on, and to report on."""

    train: tuple[Any, Array]
    fit: tuple[Any, Array]
    test: tuple[Any, Array]

    def rehearsal(self) -> Split:
        """Return a split in which a fifth of the rows to train on takes the place of those to report on."""
        rows, labels = self.train
        fifth = np.random.default_rng(1).permutation(len(labels)) % 5

        def part(chosen: Array) -> tuple[Any, Array]:
            if isinstance(rows, list):
                return [row for row, wanted in zip(rows, chosen, strict=True) if wanted], labels[chosen]
            return rows[chosen], labels[chosen]

        return Split(part(fifth != 0), self.fit, part(fifth == 0))


class Data(msgspec.Struct, frozen=True):
    """Labelled rows; several splits are folds, each row reported on once."""

    name: str
    splits: tuple[Split, ...]
    classes: int
    told: str


def digits(quick: bool) -> Data:
    """Return five folds of 1,797 images of handwritten digits: three fifths to train, one to fit, one to report."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images, labels = images.astype(np.float32), labels.astype(np.int64)
    fifth = np.random.default_rng(0).permutation(len(labels)) % 5

    def rows(*which: int) -> tuple[Array, Array]:
        chosen = np.isin(fifth, which)
        return images[chosen], labels[chosen]

    folds = tuple(
        Split(rows(*((k + i) % 5 for i in (2, 3, 4))), rows((k + 1) % 5), rows(k))
        for k in range(1 if quick else 5)
    )
    return Data("digits", folds, 10, "1,797 handwritten digits of 8 × 8 pixels, every one held out once")


def intents(quick: bool) -> Data:
    """Return utterances and their intents; every tenth intent where `quick`."""
    path = (
        Path(os.environ.get("SEMAFORO_DATA", ROOT.parent / "shared" / "data")) / "intent" / "data_full.json"
    )
    if not path.is_file():
        return _made_up()
    with path.open() as file:
        given = json.load(file)
    names = sorted({intent for _, intent in given["train"]})
    if quick:
        names = names[::10]
    number = {name: i for i, name in enumerate(names)}

    def part(key: str) -> tuple[list[str], Array]:
        kept = [(text, number[intent]) for text, intent in given[key] if intent in number]
        return [text for text, _ in kept], np.array([label for _, label in kept], np.int64)

    split = Split(part("train"), part("val"), part("test"))
    told = f"CLINC150, {len(names)} intents, its own split: {len(split.test[1]):,} utterances to report on"
    return Data("clinc150", (split,), len(names), told)


_WORDS = [
    "play",
    "stop",
    "weather",
    "train",
    "bank",
    "call",
    "book",
    "cook",
    "clean",
    "drive",
    "read",
    "sleep",
]
_FILLERS = ["please", "now", "can", "you", "the", "a", "my", "for", "me", "today", "again", "soon", "maybe"]


def _made_up() -> Data:
    rng = np.random.default_rng(0)

    def part(rows: int) -> tuple[list[str], Array]:
        labels = rng.integers(0, len(_WORDS), rows)
        said = []
        for label in labels:
            others = rng.choice(_FILLERS, 4).tolist()
            wrong = [_WORDS[rng.integers(len(_WORDS))]] if rng.random() < 0.4 else []
            said.append(" ".join(rng.permutation([_WORDS[label], *others, *wrong])))
        return said, labels.astype(np.int64)

    told = "twelve made-up intents, for want of CLINC150: figures mean nothing beyond that everything runs"
    return Data("clinc150", (Split(part(1200), part(600), part(900)),), len(_WORDS), told)
