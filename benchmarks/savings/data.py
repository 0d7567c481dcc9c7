"""Labelled rows of four tasks: texts, images, sounds and tables, each split into four parts.

- *train*: models are trained on it.
- *fit*: thresholds of cascades are fitted on it.
- *judge*: qualities are measured on it, and routers trained.
- *test*: asked of the servers; every figure comes from it, and nothing else does.

Texts are the intents of CLINC150 (`SEMAFORO_DATA`, else made-up ones), images the handwritten digits that
scikit-learn brings, enlarged and taken clean, blurred and with noise; an image is in one part only, whatever is
done to it. Sounds and tables are made here: spoken-like words of two gliding formants in noise, and scikit-learn's
`make_classification` with values missing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from benchmarks.fusion.data import Array, intents

SIDE = 32
RATE = 4000
LONG = 2400
"""Samples of a sound: 0.6 seconds."""
COLUMNS = 24
_WORDS = 12
_SNRS_DB = (15.0, 0.0, -9.0)


class Part(msgspec.Struct, frozen=True):
    """Rows (texts, or an array) and their classes."""

    rows: Any
    truth: Array

    def __len__(self) -> int:
        return len(self.truth)

    def some(self, chosen: Array) -> Part:
        """Return some of the rows, by their places."""
        rows = [self.rows[i] for i in chosen] if isinstance(self.rows, list) else self.rows[chosen]
        return Part(rows, self.truth[chosen])


class Data(msgspec.Struct, frozen=True):
    """One task.

    Attributes:
        name: Of the task.
        field: Name of its input.
        kind: Type of its input in a fleet file.
        classes: Number of classes.
        told: What it is, for the report.
        looks: What a fleet file says of how routers look at its input.
    """

    name: str
    field: str
    kind: str
    classes: int
    train: Part
    fit: Part
    judge: Part
    test: Part
    told: str
    looks: dict[str, Any] = {}


def all_tasks(quick: bool) -> list[Data]:
    """Return the tasks: all four, or small ones of three modalities where `quick`."""
    found = [texts(quick), images(quick), sounds(quick)]
    return found if quick else [*found, tables()]


def texts(quick: bool) -> Data:
    """Return utterances and their intents."""
    found = intents(quick)
    (split,) = found.splits
    held = Part(*split.fit)
    order = np.random.default_rng(0).permutation(len(held))
    half = len(held) // 2
    return Data(
        "intent", "text", "bytes", found.classes, Part(*split.train), held.some(order[:half]),
        held.some(order[half:]), Part(*split.test), found.told,
    )  # fmt: skip


def images(quick: bool) -> Data:
    """Return digits of 32 × 32 pixels (16 × 16 where `quick`) in 0…1: clean, blurred, and with noise."""
    from scipy.ndimage import gaussian_filter, zoom
    from sklearn.datasets import load_digits

    small, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(1)
    chosen = rng.permutation(len(truth))[: 400 if quick else None]
    small, truth = small[chosen].reshape(-1, 8, 8) / 16.0, truth[chosen].astype(np.int64)
    side = SIDE // 2 if quick else SIDE
    large = zoom(small, (1, side // 8, side // 8), order=1)

    def part(at: slice) -> Part:
        clean = large[at]
        blurred = gaussian_filter(clean, (0.0, 0.1 * side, 0.1 * side))
        noisy = clean + rng.normal(0.0, 0.6, clean.shape)
        rows = np.concatenate([clean, blurred, noisy]).astype(np.float32)
        return Part(rows, np.tile(truth[at], 3))

    parts = [part(at) for at in _slices(len(truth))]
    told = (
        f"{len(truth):,} handwritten digits, enlarged to {side} × {side}, each clean, blurred and with noise"
    )
    return Data("digit", "image", f"fp32[{side},{side}]", 10, *parts, told, {"looks": "image"})


def sounds(quick: bool) -> Data:
    """Return made-up words: two formants that glide over three phones, in noise of three strengths."""
    rng = np.random.default_rng(2)
    phones = rng.uniform((250.0, 900.0), (800.0, 1800.0), (_WORDS, 3, 2))
    count = 540 if quick else 6000
    truth = rng.integers(0, _WORDS, count)
    rows = np.stack([_spoken(phones[word], rng) for word in truth]).astype(np.float32)
    parts = [Part(rows[at], truth[at].astype(np.int64)) for at in _slices(count)]
    told = (
        f"{count:,} sounds of {_WORDS} made-up words at {', '.join(f'{s:g}' for s in _SNRS_DB)} dB of noise"
    )
    return Data("word", "sound", f"fp32[{LONG}]", _WORDS, *parts, told, {"looks": "audio", "rate": RATE})


def _spoken(phones: Array, rng: np.random.Generator) -> Array:
    """Speak a word: another voice, pace, pitch and loudness of noise each time."""
    begin, end = rng.uniform(0.02, 0.2), rng.uniform(0.75, 0.98)
    place = (np.linspace(0.0, 1.0, LONG) - begin) / (end - begin)
    voice = rng.uniform(0.93, 1.07)
    tracks = [np.interp(place, (0.15, 0.5, 0.85), phones[:, k]) * voice for k in range(2)]
    pitch = rng.uniform(90.0, 180.0) * (1.0 + 0.05 * np.sin(np.linspace(0.0, rng.uniform(2.0, 6.0), LONG)))
    turns = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.zeros(LONG)
    for harmonic in range(1, int(0.5 * RATE / pitch.max())):
        at = harmonic * pitch
        loud = sum(
            weight / (1.0 + ((at - t) / 90.0) ** 2) for weight, t in zip((1.0, 0.6), tracks, strict=True)
        )
        sound += loud * np.sin(harmonic * turns)
    sound *= (place > 0.0) & (place < 1.0)
    sound /= np.sqrt((sound**2).mean())
    noise = 10.0 ** (-rng.choice(_SNRS_DB) / 20.0)
    return sound + noise * rng.normal(0.0, 1.0, LONG)


def tables() -> Data:
    """Return rows of 24 numbers in five classes of two clusters each, with a tenth of the rows half empty."""
    from sklearn.datasets import make_classification

    count = 12_000
    rows, truth = make_classification(
        count, COLUMNS, n_informative=12, n_redundant=4, n_classes=5, n_clusters_per_class=2, class_sep=2.2,
        flip_y=0.01, random_state=3,
    )  # fmt: skip
    rng = np.random.default_rng(4)
    half_empty = rng.random(count) < 0.1
    rows[half_empty[:, None] & (rng.random(rows.shape) < 0.5)] = np.nan
    parts = [Part(rows[at].astype(np.float32), truth[at].astype(np.int64)) for at in _slices(count)]
    told = f"{count:,} made rows of {COLUMNS} numbers (make_classification), a tenth of them half empty"
    return Data("kind", "features", f"fp32[{COLUMNS}]", 5, *parts, told, {"looks": "table"})


def _slices(count: int) -> list[slice]:
    """Return half of the rows to train, a sixth each to fit and to judge, and a sixth to test."""
    ends = [0, count // 2, count * 2 // 3, count * 5 // 6, count]
    return [slice(a, b) for a, b in pairwise(ends)]
