"""What an answer looks like beside its question: signs of whether it will do, whatever model gave it.

Equations that are written out are worked out again, units and signs of currency aside; the numbers of the
question are looked for in the answer; hedging, refusals and repetition are counted. Where samples or probabilities
are there, their agreement and confidence are worth more than all of that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semaforo.entities.final import NUMBER, final_answer, number_of
from semaforo.features.text import looked_at

_EQUATION = re.compile(
    r"((?:[\d.,$%()\s]|[-+*/×÷x·^])+)=\s*\$?(-?\d[\d,]*(?:\.\d+)?|\.\d+)(?P<frac>\s*/\s*\d+)?"
)
_STRIP = re.compile(r"[$,%]")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|[-+*/()]")
_HEDGES = (
    "approximately", "about", "assume", "assuming", "might", "maybe", "perhaps", "probably", "not clear", "unclear",
    "not enough information", "however", "round", "estimate", "seems",
)  # fmt: skip
_REFUSALS = (
    "i cannot",
    "i can't",
    "i'm sorry",
    "as an ai",
    "unable to",
    "i don't know",
    "cannot be determined",
)
_FINAL = ("####", "answer is", "answer:", "therefore", "in total", "final answer", "\\boxed")
ANSWER_NUMBERS = (
    "answer.length", "answer.lines", "answer.longer", "answer.numbers", "answer.equations",
    "answer.wrong", "answer.wrong_share", "answer.unread", "answer.chained", "answer.from_question",
    "answer.unused", "answer.invented", "answer.last", "answer.last_whole", "answer.last_in_question",
    "answer.last_is_result", "answer.last_repeats", "answer.last_round", "answer.negative",
    "answer.hedges", "answer.refusals", "answer.final", "answer.repetition", "answer.percent",
    "answer.question_numbers", "answer.question_length", "answer.largest", "answer.growth",
    "answer.fractions", "answer.cents",
)  # fmt: skip
"""Names of what `answer_vector` gives, in its order."""
_MOST = 64


def answer_vector(question: str, answer: str) -> NDArray[np.float64]:
    """Return what an answer looks like beside its question, in the order of `ANSWER_NUMBERS`."""
    asked, said = looked_at(question), looked_at(answer)
    low = said.lower()
    given = [number_of(m.group(1)) for m in NUMBER.finditer(asked)][:_MOST]
    found = [number_of(m.group(1)) for m in NUMBER.finditer(said)][: 4 * _MOST]
    results, wrong, unread = _equations(said)
    seen = set(given)
    last = found[-1] if found else 0.0
    equal = {round(r, 6) for r in results}
    invented = [v for v in found if v not in seen and round(v, 6) not in equal and v > 2]
    lines = said.strip().split("\n")
    words = low.split()
    largest = max((abs(v) for v in given), default=0.0)
    return np.array([
        np.log1p(len(said)), len(lines), np.log1p(len(said)) - np.log1p(len(asked)), len(found), len(results),
        wrong, wrong / (len(results) or 1), unread, _chained(results, found), len(seen & set(found)),
        len(seen - set(found)), len(invented), np.sign(last) * np.log1p(abs(last)), float(last == int(last)),
        float(last in seen), float(round(last, 6) in equal), min(10, found.count(last)),
        float(last != 0 and last % 10 == 0), float("-" in said and bool(re.search(r"=\s*\$?-\d", said))),
        sum(low.count(word) for word in _HEDGES), sum(low.count(word) for word in _REFUSALS),
        sum(low.count(word) for word in _FINAL), 1.0 - len(set(words)) / (len(words) or 1),
        said.count("%"), len(given), np.log1p(len(asked)), np.log1p(largest),
        np.log1p(abs(last)) - np.log1p(largest), len(re.findall(r"\d\s*/\s*\d", said)),
        len(re.findall(r"\d\.\d", said)),
    ], np.float64)  # fmt: skip


def answer_numbers(question: str, answer: str) -> dict[str, float]:
    """Return the same by name."""
    return dict(zip(ANSWER_NUMBERS, answer_vector(question, answer).tolist(), strict=True))


def scores_numbers(scores: NDArray[np.floating]) -> dict[str, float]:
    """Return confidence, margin and entropy (nats) of one answer's class scores ``(classes,)``."""
    ordered = np.sort(scores.astype(np.float64))[::-1]
    total = ordered.sum()
    shares = ordered / total if total > 0 else np.full(len(ordered), 1.0 / len(ordered))
    entropy = float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())
    margin = float(ordered[0] - ordered[1]) if len(ordered) > 1 else float(ordered[0])
    return {"answer.confidence": float(ordered[0]), "answer.margin": margin, "answer.entropy": entropy}


def agreement_numbers(answers: Sequence[str]) -> dict[str, float]:
    """Return how large a share of several answers to one question agrees, and how many differ."""
    finals = Counter(final_answer(answer) for answer in answers)
    most = finals.most_common(1)[0][1] if finals else 0
    return {"answer.agreement": most / (len(answers) or 1), "answer.unlike": float(len(finals))}


def _equations(text: str) -> tuple[list[float], int, int]:
    """Return the results of all equations, how many are wrong, and how many could not be read."""
    results: list[float] = []
    wrong = unread = 0
    for match in _EQUATION.finditer(text):
        left = match.group(1)
        left = left.rsplit("\n", 1)[-1].strip()
        if not any(sign in left for sign in "+-*/×÷x·") or not any(c.isdigit() for c in left):
            continue
        stated = number_of(_STRIP.sub("", match.group(2)))
        worked = _work_out(left)
        if worked is None:
            unread += 1
            continue
        results.append(stated)
        if match.group("frac"):
            continue
        near = max(0.011, 0.006 * abs(stated))
        # Percent may be written either way.
        if min(abs(worked - stated), abs(worked - stated / 100), abs(worked / 100 - stated)) > near:
            wrong += 1
    return results, wrong, unread


def _work_out(text: str) -> float | None:
    """Return the value of a sum of numbers, or None where it is no sum."""
    plain = _STRIP.sub("", text).replace("×", "*").replace("·", "*").replace("÷", "/").replace("x", "*")
    tokens = _TOKEN.findall(plain)
    if "".join(tokens) != plain.replace(" ", "") or len(tokens) > _MOST:
        return None
    reader = _Sum(tokens)
    try:
        value = reader.terms()
    except (IndexError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    return value if reader.ended else None


class _Sum:
    """Reads a sum by recursive descent."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._tokens)

    def terms(self) -> float:
        value = self._factors()
        while not self.ended and self._tokens[self._at] in "+-":
            sign = self._next()
            other = self._factors()
            value = value + other if sign == "+" else value - other
        return value

    def _factors(self) -> float:
        value = self._number()
        while not self.ended and self._tokens[self._at] in "*/":
            sign = self._next()
            other = self._number()
            value = value * other if sign == "*" else value / other
        return value

    def _number(self) -> float:
        token = self._next()
        if token == "(":
            value = self.terms()
            if self._next() != ")":
                raise ValueError("not closed")
            return value
        if token == "-":
            return -self._number()
        return float(token)

    def _next(self) -> str:
        token = self._tokens[self._at]
        self._at += 1
        return token


def _chained(results: list[float], found: list[float]) -> float:
    """Return how many results are used again, as steps of a calculation are."""
    counts = Counter(found)
    return float(sum(counts[r] > 1 for r in results[:-1]))
