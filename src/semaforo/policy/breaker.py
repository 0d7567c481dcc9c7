"""When a replica is left alone for a while, and how it comes back.

1. `FAILURES` failures in a row eject a replica; so does a speed `SLOW` times worse than the median of its
   siblings once there are three of them and enough samples.
2. An ejection lasts `BASE_S` seconds, doubling each time up to `MOST_S`; good work heals the count.
3. At most half of a variant's replicas are ejected at once for being slow. A failing replica is ejected even
   when it is the last one: its requests wait, or go to another variant of their task.
4. A replica comes back gradually: batches of one row, then two, four …, and full weight after that.
"""

from __future__ import annotations

FAILURES = 5
SLOW = 4.0
SLOW_SAMPLES = 20
BASE_S = 1.0
MOST_S = 60.0


def ejection_s(ejections: int) -> float:
    """Return how long the next ejection lasts, after `ejections` earlier ones."""
    return float(min(MOST_S, BASE_S * 2.0 ** min(ejections, 10)))


def lags(speed: float, samples: int, siblings: list[float]) -> bool:
    """Tell whether a replica is an outlier among its siblings' speeds (1 = as predicted, 2 = half as fast)."""
    if samples < SLOW_SAMPLES or len(siblings) < 3:
        return False
    return speed > SLOW * sorted(siblings)[len(siblings) // 2]
