"""Small models of text, for servers and Python models of tests: what they say can be worked out beside them."""

from __future__ import annotations

import re
from zlib import crc32

import numpy as np

WIDTH = 8
LABELS = ("harassment", "violence", "self-harm")
_BAD = {"harassment": {"stupid", "idiot"}, "violence": {"hit", "kill"}, "self-harm": {"cut"}}


def embed(text: str, width: int = WIDTH) -> list[float]:
    """Return a unit vector: the words of a text, hashed into so many places."""
    vector = np.zeros(width, np.float32)
    for word in re.findall(r"\w+", text.lower()) or [""]:
        place = crc32(word.encode())
        vector[place % width] += 1.0 if place & 1 << 20 else -1.0
        vector[place // width % width] += 0.5
    return (vector / (np.linalg.norm(vector) or 1.0)).astype(float).tolist()


def tokens(text: str) -> int:
    """Count words."""
    return max(1, len(text.split()))


def scores(text: str) -> dict[str, float]:
    """Return for each category which share of a few bad words a text has, from 0.01 on."""
    words = set(re.findall(r"\w+", text.lower()))
    return {label: min(0.99, 0.01 + 0.6 * len(words & _BAD[label])) for label in LABELS}
