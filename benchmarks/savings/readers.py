"""Readers of texts, as the fleet serves them: a linear one by words, several at once, and a sentence encoder.

The encoder is all-MiniLM-L6-v2 (Wang et al., 2020; Apache 2.0), six layers of a transformer that was trained on a
billion pairs of sentences, with a linear layer on top. Its tokens are WordPiece (Wu et al., 2016).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fusion.data import Array

_WORD = re.compile(r"\w+")
_PIECES = re.compile(r"\w+|[^\w\s]")
_LONGEST = 32
_BEGIN, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"

Answer = dict[str, Array]


def terms(text: str) -> list[str]:
    """Return words and pairs of words."""
    words = _WORD.findall(text.lower())
    return words + [f"{a} {b}" for a, b in pairwise(words)]


class Words:
    """A linear model on the words of a text and their pairs; `path` is what `training.words` wrote."""

    def __init__(self, path: str) -> None:
        kept = np.load(path)
        self._place = {term: i for i, term in enumerate(kept["terms"].tolist())}
        self._weights, self._bias, self._rarity = kept["weights"], kept["bias"], kept["rarity"]

    def __call__(self, text: list[str]) -> Answer:
        """Answer rows."""
        return _answer(np.stack([self._scores(one) for one in text]))

    def _scores(self, text: str) -> Array:
        counts: dict[int, int] = {}
        for term in terms(text):
            place = self._place.get(term)
            if place is not None:
                counts[place] = counts.get(place, 0) + 1
        if not counts:
            return self._bias
        at = np.fromiter(counts, np.int64)
        values = (1.0 + np.log(np.fromiter(counts.values(), np.float32))) * self._rarity[at]
        values /= np.sqrt(values @ values)
        found: Array = values @ self._weights[at] + self._bias
        return found


class Readers:
    """The mean of several scikit-learn pipelines; `path` is what `training.several` wrote."""

    def __init__(self, path: str) -> None:
        import joblib

        self._members: list[Any] = joblib.load(path)

    def __call__(self, text: list[str]) -> Answer:
        """Answer rows."""
        found = np.mean([member(text) for member in self._members], axis=0)
        return {"label": found.argmax(axis=1), "probabilities": found.astype(np.float32)}


class Sentences:
    """The sentence encoder with its linear layer: an ONNX file and ``vocab.txt`` beside it."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._tokens = Tokens(Path(path).with_name("vocab.txt"))

    def __call__(self, text: list[str]) -> Answer:
        """Answer rows."""
        ids, mask = self._tokens.batch(text)
        (scores,) = self._session.run(["scores"], {"ids": ids, "mask": mask})
        return _answer(scores)


class Tokens:
    """WordPiece: the longest known piece from the left, again and again."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").splitlines()
        self._number = {piece: i for i, piece in enumerate(lines)}

    def batch(self, texts: Iterable[str]) -> tuple[Array, Array]:
        """Return numbers of tokens ``(rows, longest)`` and which of them are there."""
        rows = [self.row(text) for text in texts]
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return ids, mask

    def row(self, text: str) -> list[int]:
        """Return the tokens of a text, the beginning of it where it is long."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        found = [self._number[_BEGIN]]
        for word in _PIECES.findall(plain):
            found += self._pieces(word)
        return [*found[: _LONGEST - 1], self._number[_END]]

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        at = 0
        while at < len(word):
            for end in range(len(word), at, -1):
                number = self._number.get(("##" if at else "") + word[at:end])
                if number is not None:
                    found.append(number)
                    at = end
                    break
            else:
                return [self._number[_UNKNOWN]]
        return found


def _answer(scores: Array) -> Answer:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return {"label": scores.argmax(axis=1), "probabilities": found.astype(np.float32)}
