"""What a policy would have been worth on a log that another one has written.

For a logged request with features ``x``, pick ``a``, propensity ``p(a | x)`` and score ``r``, and a policy that
picks ``π(x)`` (or picks ``a`` with probability ``π(a | x)``, which then takes the place of ``[π(x) = a]``):

* **IPS** is the mean of ``w r`` with ``w = [π(x) = a] / p(a | x)``: without bias, of large variance.
* **SNIPS** divides by the mean of ``w`` instead of 1: a little bias, far less variance (Swaminathan and Joachims,
  NeurIPS 2015).
* **DR** adds what a model of the scores says: ``q(x, π(x)) + w (r - q(x, a))``: right where either the propensities
  or the model are (Dudík, Langford and Li, ICML 2011). The model must not have seen the row it speaks of.

Intervals come from resampling rows (percentile bootstrap): that takes the skew of the weights as it is, where a
normal interval would be too short.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest
from semaforo.routing.metrics import Interval

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST_EFFECTIVE = 30.0
_DRAWS = 1000


class Log(msgspec.Struct, frozen=True):
    """What was logged: one pick for each request.

    Attributes:
        picks: (n,) model that answered.
        propensities: (n,) probability with which it was picked, above 0.
        scores: (n,) 0…1.
    """

    picks: Indices
    propensities: Floats
    scores: Floats


class Estimate(msgspec.Struct, frozen=True):
    """What a policy is estimated to be worth, and what the log's own was.

    Attributes:
        ips, snips, dr: Mean scores; `dr` is None without a model.
        logged: Mean score of the log.
        gain: The best of these (DR, else SNIPS) less the log's, with an interval that takes both of the same rows.
        matched: Share of rows on which both picked alike.
        effective: Rows that the weights are worth (Kish).
    """

    ips: Interval
    snips: Interval
    dr: Interval | None
    logged: Interval
    gain: Interval
    matched: float
    effective: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``cannot tell``."""
        if self.effective < LEAST_EFFECTIVE:
            return "cannot tell"
        return "better" if self.gain.low > 0.0 else "worse" if self.gain.high < 0.0 else "cannot tell"


def estimate(
    log: Log, policy: Indices | Floats, modelled: Floats | None = None, *, seed: int = 0
) -> Estimate:
    """Estimate the mean score of a policy.

    Args:
        log: What was logged.
        policy: (n,) what the policy would have picked, or (n, m) with which probability it picks each.
        modelled: (n, m) scores that a model predicts, out of fold.
        seed: Of the resamples.

    Raises:
        InvalidRequest: The log has no propensities that can be used, or no rows.
    """
    n = len(log.picks)
    if not n:
        raise InvalidRequest("the log has no rows with a score: there is nothing to estimate from")
    bad = ~((log.propensities > 0.0) & (log.propensities <= 1.0))
    if bad.any():
        raise InvalidRequest(
            f"{int(bad.sum())} of {n} rows have no propensity above 0 and up to 1: only a log of a policy that "
            "chose at random, with known probabilities, can judge another one"
        )
    rows = np.arange(n)
    same = (policy == log.picks).astype(float) if policy.ndim == 1 else policy[rows, log.picks]
    weights = same / log.propensities
    direct = residual = None
    if modelled is not None:
        direct = modelled[rows, policy] if policy.ndim == 1 else (policy * modelled).sum(axis=1)
        residual = weights * (log.scores - modelled[rows, log.picks])
    rng = np.random.default_rng(seed)
    found = np.empty((_DRAWS + 1, 5))
    for k in range(_DRAWS + 1):
        at = np.arange(n) if not k else rng.integers(0, n, n)
        w, r = weights[at], log.scores[at]
        total = w.sum()
        snips = float(w @ r / total) if total else float("nan")
        dr = (
            float((direct[at] + residual[at]).mean())
            if direct is not None and residual is not None
            else np.nan
        )
        best = snips if np.isnan(dr) else dr
        found[k] = float((w * r).mean()), snips, dr, r.mean(), best - r.mean()
    ips, snips_, dr_, logged, gain = (_interval(found[:, k]) for k in range(5))
    square = float((weights**2).sum())
    effective = float(weights.sum()) ** 2 / square if square else 0.0
    return Estimate(
        ips, snips_, dr_ if modelled is not None else None, logged, gain, float(same.mean()), effective
    )


def _interval(values: Floats) -> Interval:
    drawn = values[1:][~np.isnan(values[1:])]
    if not len(drawn):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))
