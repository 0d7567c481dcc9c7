"""Two ways to serve, compared while they serve: a test that may be looked at after every answer.

Which of the two serves a request is drawn with a known probability *p*, so that each judged answer gives a number
whose mean, given all that came before, is what the candidate's score is ahead of the other's:

    X = (m₁ - m₀) + A/p (Y - m₁) - (1 - A)/(1 - p) (Y - m₀)

with A = 1 where the candidate served, Y the score, and m₁, m₀ guesses of the mean scores from the answers before
(doubly robust, as in Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, arXiv 2210.10768). Where both would have
done the same X is 0, since nothing is at stake: that is known before anybody serves, and takes no chance with it.

Whether the mean is above some *d* is bet on: a capital that is multiplied by 1 + λ (X - d) cannot be expected to
grow where it is not, and reaches 1/α with a probability of at most α, whenever one looks (Ville's inequality). λ is
a fixed share of the most that cannot ruin the bet; several shares are played, each with a part of the capital
(Waudby-Smith and Ramdas, arXiv 2010.09686). The scores need only be in 0…1: they may drift,
and *p* may change, since it is known before each bet. Feedback has to be as likely for the one as for the other;
guesses that are right make up for it where it is not.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["better", "not worse", "worse", "cannot tell yet"]

LEVEL = 0.05
MOST_SHARE = 0.9
"""A candidate that serves more than this leaves too little to compare it with."""
_SHARES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.9)
_STEP = 0.05
_PRIOR = 5.0
_RICH = 1e9


class Arm(msgspec.Struct):
    """What came of one of the two.

    Attributes:
        count: Answers that something was said of.
        total: Sum of what was said of them, 0…1 each.
        apart, apart_total: The same of those on which the two would not have done alike.
    """

    count: int = 0
    total: float = 0.0
    apart: int = 0
    apart_total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean score, None without one."""
        return self.total / self.count if self.count else None


class Comparison(msgspec.Struct):
    """How much more the candidate gets than what is in service; `begun` makes one.

    Attributes:
        margin: What the candidate may be behind and still count as not worse.
        level: Probability (0…1) with which its verdict may ever be wrong, and so may its interval.
        at: Differences that are bet on, ascending.
        above, below: For each of `at`, the capitals of the bets that the truth is above it, and below it.
        passed, failed: For each of `at`: shown to be above it; shown to be below it.
        candidate, service: The two.
    """

    margin: float
    level: float
    at: list[float]
    above: list[list[float]]
    below: list[list[float]]
    passed: list[bool]
    failed: list[bool]
    candidate: Arm = msgspec.field(default_factory=Arm)
    service: Arm = msgspec.field(default_factory=Arm)

    def add(
        self, score: float, by_candidate: bool, share: float, *, apart: bool = True, weight: float = 1.0
    ) -> None:
        """Take in what one answer was worth.

        Args:
            score: 0…1.
            by_candidate: Who served.
            share: Probability with which the candidate was to serve it, above 0 and up to `MOST_SHARE`.
            apart: Whether the two would have done something else, as far as was known before either served.
            weight: How much it counts, up to 1.
        """
        common = (self.candidate.apart_total + self.service.apart_total + 0.5) / (
            self.candidate.apart + self.service.apart + 1.0
        )
        one, other = _guess(self.candidate, common), _guess(self.service, common)
        ahead = one - other
        low = ahead - max(one / share, (1.0 - other) / (1.0 - share))
        high = ahead + max((1.0 - one) / share, other / (1.0 - share))
        arm = self.candidate if by_candidate else self.service
        arm.count += 1
        arm.total += score
        x = 0.0
        if apart:
            arm.apart += 1
            arm.apart_total += score
            x = (score - one) / share if by_candidate else (other - score) / (1.0 - share)
            x += ahead
        low, high = min(low, 0.0), max(high, 0.0)
        for i, d in enumerate(self.at):
            if not self.passed[i]:
                self.passed[i] = self._bet(self.above[i], weight * (x - d) / (d - low))
            if not self.failed[i]:
                self.failed[i] = self._bet(self.below[i], weight * (d - x) / (high - d))

    def _bet(self, capital: list[float], odds: float) -> bool:
        """Play one round at `odds` of -1 or more; tell whether the capital is large enough to be a proof."""
        for k, part in enumerate(_SHARES):
            capital[k] = min(_RICH, capital[k] * (1.0 + part * odds))
        return sum(capital) * self.level >= 2.0 * len(_SHARES)

    @property
    def verdict(self) -> Verdict:
        """What has been shown; it is ever wrong with a probability of at most `level`."""
        edge, zero = self.at.index(-self.margin), self.at.index(0.0)
        if self.failed[edge]:
            return "worse"
        if self.passed[zero]:
            return "better"
        return "not worse" if self.passed[edge] else "cannot tell yet"

    def interval(self) -> tuple[float, float]:
        """Return the ends of what the difference may still be, where it stays the same over time.

        They are ever wrong with a probability of at most `level`.
        """
        low, high = -1.0, 1.0
        for d, passed in zip(self.at, self.passed, strict=True):
            if not passed:
                break
            low = d
        for d, failed in zip(reversed(self.at), reversed(self.failed), strict=True):
            if not failed:
                break
            high = d
        return low, high


def begun(margin: float, *, level: float = LEVEL, fine: bool = True) -> Comparison:
    """Return a comparison that has seen nothing.

    Args:
        margin: What the candidate may be behind and still count as not worse, 0 up to 0.9.
        level: Probability (0…1) with which its verdict may be wrong.
        fine: Whether an interval is wanted; else the verdict alone is bet on.
    """
    steps = round(1.0 / _STEP)
    points = {i * _STEP for i in range(1 - steps, steps)} if fine else set()
    at = sorted({*(round(p, 9) for p in points), -margin, 0.0})
    n, each = len(at), [1.0] * len(_SHARES)
    return Comparison(
        margin, level, at, [[*each] for _ in at], [[*each] for _ in at], [False] * n, [False] * n
    )


def _guess(arm: Arm, common: float) -> float:
    return (arm.apart_total + _PRIOR * common) / (arm.apart + _PRIOR)
