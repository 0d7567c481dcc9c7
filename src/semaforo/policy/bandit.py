"""What a variant is worth on requests like this one, learned from the scores of those alone that it answered.

Rules this module keeps:

1. A variant has a ridge regression of scores on the features of requests. It is centred on what is believed of the
   variant at large: where it has seen little that is like a request, it says what the posterior says.
2. It is made of sums, so that two gateways know together what one would have known, and fades by shrinking them.
3. An update is Sherman and Morrison's (Ann. Math. Statist. 21, 1950), in time (features)². After `EVERY` of them
   the inverse is worked out anew, older answers fade, and rounding starts over.
4. It counts as far as it has foretold scores better than the posterior alone, by the likelihood ratio of the two
   (Dawid, J. R. Stat. Soc. A 147, 1984), so that features which tell nothing do no harm. What was trusted and has
   misled since is forgotten: what depends on the request may change though the mean does not.
5. Features come by name, the first `MOST` that are seen; one that a request lacks is 0.

How picks follow: `policy.explore`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from operator import mul, sub

import msgspec

from semaforo.policy.posterior import FALSE_ALARM

MOST = 8
"""Features beside the constant: as many as an update in some tens of microseconds allows."""
RIDGE = 10.0
EVERY = 64
MEMORY = 2000.0
PROOF = 30.0
NOISE = 0.5
"""Standard deviation of a score 0…1 about its mean: it cannot be more."""
_MOST_CREDIT = log(FALSE_ALARM) / 2.0
_EDGE = 0.01
_FADE = (1.0 - 1.0 / MEMORY) ** EVERY

Vector = list[float]


class Ridge(msgspec.Struct):
    """A regression of the scores of one variant.

    Attributes:
        names: Of the features, beside the constant 1 in front of them.
        level: What scores were thought to be at large when it began, 0…1: it learns the difference.
        inverse: (d, d) row by row: inverse of the faded sum of x xᵀ, plus the ridge.
        weights: (d,).
        answers: Scores it rests on, faded.
        fresh: Scores taken in since the inverse was last worked out.
        credit: How much better than the posterior alone it has foretold scores of late, as the logarithm of the
            likelihood ratio; a few at most, either way.
        proven: Whether it has had the most credit.
    """

    names: list[str]
    level: float
    inverse: Vector
    weights: Vector
    answers: float = 0.0
    fresh: int = 0
    credit: float = 0.0
    proven: bool = False

    @property
    def trust(self) -> float:
        """How much of what it says counts, 0…1."""
        return 1.0 / (1.0 + exp(-self.credit))

    def vector(self, context: Mapping[str, float]) -> Vector:
        """Return the features of a request in order."""
        get = context.get
        return [1.0, *[get(name, 0.0) for name in self.names]]

    @property
    def explains(self) -> bool:
        """Whether an answer as it has foretold is no sign of a change."""
        return self.proven and self.answers >= PROOF

    def tested(self, score: float, weight: float, usual: float, gain: float) -> bool:
        """Weigh what it has said against a score; tell whether it has misled and has to begin anew.

        Args:
            score: 0…1.
            weight: Answers it counts as.
            usual: What the score was to be at large.
            gain: What `guesses` added to that for this request.
        """
        p, q = (min(1.0 - _EDGE, max(_EDGE, value)) for value in (usual + gain / self.trust, usual))
        step = score * log(p / q) + (1.0 - score) * log((1.0 - p) / (1.0 - q))
        self.credit = min(_MOST_CREDIT, max(-_MOST_CREDIT, self.credit + weight * step))
        self.proven = self.proven or self.credit == _MOST_CREDIT
        return self.proven and self.credit == -_MOST_CREDIT

    def learn(self, context: Mapping[str, float], score: float, weight: float = 1.0) -> None:
        """Take in a score 0…1, less what was predicted beforehand, that counts as `weight` answers."""
        for name in context:
            if name not in self.names and len(self.names) < MOST:
                self._widen(name)
        x = self.vector(context)
        d = len(x)
        along = [sum(map(mul, self.inverse[i : i + d], x)) for i in range(0, d * d, d)]
        step = weight / (1.0 + weight * sum(map(mul, along, x)))
        scaled = [step * value for value in along]
        self.inverse = list(map(sub, self.inverse, [p * q for p in scaled for q in along]))
        miss = score - self.level - sum(map(mul, self.weights, x))
        self.weights = [w + miss * value for w, value in zip(self.weights, scaled, strict=True)]
        self.answers += weight
        self.fresh += 1
        if self.fresh >= EVERY:
            self._renew(_FADE)

    def _widen(self, name: str) -> None:
        d = 1 + len(self.names)
        rows = [[*self.inverse[i : i + d], 0.0] for i in range(0, d * d, d)]
        rows.append([0.0] * d + [1.0 / RIDGE])
        self.names = [*self.names, name]
        self.inverse = [value for row in rows for value in row]
        self.weights = [*self.weights, 0.0]

    def _renew(self, fade: float) -> None:
        squares, sides = _sums(self)
        d = len(sides)
        _settle(self, [fade * v for v in squares], [fade * v for v in sides], d)
        self.answers *= fade


class Guess(msgspec.Struct, frozen=True, gc=False):
    """What a variant is likely to be worth on one request.

    Attributes:
        gain: Beyond what it is worth at large, -1…1.
        spread: Standard deviation of what it may be worth on requests like this, as far as is known.
        error: Standard error of `gain`, which is small while little was learned and little is gained.
    """

    gain: float
    spread: float
    error: float


def begun(level: float) -> Ridge:
    """Return what is known of requests before any score came back.

    Args:
        level: What the variant is believed to be worth at large, 0…1.
    """
    return Ridge([], level, [1.0 / RIDGE], [0.0])


def guesses(known: Sequence[tuple[Ridge | None, float]], context: Mapping[str, float]) -> list[Guess]:
    """Tell what variants are likely to be worth on a request.

    Args:
        known: Of each, what was learned (None = nothing), and what it is believed to be worth at large, 0…1.
        context: Features of the request.
    """
    blank = NOISE * sqrt((1.0 + sum(v * v for v in context.values())) / RIDGE)
    found = []
    names: list[str] | None = None
    for ridge, usual in known:
        if ridge is None:
            found.append(Guess(0.0, blank, 0.0))
            continue
        if ridge.names != names:
            names = ridge.names
            x = ridge.vector(context)
            square = [p * q for p in x for q in x]
            length = sum(map(mul, x, x))
        inverse = ridge.inverse
        unsure = max(0.0, sum(map(mul, inverse, square)))
        # Ridge regression about `usual` instead of `level`, in closed form: the first feature is 1.
        left = RIDGE * sum(map(mul, inverse, x))
        gain = sum(map(mul, ridge.weights, x)) + (ridge.level - usual) * (1.0 - left)
        # The part of the doubt that comes from the scores; the rest is what was never seen.
        heard = max(0.0, 1.0 - RIDGE * unsure / length)
        trust = ridge.trust
        gain = trust * min(1.0, max(-1.0, gain))
        found.append(Guess(gain, NOISE * sqrt(unsure), trust * NOISE * sqrt(unsure * heard)))
    return found


def merged(one: Ridge, other: Ridge) -> Ridge:
    """Return what two gateways know together that began apart."""
    names = [*one.names, *(n for n in other.names if n not in one.names)][:MOST]
    d = 1 + len(names)
    squares, sides = [0.0] * (d * d), [0.0] * d
    for ridge in (one, other):
        own = 1 + len(ridge.names)
        at = [0, *(1 + names.index(n) if n in names else -1 for n in ridge.names)]
        its_squares, its_sides = _sums(ridge)
        for i, to in enumerate(at):
            if to < 0:
                continue
            # In differences from the level of the first.
            sides[to] += its_sides[i] + (ridge.level - one.level) * its_squares[i]
            for j, beside in enumerate(at):
                if beside >= 0:
                    squares[to * d + beside] += its_squares[i * own + j]
    both = Ridge(names, one.level, [], [], one.answers + other.answers)
    both.credit = min(_MOST_CREDIT, max(-_MOST_CREDIT, one.credit + other.credit))
    both.proven = one.proven or other.proven
    _settle(both, squares, sides, d)
    return both


def _sums(ridge: Ridge) -> tuple[Vector, Vector]:
    """Return the sums of x xᵀ (d, d) and of x times score (d,) that a regression rests on."""
    d = len(ridge.weights)
    squares = inverted(ridge.inverse, d)
    sides = [sum(map(mul, squares[i : i + d], ridge.weights)) for i in range(0, d * d, d)]
    squares[:: d + 1] = [value - RIDGE for value in squares[:: d + 1]]
    return squares, sides


def _settle(ridge: Ridge, squares: Vector, sides: Vector, d: int) -> None:
    squares = list(squares)
    squares[:: d + 1] = [value + RIDGE for value in squares[:: d + 1]]
    ridge.inverse = inverse = inverted(squares, d)
    ridge.weights = [sum(map(mul, inverse[i : i + d], sides)) for i in range(0, d * d, d)]
    ridge.fresh = 0


def inverted(matrix: Vector, d: int) -> Vector:
    """Return the inverse of a symmetric positive definite matrix (d, d), by Gauss and Jordan.

    No row is exchanged for another: every pivot of such a matrix is positive.
    """
    rows = [matrix[i * d : i * d + d] + [float(i == j) for j in range(d)] for i in range(d)]
    for i in range(d):
        pivot = 1.0 / rows[i][i]
        lead = rows[i] = [value * pivot for value in rows[i]]
        for j in range(d):
            factor = rows[j][i]
            if j != i and factor:
                rows[j] = [value - factor * p for value, p in zip(rows[j], lead, strict=True)]
    # Alike on both sides of the diagonal, whatever rounding says.
    return [0.5 * (rows[i][d + j] + rows[j][d + i]) for i in range(d) for j in range(d)]
