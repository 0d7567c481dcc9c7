"""Judging a policy by the log of another one."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from semaforo.errors import InvalidRequest
from semaforo.jobs.learn.evaluate import choose, frontier, judged, predict
from semaforo.jobs.learn.train import train
from semaforo.routing.offpolicy import Log, estimate
from semaforo.routing.table import Table


def world(rng: np.random.Generator, n: int) -> tuple[Log, np.ndarray, np.ndarray, float]:
    """Return a log that prefers arm 0, what a better policy picks, the true means, and what that is worth."""
    kind = rng.integers(0, 2, n)
    means = np.where(kind[:, None] == 0, [0.7, 0.3], [0.2, 0.8])
    chances = np.array([0.8, 0.2])
    picks = (rng.random(n) > 0.8).astype(np.int64)
    scores = (rng.random(n) < means[np.arange(n), picks]).astype(float)
    return Log(picks, chances[picks], scores), kind.astype(np.int64), means, 0.75


def test_all_three_estimates_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = np.zeros(3)
    for _ in range(60):
        log, chosen, means, truth = world(rng, 600)
        noisy = np.clip(means + rng.normal(0, 0.1, means.shape), 0, 1)
        found = estimate(log, chosen, noisy)
        assert found.dr is not None
        held += [one.low <= truth <= one.high for one in (found.ips, found.snips, found.dr)]
        assert found.dr.high - found.dr.low < found.ips.high - found.ips.low
    assert (held / 60 > 0.85).all(), held / 60


def test_the_verdict_needs_enough_rows() -> None:
    rng = np.random.default_rng(1)
    log, chosen, means, _ = world(rng, 3000)
    assert estimate(log, chosen, means).verdict == "better"
    assert estimate(log, 1 - chosen, means).verdict == "worse"
    assert estimate(log, log.picks, means).verdict == "cannot tell"
    few, chosen, _, _ = world(rng, 20)
    assert estimate(few, chosen).verdict == "cannot tell"


def test_a_log_without_propensities_judges_nobody() -> None:
    rng = np.random.default_rng(2)
    log, chosen, _, _ = world(rng, 50)
    with pytest.raises(InvalidRequest, match="50 of 50 rows have no propensity"):
        estimate(Log(log.picks, np.zeros(50), log.scores), chosen)
    with pytest.raises(InvalidRequest, match="no rows"):
        estimate(Log(log.picks[:0], log.propensities[:0], log.scores[:0]), chosen[:0])


def test_a_router_is_judged_by_a_log_of_what_was_picked() -> None:
    rng = np.random.default_rng(3)
    n = 1200
    hard = rng.random(n) < 0.5
    prompts = tuple(f"{' '.join(rng.choice(['a', 'b', 'c'], 4))} {'hard' if h else 'easy'}" for h in hard)
    means = np.where(hard[:, None], [0.1, 0.8], [0.9, 0.7])
    scores = (rng.random((n, 2)) < means).astype(float)
    costs = np.tile([1e-4, 1e-2], (n, 1))
    whole = Table(("small", "large"), ("t",) * n, prompts, scores, costs)
    predictor = train(whole.rows(np.arange(600)))
    rest = whole.rows(np.arange(600, n))
    picks = rng.integers(0, 2, 600)
    seen = np.full((600, 2), np.nan)
    seen[np.arange(600), picks] = rest.scores[np.arange(600), picks]
    log = Table(rest.models, rest.tasks, rest.prompts, seen, rest.costs, propensities=np.full((600, 2), 0.5))
    found = judged(log, predictor)
    truth = float(
        rest.scores[np.arange(600), choose(predict(predictor, rest)[0], np.full(2, np.nan), 1.0)].mean()
    )
    assert found.verdict == "better"
    assert found.snips.low <= truth <= found.snips.high
    points = {p.name: p for p in frontier(rest, predict(predictor, rest)[0])}
    assert points["keeps 100%"].score.value > points["large"].score.value
    assert points["keeps 0%"].cost == pytest.approx(1e-4)
    assert points["oracle"].score.value >= points["keeps 100%"].score.value
    with pytest.raises(InvalidRequest, match="not all requests"):
        frontier(log, predict(predictor, log)[0])
    with pytest.raises(InvalidRequest, match="no column 'propensity'"):
        judged(rest, predictor)


BANDIT = Path(os.environ.get("SEMAFORO_DATA") or Path(__file__).parents[3] / "shared" / "data") / "bandit"


@pytest.mark.skipif(not BANDIT.exists(), reason="the Open Bandit sample is not at hand")
def test_the_worth_of_a_real_policy_is_found_from_the_log_of_another() -> None:
    def read(name: str) -> tuple[np.ndarray, ...]:
        with gzip.open(BANDIT / name / "all" / "all.csv.gz", "rt") as file:
            rows = list(csv.DictReader(file))
        columns = ("item_id", "position", "click", "propensity_score")
        return tuple(np.array([float(r[c]) for r in rows]) for c in columns)

    items, places, clicks, propensities = read("random")
    theirs, at, won, chances = read("bts")
    n = int(max(items.max(), theirs.max())) + 1
    policy = np.zeros((len(items), n))
    for place in np.unique(places):
        mean = np.zeros(n)
        for item in range(n):
            given = chances[(theirs == item) & (at == place)]
            mean[item] = given.mean() if len(given) else 0.0
        policy[places == place] = mean / mean.sum()
    found = estimate(Log(items.astype(np.int64), propensities, clicks), policy)
    assert found.snips.low <= won.mean() <= found.snips.high
    assert found.ips.low <= won.mean() <= found.ips.high
