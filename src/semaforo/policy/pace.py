"""Spending so much for each request on average, on what gains most: the price of money, found as requests come.

The operator says what a request may cost on average. A dollar then has a price in quality: it rises while more is
spent than that, and falls while less is (dual ascent on the Lagrangian of the budget; Boyd and Vandenberghe, Convex
Optimization, 5.5). The router takes the variant with the best quality less price times cost, so that money goes
where it buys most. It is a goal and no limit: limits are budgets.
"""

from __future__ import annotations

from math import exp

import msgspec

BEGUN = 0.1
_OVER = 50.0
_STEP = 0.08
_LEAST, _MOST = 1e-3, 1e3


class Pace(msgspec.Struct):
    """How one task spends.

    Attributes:
        price: Relative quality that the stated cost of one request is worth.
        mean: Cost of a request over what it may cost, mean of about the last 50.
    """

    price: float = BEGUN
    mean: float = 1.0

    def spent(self, cost: float, goal: float) -> None:
        """Take in what a request cost, and what one may cost on average, in US dollars."""
        self.mean += (cost / goal - self.mean) / _OVER
        self.price = min(_MOST, max(_LEAST, self.price * exp(_STEP * max(-1.0, min(1.0, self.mean - 1.0)))))
