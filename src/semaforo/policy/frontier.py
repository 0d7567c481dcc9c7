"""What quality can be had at which cost: of single variants, and of mixing them; where a fleet stands, and aims.

Rules this module keeps:

1. A variant is on the frontier where no other is as good, as cheap and as quick, and better in one of these.
2. Sending a share of the requests to one variant and the rest to another gives all that lies on the line between
   them, so that what can be had without looking at requests is the concave hull of (cost, quality). A router that
   looks at them may stand above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from semaforo.entities import Preference
from semaforo.entities.units import show_dollars, show_duration
from semaforo.policy.route import HORIZON_S, utility, weights_of


class Place(msgspec.Struct, frozen=True):
    """Where one variant stands.

    Attributes:
        variant: Its id.
        quality: Believed mean, 0…1, with the ends of its 95 % interval `low` and `high`; None = nobody knows.
        cost: US dollars of a request; None = nobody knows.
        latency_s: Seconds from arrival to answer; None = nobody knows.
        feedback: Scores that the belief rests on.
        share: Of what was answered lately, 0…1.
        on_frontier: Whether no other is better in everything.
    """

    variant: str
    quality: float | None = None
    low: float | None = None
    high: float | None = None
    cost: float | None = None
    latency_s: float | None = None
    feedback: int = 0
    share: float = 0.0
    on_frontier: bool = False


class Corner(msgspec.Struct, frozen=True):
    """A variant at a corner of the hull."""

    variant: str
    cost: float
    quality: float


class Standing(msgspec.Struct, frozen=True):
    """What was answered lately.

    Attributes:
        answers: How many.
        quality: Mean of what was believed when each was decided on, 0…1; None = nobody knows.
        cost, latency_s: Means, US dollars and seconds.
        score: Mean of what was said of them since, 0…1, of `judged` answers; None = nothing was.
        mixed: What mixing gives for the same cost; None where that is less than anything costs, or not known.
    """

    answers: int
    quality: float | None
    cost: float
    latency_s: float
    score: float | None = None
    judged: int = 0
    mixed: float | None = None


class Aim(msgspec.Struct, frozen=True):
    """What the stated goal comes to, without looking at single requests.

    Attributes:
        goal: In words.
        shares: Variant → share of the requests (0…1) by which mixing gets there; empty = nothing does.
        quality, cost: What those give, in the mean.
        least_quality, most_cost, most_s: What the goal asks for; None = no such thing.
    """

    goal: str
    shares: dict[str, float]
    quality: float | None = None
    cost: float | None = None
    least_quality: float | None = None
    most_cost: float | None = None
    most_s: float | None = None


class Frontier(msgspec.Struct, frozen=True):
    """One task: its variants, what mixing them gives (corners from the cheapest up), where it stands and aims."""

    task: str
    variants: tuple[Place, ...]
    mixing: tuple[Corner, ...]
    now: Standing | None
    aim: Aim | None


def frontier(
    task: str, places: Sequence[Place], now: Standing | None = None, prefer: Preference | None = None
) -> Frontier:
    """Work out the frontier of a task.

    Args:
        task: Its name.
        places: Its variants.
        now: What was answered lately.
        prefer: What the operator prefers; None = not known.
    """
    corners = hull(places)
    if now is not None:
        now = msgspec.structs.replace(now, mixed=at_cost(corners, now.cost)[0])
    marked = tuple(msgspec.structs.replace(p, on_frontier=not _beaten(p, places)) for p in places)
    return Frontier(
        task, marked, tuple(corners), now, None if prefer is None else aim(marked, corners, prefer)
    )


def hull(places: Sequence[Place]) -> list[Corner]:
    """Return the corners of the concave hull from the cheapest variant to the best one, both coordinates rising."""
    known = [
        Corner(p.variant, p.cost, p.quality) for p in places if p.cost is not None and p.quality is not None
    ]
    found: list[Corner] = []
    for corner in sorted(known, key=lambda c: (c.cost, -c.quality)):
        if found and corner.quality <= found[-1].quality:
            continue
        while len(found) > 1 and _slope(found[-2], found[-1]) <= _slope(found[-1], corner):
            found.pop()
        found.append(corner)
    return found


def at_cost(corners: Sequence[Corner], cost: float) -> tuple[float | None, dict[str, float]]:
    """Return the best mean quality that mixing gives for a mean cost, and by which shares."""
    if not corners or cost < corners[0].cost:
        return None, {}
    for below, above in pairwise(corners):
        if cost < above.cost:
            return _between(below, above, (cost - below.cost) / (above.cost - below.cost))
    return corners[-1].quality, {corners[-1].variant: 1.0}


def aim(places: Sequence[Place], corners: Sequence[Corner], prefer: Preference) -> Aim:
    """Return what a preference comes to among variants."""
    best = max((p.quality for p in places if p.quality is not None), default=None)
    if prefer.goal == "cost":
        least = prefer.keep_quality * (best or 0.0)
        good = [p for p in places if p.quality is not None and p.quality >= least and p.cost is not None]
        goal = f"the cheapest that keeps {prefer.keep_quality:.4g} of the best"
        found = _single(goal, good, lambda p: -(p.cost or 0.0), None)
        return msgspec.structs.replace(found, least_quality=least if best is not None else None)
    if prefer.at_most is not None:
        quality, shares = at_cost(corners, prefer.at_most)
        spent = min(prefer.at_most, corners[-1].cost) if shares else None
        goal = f"the best for {show_dollars(1000.0 * prefer.at_most)} per 1,000"
        return Aim(goal, shares, quality, spent, most_cost=prefer.at_most)
    if prefer.goal == "quality":
        limit = prefer.within_s
        goal = "the best" if limit is None else f"the best within {show_duration(limit)}"
        within = [p for p in places if limit is None or (p.latency_s is not None and p.latency_s <= limit)]
        return _single(goal, within, lambda p: p.quality or 0.0, limit)
    weights = weights_of(prefer)
    dearest = max((p.cost for p in places if p.cost is not None), default=0.0)
    horizon = prefer.within_s if prefer.within_s is not None else HORIZON_S

    def worth(place: Place) -> float:
        quality, cost, latency = place.quality or 0.0, place.cost or 0.0, place.latency_s or 0.0
        relative = quality / best if best else 0.0
        return utility(weights, relative, latency / horizon, cost / dearest if dearest else 0.0)

    goal = f"weights {weights.quality:.2g} quality, {weights.latency:.2g} latency, {weights.cost:.2g} cost"
    return _single(goal, places, worth, None)


def _single(goal: str, places: Sequence[Place], worth: Callable[[Place], float], most_s: float | None) -> Aim:
    known = [p for p in places if p.quality is not None]
    if not known:
        return Aim(goal, {}, most_s=most_s)
    best = max(known, key=worth)
    return Aim(goal, {best.variant: 1.0}, best.quality, best.cost, most_s=most_s)


def _slope(one: Corner, other: Corner) -> float:
    rise = other.quality - one.quality
    return rise / (other.cost - one.cost) if other.cost > one.cost else float("inf")


def _between(below: Corner, above: Corner, part: float) -> tuple[float, dict[str, float]]:
    quality = below.quality + part * (above.quality - below.quality)
    shares = {below.variant: 1.0 - part, above.variant: part}
    return quality, {name: share for name, share in shares.items() if share > 0.0}


def _beaten(place: Place, places: Sequence[Place]) -> bool:
    mine = _values(place)
    if mine is None:
        return True
    for other in places:
        theirs = _values(other)
        if theirs is not None and theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True)):
            return True
    return False


def _values(place: Place) -> tuple[float, float, float] | None:
    if place.quality is None or place.cost is None:
        return None
    return place.quality, -place.cost, -(place.latency_s or 0.0)
