"""How many replicas a variant should have, between the least and the most that the operator allows.

Up by one when slots were busier than `HIGH` and work waited; down by one after `CALM` reports in a row with
slots less busy than one replica fewer could carry at `LOW`. One step at a time: loading a model is dear, and
a step's effect must be seen before the next.
"""

from __future__ import annotations

HIGH = 0.85
LOW = 0.5
CALM = 30


def desired(
    current: int, least: int, most: int, busy: float, waiting_rows: int, calm: int
) -> tuple[int, int]:
    """Return (replicas wanted, calm reports in a row).

    Args:
        current: Replicas now.
        least, most: The operator's bounds.
        busy: Share (0…1) of slot-time in use since the last report.
        waiting_rows: Rows waiting that the variant could serve.
        calm: Calm reports in a row until now.
    """
    if current < least:
        return least, 0
    if current > most:
        return most, 0
    if busy >= HIGH and waiting_rows > 0:
        return min(most, current + 1), 0
    if current > least and busy * current / max(1, current - 1) <= LOW and waiting_rows == 0:
        return (current - 1, 0) if calm + 1 >= CALM else (current, calm + 1)
    return current, 0
