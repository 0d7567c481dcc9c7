"""Thresholds that keep a promise: learn then test (Angelopoulos et al., arXiv 2110.01052).

Candidates are tested in an order that was fixed before any score was looked at, from the one that promises most
(always ask the dear model) towards the one that saves most, each at the level δ, until the first that fails: then
all that passed hold together with a probability of at least 1 - δ, whatever the distribution, for as long as
requests keep coming from it.

Each test is a bet against the promise being broken: a capital that, if the mean loss were above the limit, would
grow beyond 1/δ with a probability of at most δ (Ville's inequality; the bets are those of Waudby-Smith and Ramdas,
arXiv 2010.09686). It asks nothing of the losses but bounds, and profits from a small variance.

A probability of failing of a half promises nothing: what was seen is then believed.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CANDIDATES = 100
NO_PROMISE = 0.5
"""Probability of failing from which on nothing is promised."""
_BOLD = 0.5
_APART = 4


class Promise(msgspec.Struct, frozen=True):
    """A threshold and what it promises.

    Attributes:
        threshold: The dear model is asked where the wish for it is at least this; -∞ = always, ∞ = never.
        kept: Whether the promise could be made, by anything else than always asking the dear model.
        calls: Share of the rows seen that ask the dear model.
        loss: Mean loss on the rows seen.
    """

    threshold: float
    kept: bool
    calls: float
    loss: float


def for_quality(
    wish: Floats,
    gain: Floats,
    *,
    give_up: float,
    delta: float = 0.1,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> Promise:
    """Return the threshold with the fewest dear calls that loses at most `give_up` against always asking it.

    Args:
        wish: (n,) how much the router wants the dear model.
        gain: (n,) score of the dear model less that of the cheap one, -1…1.
        give_up: Mean score that may be lost.
        delta: Probability (0…1) with which the promise may fail.
        candidates: Thresholds that are tried, at quantiles of `wish`.
        seed: Of the order in which rows are bet on.
    """
    best = -np.inf
    for limit in [*_quantiles(wish, candidates)[1:], np.inf]:
        if not _holds(np.where(wish < limit, gain, 0.0), give_up, (-1.0, 1.0), delta, seed):
            break
        best = float(limit)
    return _promise(best, wish, np.where(wish < best, gain, 0.0))


def for_budget(
    wish: Floats,
    extra: Floats,
    *,
    most: float,
    delta: float = 0.1,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> Promise:
    """Return the threshold with the most dear calls whose mean extra cost stays within `most`.

    Args:
        wish: (n,) how much the router wants the dear model.
        extra: (n,) what asking it costs on top, 0 or more, in any unit.
        most: Mean extra cost that may be spent, in the same unit.
        delta, candidates, seed: As for `for_quality`.
    """
    best = np.inf
    high = float(extra.max(initial=0.0)) or 1.0
    for limit in _quantiles(wish, candidates)[::-1]:
        if not _holds(np.where(wish >= limit, extra, 0.0), most, (0.0, high), delta, seed):
            break
        best = float(limit)
    return _promise(best, wish, np.where(wish >= best, extra, 0.0))


def for_both(
    wish: Floats, gain: Floats, *, give_up: float, most: float, delta: float = 0.1, seed: int = 0
) -> Promise:
    """Return the threshold with the fewest dear calls that loses at most `give_up`, within a budget of calls.

    Where the rows cannot promise both, the budget wins: it asks as often as that allows, and is not `kept`.

    Args:
        wish, gain, give_up, delta, seed: As for `for_quality`; each promise may fail with this probability.
        most: Share of requests that may ask the dear model; 1 = all.
    """
    quality = for_quality(wish, gain, give_up=give_up, delta=delta, seed=seed)
    if most >= 1.0:
        return quality
    budget = for_budget(wish, np.ones(len(wish)), most=most, delta=delta, seed=seed)
    if quality.kept and quality.threshold >= budget.threshold:
        return quality
    lost = float(np.where(wish < budget.threshold, gain, 0.0).mean())
    return Promise(budget.threshold, False, budget.calls, lost)


def rows_needed(give_up: float, delta: float) -> int:
    """Return how many rows a promise of quality takes even if asking less often loses nothing; 100,000 = more."""
    return _testable(100_000, give_up, delta)


def for_hits(
    likeness: Floats,
    loss: Floats,
    *,
    most: float,
    delta: float = 0.1,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> float:
    """Return the least likeness from which on what is alike loses at most `most` on average; ∞ = none can be told.

    Where tests begin rests on the likenesses alone: at the least number of the most alike rows with which a test
    can pass at all, and at 4, 16 … times that many, each sequence with its part of δ.

    Args:
        likeness: (n,) of pairs.
        loss: (n,) what was lost where one stood for the other, -1…1.
        most: Mean loss that is allowed.
        delta, candidates, seed: As for `for_quality`.
    """
    limits = _quantiles(likeness, candidates)[::-1]
    least = _testable(len(likeness), most, delta)
    sequences = 1
    while least * _APART**sequences <= len(likeness):
        sequences += 1
    level = delta / sequences
    least = _testable(len(likeness), most, level)
    rows = [int((likeness >= limit).sum()) for limit in limits]
    known: dict[int, bool] = {}
    for start in range(sequences):
        for at in range(bisect_left(rows, least * _APART**start), len(limits)):
            if at not in known:
                losses = loss[likeness >= limits[at]]
                known[at] = _holds(losses, most, (-1.0, 1.0), level, seed)
            if not known[at]:
                break
    passed = [limits[at] for at, holds in known.items() if holds]
    return float(likeness[likeness >= min(passed)].min()) if passed else np.inf


def p_value(losses: Floats, limit: float, *, low: float, high: float) -> float:
    """Return a p-value of the hypothesis that the mean loss is above `limit`.

    Args:
        losses: (n,) in random order, within `low` and `high`.
        limit: What the mean should not exceed.
        low, high: Bounds of a loss.
    """
    n = len(losses)
    if not n or limit < low:
        return 1.0
    if limit >= high:
        return 0.0
    z = (losses - low) / (high - low)
    m = (limit - low) / (high - low)
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(z)) / (counts + 1)
    spread = (0.25 + np.cumsum((z - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], spread[:-1]])
    # The bet for a row rests on the rows before it alone; all n rows are known to come.
    bets = np.minimum(np.sqrt(2.0 * np.log(n + 1.0) / (n * before)), _BOLD / (1.0 - m))
    capital = np.cumsum(np.log1p(-bets * (z - m)))
    return float(min(1.0, np.exp(-capital.max())))


def _quantiles(wish: Floats, candidates: int) -> Floats:
    """Return thresholds from the least wish upwards, each once."""
    return np.unique(np.quantile(wish, np.arange(candidates) / candidates)) if len(wish) else np.array([])


def _holds(losses: Floats, limit: float, bounds: tuple[float, float], delta: float, seed: int) -> bool:
    # A capital that early luck has made proves what all the rows together may deny.
    if not len(losses) or float(losses.mean()) > limit:
        return False
    if delta >= NO_PROMISE:
        return True
    shuffled = losses[np.random.default_rng(seed).permutation(len(losses))]
    return p_value(shuffled, limit, low=bounds[0], high=bounds[1]) <= delta


def _testable(rows: int, most: float, level: float) -> int:
    """Return how many rows without any loss pass a test; one more than there are where so many do not."""
    return bisect_left(
        range(rows + 1), True, key=lambda n: p_value(np.zeros(n), most, low=-1.0, high=1.0) <= level
    )


def _promise(threshold: float, wish: Floats, losses: Floats) -> Promise:
    calls = float((wish >= threshold).mean()) if len(wish) else 1.0
    return Promise(threshold, threshold > -np.inf, calls, float(losses.mean()) if len(losses) else 0.0)
