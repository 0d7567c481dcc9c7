"""Words and pairs of words as a sparse vector: hashed, so that there is no vocabulary to keep.

The weights are the usual ones: 1 + log of how often a word occurs, times its inverse document frequency, scaled to
length 1 (Salton and Buckley, Information Processing & Management 24, 1988).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

BITS = 17
_FIRST, _SECOND, _SHIFT = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(7)

_OFTEN = (1.0 + np.log(np.maximum(np.arange(1 << 12), 1))).astype(np.float32)


class _Hashes(dict[str, int]):
    """Hashes of words: a look-up costs a fifth of a hash, and the same words come again and again."""

    most = 1 << 16

    def __missing__(self, word: str) -> int:
        if len(self) >= self.most:
            self.clear()
        found = self[word] = crc32(word.encode("utf-8", "replace"))
        return found


_hash_of = _Hashes().__getitem__


class Words(msgspec.Struct, frozen=True):
    """Turns words into vectors.

    Attributes:
        slots: (buckets,) column of each bucket of the hash; -1 where too few texts in training had it.
        idf: (v,) inverse document frequency of each column.
    """

    slots: NDArray[np.int32]
    idf: Floats

    def vector(self, words: Sequence[str]) -> tuple[Indices, Floats, float]:
        """Return columns and values of a text's vector, of length 1, and the share of its buckets without a column.

        Args:
            words: What `features.text.words_of` gives.
        """
        found, counts = bags(words, len(self.slots))
        slots = self.slots.take(found)
        known = (slots >= 0).nonzero()[0]
        columns = slots.take(known).astype(np.intp)
        values = _OFTEN.take(counts.take(known), mode="clip")
        values *= self.idf.take(columns)
        norm = sqrt(values.dot(values))
        if norm:
            values /= np.float32(norm)
        return columns, values, 1.0 - len(columns) / len(found) if len(found) else 1.0


def bags(words: Sequence[str], size: int) -> tuple[Indices, Indices]:
    """Return the buckets of words and pairs of words, in order and without repetition, and how often each occurs.

    Args:
        words: Words in order.
        size: Number of buckets, a power of two.
    """
    n = len(words)
    if not n:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    found = np.empty(2 * n - 1, np.uint32)
    single, pairs = found[:n], found[n:]
    single[:] = np.fromiter(map(_hash_of, words), np.uint32, n)
    np.multiply(single[:-1], _FIRST, out=pairs)
    pairs += single[1:] * _SECOND
    pairs >>= _SHIFT
    found &= np.uint32(size - 1)
    # Sorting and comparing with the next one is what `np.unique` does, in a third of its time.
    found.sort()
    begins = np.empty(2 * n, bool)
    begins[0] = begins[-1] = True
    np.not_equal(found[1:], found[:-1], out=begins[1:-1])
    at = begins.nonzero()[0]
    return found.take(at[:-1]).astype(np.intp), at[1:] - at[:-1]


def learned(texts: Sequence[Sequence[str]], *, bits: int = BITS, least: int = 2) -> Words:
    """Learn columns and document frequencies from texts, each given as its words.

    Args:
        texts: Words of each text.
        bits: Buckets of the hash, as a power of two.
        least: Texts that must have a bucket for it to get a column.
    """
    df = np.zeros(1 << bits)
    for words in texts:
        df[bags(words, 1 << bits)[0]] += 1.0
    kept = np.flatnonzero(df >= least)
    slots = np.full(1 << bits, -1, np.int32)
    slots[kept] = np.arange(len(kept), dtype=np.int32)
    idf = np.log((1.0 + len(texts)) / (1.0 + df[kept])) + 1.0
    return Words(slots, idf.astype(np.float32))
