"""How long a batch takes, and how large it should be.

Rules this module keeps:

1. Service time is `base + row · rows`, fitted online with forgetting; it starts from the measured profile.
2. A batch grows only while growing pays: once the fixed cost is amortised below `WORTH` of a row's own cost,
   more rows add waiting and hardly any throughput (the convolution of the benchmarks gains 3 % from batching,
   the digits model 22×).
3. A batch never waits for company: it is formed from what waits when a replica is free.
4. Where the hand-over to a worker would leave a device idle for a share of the time that counts, a batch is
   handed over while another runs (`rows_ahead`); but only work for a few milliseconds, since it can no more be
   overtaken by what is more urgent.
"""

from __future__ import annotations

import msgspec

from semaforo.entities import BatchProfile

AHEAD_LEAST_S = 0.0005
AHEAD_MOST_S = 0.005
"""Least and most device time in seconds that is worth handing over ahead: a hand-over takes about 0.2 ms."""
ROWS_OVER_BASE = 4.0
LEAST_BASE_S = 25e-6
"""What a batch costs beside the model (frames, events), which a fit of batches of one size cannot tell apart."""
FORGET = 0.98
WORTH = 0.02
_PRIOR_WEIGHT = 4.0


class Fit(msgspec.Struct):
    """A weighted least-squares line through (rows, seconds), kept as decayed sums.

    Attributes:
        n, sx, sy, sxx, sxy: Decayed sums of weight, rows, seconds, rows², rows · seconds.
        base, row: The line: seconds per batch and per row, both ≥ 0.
        spread: Decayed mean absolute error in seconds: the margin predictions are given.
    """

    n: float = 0.0
    sx: float = 0.0
    sy: float = 0.0
    sxx: float = 0.0
    sxy: float = 0.0
    base: float = 0.001
    row: float = 0.001
    spread: float = 0.0

    def seconds(self, rows: int) -> float:
        """Predict the service time of a batch of `rows`."""
        return self.base + self.row * rows

    def learn(self, rows: int, seconds: float) -> None:
        """Take in one observed batch; O(1)."""
        error = seconds - self.base - self.row * rows
        self.spread += 0.05 * ((error if error > 0 else -error) - self.spread)
        self.n = n = self.n * FORGET + 1.0
        self.sx = sx = self.sx * FORGET + rows
        self.sy = sy = self.sy * FORGET + seconds
        self.sxx = sxx = self.sxx * FORGET + rows * rows
        self.sxy = sxy = self.sxy * FORGET + rows * seconds
        determinant = n * sxx - sx * sx
        if determinant > 0.05 * n * sxx:
            row = (n * sxy - sx * sy) / determinant
            if row <= 0.0:
                self.row, self.base = 0.0, sy / n
            else:
                base = (sy - row * sx) / n
                if base < 0.0:
                    self.base, self.row = 0.0, sxy / sxx
                else:
                    self.base, self.row = base, row
        else:
            # Sizes hardly vary: keep the shape of the line and move it to the mean that is seen.
            expected = self.base * n + self.row * sx
            if expected > 0.0:
                scale = sy / expected
                self.base *= scale
                self.row *= scale


def fit_from(profile: BatchProfile) -> Fit:
    """Start a fit from a measured profile, worth a few observations at one and at many rows."""
    fit = Fit(base=float(profile.base_s), row=float(profile.row_s))
    for rows in (1, 8):
        seconds = profile.seconds(rows)
        fit.n += _PRIOR_WEIGHT
        fit.sx += _PRIOR_WEIGHT * rows
        fit.sy += _PRIOR_WEIGHT * seconds
        fit.sxx += _PRIOR_WEIGHT * rows * rows
        fit.sxy += _PRIOR_WEIGHT * rows * seconds
    if profile.p99_s:
        fit.spread = max(0.0, (profile.p99_s - profile.seconds(1)) / 3.0)
    return fit


def worthwhile_rows(fit: Fit, max_rows: int) -> int:
    """Return the rows beyond which a larger batch gains less than `WORTH` in throughput."""
    base = fit.base if fit.base > LEAST_BASE_S else LEAST_BASE_S
    if base >= WORTH * max_rows * fit.row:
        return max_rows
    return max(1, int(base / (WORTH * fit.row)))


def rows_ahead(fit: Fit, waiting_rows: int, max_rows: int) -> int:
    """Return the most rows of a batch to hand over while another runs; 0 = wait until that one ends.

    What is handed over must be worth it by itself: too early, a batch misses rows that would share its fixed cost.
    """
    if fit.base >= AHEAD_MOST_S:
        return 0
    most = min(max_rows, int((AHEAD_MOST_S - fit.base) / fit.row)) if fit.row > 0.0 else max_rows
    work = fit.row * min(waiting_rows, most)
    return most if work >= AHEAD_LEAST_S and work >= ROWS_OVER_BASE * fit.base else 0
