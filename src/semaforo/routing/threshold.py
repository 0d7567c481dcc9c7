"""Thresholds that keep a promise: learn then test (Angelopoulos et al., arXiv 2110.01052).

Candidates are tested in an order that was fixed before any score was looked at, from the one that promises most
(always ask the dear model) towards the one that saves most, each at the level δ, until the first that fails: then
all that passed hold together with a probability of at least 1 - δ, whatever the distribution, for as long as
requests keep coming from it.

Each test is a bet against the promise being broken: a capital that, if the mean loss were above the limit, would
grow beyond 1/δ with a probability of at most δ (Ville's inequality; the bets are those of Waudby-Smith and Ramdas,
arXiv 2010.09686). It asks nothing of the losses but bounds, and profits from a small variance.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CANDIDATES = 100
_BOLD = 0.5


class Promise(msgspec.Struct, frozen=True):
    """A threshold and what it promises.

    Attributes:
        threshold: The dear model is asked where the wish for it is at least this; -∞ = always, ∞ = never.
        kept: Whether the promise could be made by anything else than always asking the dear model.
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
    steps = (
        np.unique(np.quantile(wish, np.linspace(0.0, 1.0, candidates + 1)[1:-1]))
        if len(wish)
        else np.array([])
    )
    rising = np.concatenate([steps, [np.inf]])
    best = -np.inf
    order = np.random.default_rng(seed).permutation(len(wish))
    for limit in rising:
        losses = np.where(wish < limit, gain, 0.0)
        if p_value(losses[order], give_up, low=-1.0, high=1.0) > delta:
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
    steps = (
        np.unique(np.quantile(wish, np.linspace(0.0, 1.0, candidates + 1)[:-1]))
        if len(wish)
        else np.array([])
    )
    best = np.inf
    order = np.random.default_rng(seed).permutation(len(wish))
    high = float(extra.max(initial=0.0)) or 1.0
    for limit in steps[::-1]:
        spent = np.where(wish >= limit, extra, 0.0)
        if p_value(spent[order], most, low=0.0, high=high) > delta:
            break
        best = float(limit)
    return _promise(best, wish, np.where(wish >= best, extra, 0.0))


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


def _promise(threshold: float, wish: Floats, losses: Floats) -> Promise:
    calls = float((wish >= threshold).mean()) if len(wish) else 1.0
    return Promise(threshold, threshold > -np.inf, calls, float(losses.mean()) if len(losses) else 0.0)
