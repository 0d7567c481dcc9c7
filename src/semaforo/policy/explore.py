"""Trying what does not look best, so that the router goes on learning: how much of it, and what.

Rules this module keeps:

1. At most a share of requests is answered by another variant than the best one: live exploration.
2. It is safe: what is tried live is worth, by the lower end of its interval, at most `max_loss` less than the best
   is believed to be. What falls short of that is tried in the shadow: on a copy whose answer nobody waits for.
3. Every choice has a known probability (its propensity), so that what is logged can judge other policies. It is
   exact: even Thompson's chances are worked out, and the pick is drawn from what was worked out.
4. What is safe is never left out: a `FLOOR` of the share is spread evenly, however sure a method is, since what is
   bad today may be repaired tomorrow.

The methods, by how they spread the rest of the share:

* ``epsilon``: evenly.
* ``linucb``: all of it to the one that could be best: what it seems to be worth plus a standard deviation (Li et
  al., WWW 2010); evenly where that is the best one itself.
* ``thompson``: each as often as it is likely to be the best (Thompson, Biometrika 25, 1933), up to the share.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import erf, sqrt
from operator import add, mul, sub, truediv

import msgspec

from semaforo.entities import Exploration

FLOOR = 0.5
_BITS = 11
_SCALE = 1.0 / (1 << 53)
_CELLS = 12
_REACH = 3.0
_ROOT = sqrt(0.5)


class Arm(msgspec.Struct, frozen=True, gc=False):
    """A variant that could answer.

    Attributes:
        variant: Its id.
        believed: Quality 0…1 that is believed.
        low: Lower end of its interval.
        free: Whether a replica could take the request at once.
        metered: Whether each use costs money.
        behind: Quality by which it falls short of looking best, all things considered; 0 for the best one.
        spread: Standard deviation of its quality, as far as is known.
    """

    variant: str
    believed: float
    low: float
    free: bool
    metered: bool
    behind: float = 0.0
    spread: float = 0.0


class Trial(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one request.

    Attributes:
        pick: Variant that answers.
        propensity: Probability with which this was picked.
        shadow: Variant that a copy is asked of, "" = none.
    """

    pick: str
    propensity: float
    shadow: str = ""


def tried(best: str, arms: Sequence[Arm], explore: Exploration, chance: int) -> Trial:
    """Decide whether a request explores.

    Args:
        best: Variant with the best score.
        arms: All variants that may answer, the best one included.
        explore: How much may be explored.
        chance: A random number of 64 bits.
    """
    first = next(arm for arm in arms if arm.variant == best)
    least = first.believed - explore.max_loss
    others = [arm for arm in arms if arm.variant != best]
    safe = [arm for arm in others if arm.free and arm.low >= least]
    draw = (chance >> _BITS) * _SCALE
    shares = spread_over(first, safe, explore)
    share = 0.0
    for arm, own in zip(safe, shares, strict=True):
        share += own
        if draw < share:
            return Trial(arm.variant, own)
    unsafe = [arm for arm in others if arm.low < least and not arm.metered]
    if unsafe and explore.shadow > 0.0:
        # What is left of the draw is even again, and picks among them.
        left = (draw - share) / (1.0 - share)
        if left < explore.shadow:
            at = min(len(unsafe) - 1, int(left / explore.shadow * len(unsafe)))
            return Trial(best, 1.0 - share, unsafe[at].variant)
    return Trial(best, 1.0 - share)


def spread_over(best: Arm, safe: Sequence[Arm], explore: Exploration) -> list[float]:
    """Return the probability of each variant that is safe to try; the sum is at most the share."""
    n = len(safe)
    if not n or not explore.share:
        return [0.0] * n
    if explore.by == "epsilon":
        return [explore.share / n] * n
    even, rest = FLOOR * explore.share / n, (1.0 - FLOOR) * explore.share
    if explore.by == "linucb":
        could = [arm.spread - arm.behind for arm in safe]
        top = max(could)
        if top <= best.spread:
            return [explore.share / n] * n
        at = could.index(top)
        return [even + rest if i == at else even for i in range(n)]
    wishes = likely_best([best, *safe])[1:]
    wanted = sum(wishes)
    scale = rest / wanted if wanted > rest else 1.0
    return [even + scale * wish for wish in wishes]


def likely_best(arms: Sequence[Arm]) -> list[float]:
    """Return how likely each is the best of all, its worth being normal; exact for two, near to it for more."""
    means = [-arm.behind for arm in arms]
    spreads = [max(arm.spread, 1e-6) for arm in arms]
    if len(arms) == 2:
        apart = (means[0] - means[1]) / sqrt(spreads[0] ** 2 + spreads[1] ** 2)
        first = _below(apart)
        return [first, 1.0 - first]
    # One arm lies in a cell, and all others below it.
    ends = [_REACH * s for s in spreads]
    low = max(map(sub, means, ends))
    wide = (max(map(add, means, ends)) - low) / _CELLS
    edges = [low + i * wide for i in range(_CELLS + 1)]
    masses, below = [], []
    whole = [1.0] * (_CELLS + 2)
    for mean, spread in zip(means, spreads, strict=True):
        scale = _ROOT / spread
        column = [0.0, *[0.5 + 0.5 * erf((edge - mean) * scale) for edge in edges], 1.0]
        masses.append(list(map(sub, column[1:], column)))
        middle = [0.5 * (a + b) + 1e-12 for a, b in pairwise(column)]
        below.append(middle)
        whole = list(map(mul, whole, middle))
    found = [
        sum(map(mul, mass, map(truediv, whole, middle))) for mass, middle in zip(masses, below, strict=True)
    ]
    total = sum(found)
    return [value / total for value in found]


def _below(z: float) -> float:
    return 0.5 * (1.0 + erf(z * _ROOT))
