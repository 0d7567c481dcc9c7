"""Predicting how long a request would wait, so that a promise is made only if it can be kept.

The estimate is a fluid one: the first slot to come free, then the rows in front at the rate of the replicas
that may serve the request. Rows of higher classes go first; a class that is under pressure from above still
moves at its guaranteed share, or at what the arrivals of higher classes leave, whichever is more.
"""

from __future__ import annotations

from semaforo.policy.shares import GUARANTEE


def predicted_wait(
    *, klass: int, first_free_s: float, rate: float, rows_above: float, rows_ahead: float, above_rate: float
) -> float:
    """Predict the seconds until a request that joins the queue now is begun.

    Args:
        klass: Its class, 0 = critical.
        first_free_s: Seconds until the first slot that could serve it is free.
        rate: Rows per second of all replicas that could serve it.
        rows_above: Waiting rows of higher classes.
        rows_ahead: Waiting rows of its own class that are due before it.
        above_rate: Rows per second that higher classes have lately been arriving with.
    """
    if rate <= 0.0:
        return float("inf")
    left = rate - above_rate
    floor = rate * GUARANTEE[klass]
    own = left if left > floor else floor
    by_order = rows_above / rate + rows_ahead / own
    by_share = (rows_ahead + 1.0) / floor
    wait = by_order if by_order < by_share else by_share
    return (first_free_s if first_free_s > 0.0 else 0.0) + wait
