"""What is believed of a variant's quality, from what was measured of it and from what came back since.

Rules this module keeps:

1. The belief is the mean of a Beta posterior: the quality that was measured counts as `MEASURED` answers, one
   that nobody measured as `ASSUMED`, and every score 0…1 as one answer, or a part of one. Old answers fade: they
   count 1 - 1/`MEMORY` of what they did for each new one.
2. A change, by `SHIFT` in quality or, where each answer was foretold, by `ODDS`, is looked for in both directions
   by a CUSUM of likelihood ratios (Page, Biometrika 41, 1954; Lorden, Ann. Math. Statist. 42, 1971). For scores in
   0…1 the ratio of two Bernoulli likelihoods has a mean of at most 1 while nothing has changed, so that a false
   alarm comes at most once in `FALSE_ALARM` answers.
3. After an alarm only what came since the change counts: what was believed before is forgotten.
4. Sums are kept, so two beliefs that began alike merge by adding (`merged`).
"""

from __future__ import annotations

from math import log, sqrt

import msgspec

MEASURED = 50.0
ASSUMED = 2.0
MEMORY = 2000.0
FALSE_ALARM = 10_000.0
SHIFT = 0.2
ODDS = 5.0
NOTABLE = 0.01
_LIMIT = log(FALSE_ALARM)
_EDGE = 0.01
_FADE = 1.0 - 1.0 / MEMORY


class Watch(msgspec.Struct):
    """One direction of the search for a change: the statistic, and the answers since it was last zero."""

    level: float = 0.0
    good: float = 0.0
    weight: float = 0.0


class Posterior(msgspec.Struct):
    """The quality of one variant as it is believed to be.

    Attributes:
        prior: Quality (0…1) it was believed to have at first, or since the last change.
        prior_weight: Answers that counts as.
        good, weight: Scores, and answers, since then, faded.
        shown: The mean that decisions use; it follows the true one in steps of `NOTABLE`.
        given: Scores taken in, ever.
        changes: Changes found, ever.
        worse, better: The search for a change.
    """

    prior: float
    prior_weight: float
    good: float = 0.0
    weight: float = 0.0
    shown: float = 0.0
    given: int = 0
    changes: int = 0
    worse: Watch = msgspec.field(default_factory=Watch)
    better: Watch = msgspec.field(default_factory=Watch)

    @property
    def mean(self) -> float:
        """The posterior mean, 0…1."""
        return (self.prior * self.prior_weight + self.good) / (self.prior_weight + self.weight)

    @property
    def answers(self) -> float:
        """Answers it rests on, those that the prior counts as included."""
        return self.prior_weight + self.weight

    @property
    def spread(self) -> float:
        """The standard deviation of the posterior."""
        mean = self.mean
        return sqrt(max(0.0, mean * (1.0 - mean) / (self.answers + 1.0)))

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Return Wilson's interval (J. Am. Stat. Assoc. 22, 1927) for `z` standard errors."""
        n, p = self.answers, self.mean
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return max(0.0, middle - half), min(1.0, middle + half)

    def learn(self, score: float, weight: float = 1.0, expected: float | None = None) -> bool:
        """Take in a score; tell whether `shown` has moved.

        Args:
            score: 0…1.
            weight: Answers it counts as, above 0 and up to 1.
            expected: What it was likely to be on this very request, against which a change is looked for;
                None = the mean.
        """
        before = min(1.0 - _EDGE, max(_EDGE, self.mean if expected is None else expected))
        if expected is None:
            worse, better = _lower(before), 1.0 - _lower(1.0 - before)
        else:
            worse, better = _at_odds(before, 1.0 / ODDS), _at_odds(before, ODDS)
        self.given += 1
        self.prior_weight *= _FADE
        self.good = self.good * _FADE + weight * score
        self.weight = self.weight * _FADE + weight
        for watch, other in ((self.worse, worse), (self.better, better)):
            if _watch(watch, before, other, score, weight):
                self._forget(watch)
                break
        return self._show()

    def _forget(self, watch: Watch) -> None:
        self.changes += 1
        self.prior, self.prior_weight = watch.good / watch.weight, watch.weight
        self.good = self.weight = 0.0
        self.worse, self.better = Watch(), Watch()
        self.shown = -1.0

    def _show(self) -> bool:
        mean = self.mean
        if abs(mean - self.shown) < NOTABLE:
            return False
        self.shown = mean
        return True


def begun(measured: float | None, assumed: float = 0.5) -> Posterior:
    """Return what is believed before any answer came back."""
    prior, weight = (assumed, ASSUMED) if measured is None else (measured, MEASURED)
    return Posterior(float(prior), weight, shown=float(prior))


def merged(one: Posterior, other: Posterior) -> Posterior:
    """Return what two gateways believe together that began with the same prior.

    Where they have seen unlike numbers of changes, the one that has seen more is right: the other is late.
    """
    if one.changes != other.changes:
        late, right = sorted((one, other), key=lambda p: p.changes)
        return msgspec.structs.replace(right, given=right.given + late.given)
    both = Posterior(
        (one.prior + other.prior) / 2.0,
        min(one.prior_weight, other.prior_weight)
        if not one.changes
        else one.prior_weight + other.prior_weight,
        one.good + other.good,
        one.weight + other.weight,
        given=one.given + other.given,
        changes=one.changes,
    )
    both.shown = both.mean
    return both


def _lower(quality: float) -> float:
    return quality - SHIFT if quality > 2.0 * SHIFT else quality / 2.0


def _at_odds(quality: float, times: float) -> float:
    # Where an answer was sure to be bad, a bad one says nothing of a change, as it would with a `SHIFT`.
    odds = times * quality / (1.0 - quality)
    return odds / (1.0 + odds)


def _watch(watch: Watch, usual: float, other: float, score: float, weight: float) -> bool:
    """Move the statistic by one score; tell whether it is over its limit."""
    step = score * log(other / usual) + (1.0 - score) * log((1.0 - other) / (1.0 - usual))
    watch.level += weight * step
    if watch.level <= 0.0:
        watch.level = watch.good = watch.weight = 0.0
        return False
    watch.good += weight * score
    watch.weight += weight
    return watch.level >= _LIMIT
