"""Choosing a replica among those of one variant that have a free slot.

Candidates come from an index ordered by predicted free time, at most `MOST` of them, so the cost of a choice
does not grow with the fleet. Filter (ready, a free slot: the index holds no others) → score (predicted finish,
with a bonus for a replica that knows the session or prompt prefix) → pick the best.

Where replicas are shared with other gateways their load is a dated report; when reports are stale the best
score would send every gateway to the same replica, so two candidates are drawn and the better one is taken
(Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MOST = 8
STALE_S = 0.5
AFFINITY_BONUS = 0.3


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A replica with a free slot, as the balancer sees it.

    Attributes:
        replica: Its id.
        finish_s: Predicted seconds until it would have finished the work.
        stale: Whether its load is a report older than `STALE_S`.
        knows: Whether it served this affinity key before.
    """

    replica: str
    finish_s: float
    stale: bool = False
    knows: bool = False


def cost(candidate: Candidate) -> float:
    """Return the predicted finish, less the share of work that affinity saves."""
    return candidate.finish_s * (1.0 - AFFINITY_BONUS) if candidate.knows else candidate.finish_s


def pick(candidates: Sequence[Candidate], chance: int) -> int:
    """Return the index of the replica to use; `chance` is a random 64-bit number, used when reports are stale."""
    if len(candidates) > 2 and any(c.stale for c in candidates):
        first = chance % len(candidates)
        second = (first + 1 + (chance >> 32) % (len(candidates) - 1)) % len(candidates)
        return first if cost(candidates[first]) <= cost(candidates[second]) else second
    return min(range(len(candidates)), key=lambda i: (cost(candidates[i]), i))


def next_chance(state: int) -> int:
    """Step a 64-bit xorshift generator (Marsaglia, 2003); the state is its own output and never zero."""
    state ^= (state << 13) & 0xFFFFFFFFFFFFFFFF
    state ^= state >> 7
    state ^= (state << 17) & 0xFFFFFFFFFFFFFFFF
    return state
