"""How much may be spent: dollars per window of time, for the fleet, a task, or a tenant.

Rules this module keeps:

1. Spent plus reserved never exceeds the limit by what is reserved: whoever wants to spend reserves the most it can
   cost first, and settles what it did cost.
2. Windows are fixed: the first starts with the first reservation, the next where it ends. What is reserved carries
   over; what is spent does not.
"""

from __future__ import annotations

from math import floor

import msgspec

from semaforo.entities import Budget

SLACK = 1e-12
"""Dollars that sums of floats may be off by."""


class Account(msgspec.Struct):
    """What has gone of a budget.

    Attributes:
        since: Start of the window, monotonic seconds.
        spent, reserved: US dollars.
    """

    since: float
    spent: float = 0.0
    reserved: float = 0.0

    def turn(self, budget: Budget, now: float) -> None:
        """Begin a new window where the old one has ended."""
        if now >= self.since + budget.per_s:
            self.since += floor((now - self.since) / budget.per_s) * budget.per_s
            self.spent = 0.0

    def left(self, budget: Budget) -> float:
        """Return the dollars that may still be reserved."""
        return budget.spend - self.spent - self.reserved
