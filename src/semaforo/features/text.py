"""What a text looks like, whatever it says: numbers that mean the same in every domain.

All of it is counted in one pass over the characters and one over the words; a text of a hundred words takes some
tens of microseconds. Of a very long text only the first and last `REACH` characters are looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from math import log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from semaforo.features.language import LANGUAGE_NUMBERS, language_vector

REACH = 4000
"""Characters at each end of a text that are looked at."""

WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
"""Words, whole numbers and single signs."""

_DIGIT, _UPPER, _LETTER, _SPACE, _FORMULA, _BLANK, _QUOTE, _COMMA, _STOP, _ASKING, _OTHER = range(11)
_NEGATIONS = frozenset(("not", "except", "never", "no", "false", "none", "neither", "without", "least"))
_QUESTIONS = frozenset(("which", "what", "who", "when", "where", "why", "how"))
_COMPUTING = frozenset(
    ("calculate", "compute", "find", "solve", "many", "much", "total", "each", "sum", "average")
)
_PERSONS = frozenset(("i", "he", "she", "my", "his", "her", "you", "your", "we", "they", "their"))
_CONDITIONS = frozenset(("if", "then", "suppose", "assume", "given", "let", "when", "unless"))
_LONG = 8


def _classes() -> NDArray[np.uint8]:
    table = np.full(256, _OTHER, np.uint8)
    for code in range(256):
        sign = chr(code)
        if sign.isdigit():
            table[code] = _DIGIT
        elif sign.isupper():
            table[code] = _UPPER
        elif sign.isalpha():
            table[code] = _LETTER
        elif sign.isspace():
            table[code] = _SPACE
    for signs, kind in (
        ("$\\^=+*/<>{}[]()%|", _FORMULA), ("_", _BLANK), ("\"'`", _QUOTE), (",;", _COMMA), (".!:", _STOP),
        ("?", _ASKING),
    ):  # fmt: skip
        for sign in signs:
            table[ord(sign)] = kind
    return table


_CLASS = _classes()
TEXT_NUMBERS = (
    "text.length", "text.words", "text.lines", "text.word_mean", "text.word_max", "text.word_spread",
    "text.long_words", "text.digits", "text.numbers", "text.upper", "text.formula", "text.other",
    "text.beyond_latin", "text.questions", "text.stops", "text.commas", "text.blanks", "text.quotes",
    "text.variety", "text.line_mean", "text.line_spread", "text.line_max", "text.line_min",
    "text.first_line", "text.negations", "text.asking", "text.computing", "text.persons",
    "text.conditions", *LANGUAGE_NUMBERS,
)  # fmt: skip
"""Names of the features, in the order of `text_vector`."""


def looked_at(text: str) -> str:
    """Return the part of a text that is looked at."""
    return text if len(text) <= 2 * REACH else f"{text[:REACH]}\n{text[-REACH:]}"


def words_of(text: str) -> list[str]:
    """Return the words, numbers and signs of a text in lower case."""
    return WORD.findall(looked_at(text).lower())


def text_vector(text: str, words: list[str] | None = None) -> NDArray[np.float64]:
    """Return the features of a text in the order of `TEXT_NUMBERS`.

    Args:
        text: Any text.
        words: Its `words_of`, where somebody has them already.
    """
    seen = looked_at(text)
    if words is None:
        words = words_of(text)
    size = len(seen) or 1
    codes = np.frombuffer(seen.encode("latin-1", "ignore"), np.uint8)
    counts = np.bincount(_CLASS.take(codes), minlength=11).tolist()
    beyond = 0
    if not seen.isascii():
        signs = np.frombuffer(seen.encode("utf-32-le", "surrogatepass"), np.uint32)
        beyond = int((signs > 255).sum())
    # There are but a few lengths: they are counted once, and sums go over the counts.
    lengths = Counter(map(len, words)) or {0: 1}
    lines = [len(line) for line in seen.split("\n")]
    rest = lines[1:] or [0]
    n = len(words) or 1
    mean, line = sum(k * often for k, often in lengths.items()) / n, sum(rest) / len(rest)
    square = sum(k * k * often for k, often in lengths.items()) / n
    unlike = set(words)
    numbers = counts[_DIGIT]
    return np.array([
        log1p(len(text)), log1p(n), len(lines), mean, max(lengths), sqrt(max(0.0, square - mean * mean)),
        sum(often for k, often in lengths.items() if k > _LONG) / n, numbers / size, log1p(numbers),
        counts[_UPPER] / size, counts[_FORMULA] / size, counts[_OTHER] / size, beyond / size,
        min(counts[_ASKING], 10), counts[_STOP] / n, counts[_COMMA] / n, min(counts[_BLANK], 20),
        min(counts[_QUOTE], 20), len(unlike) / n, line, _spread(rest, line), max(rest), min(rest), lines[0],
        _often(words, unlike, _NEGATIONS), _often(words, unlike, _QUESTIONS), _often(words, unlike, _COMPUTING),
        _often(words, unlike, _PERSONS), _often(words, unlike, _CONDITIONS),
        *language_vector(seen, unlike),
    ], np.float64)  # fmt: skip


def text_numbers(text: str) -> dict[str, float]:
    """Return the features of a text by name."""
    return dict(zip(TEXT_NUMBERS, text_vector(text).tolist(), strict=True))


def _often(words: list[str], unlike: set[str], wanted: frozenset[str]) -> float:
    found = unlike & wanted
    return float(min(10, sum(words.count(word) for word in found))) if found else 0.0


def _spread(values: list[int], mean: float) -> float:
    return sqrt(max(0.0, sum(value * value for value in values) / len(values) - mean * mean))
