"""Trying what does not look best, so that the router goes on learning: how much of it, and what.

Rules this module keeps:

1. At most a share of requests is answered by another variant than the best one: live exploration.
2. It is safe: what is tried live is worth, by the lower end of its interval, at most `max_loss` less than the best
   is believed to be. What falls short of that is tried in the shadow: on a copy whose answer nobody waits for.
3. Every choice has a known probability (its propensity), so that what is logged can judge other policies.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from semaforo.entities import Exploration

_BITS = 11
_SCALE = 1.0 / (1 << 53)


class Arm(msgspec.Struct, frozen=True, gc=False):
    """A variant that could answer.

    Attributes:
        variant: Its id.
        believed: Quality 0…1 that is believed.
        low: Lower end of its interval.
        free: Whether a replica could take the request at once.
        metered: Whether each use costs money.
    """

    variant: str
    believed: float
    low: float
    free: bool
    metered: bool


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
    believed = next(arm.believed for arm in arms if arm.variant == best)
    others = [arm for arm in arms if arm.variant != best]
    safe = [arm for arm in others if arm.free and arm.low >= believed - explore.max_loss]
    draw = (chance >> _BITS) * _SCALE
    share = explore.share if safe else 0.0
    if draw < share:
        # What is left of the draw is even again, and picks among them.
        at = min(len(safe) - 1, int(draw / share * len(safe)))
        return Trial(safe[at].variant, share / len(safe))
    unsafe = [arm for arm in others if arm.low < believed - explore.max_loss and not arm.metered]
    if unsafe and explore.shadow > 0.0:
        left = (draw - share) / (1.0 - share)
        if left < explore.shadow:
            at = min(len(unsafe) - 1, int(left / explore.shadow * len(unsafe)))
            return Trial(best, 1.0 - share, unsafe[at].variant)
    return Trial(best, 1.0 - share)
