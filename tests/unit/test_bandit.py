"""Bandits: probabilities that are true, learning, forgetting, and merging."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from semaforo.routing import bandit
from semaforo.routing.bandit import Bandit, Kind

KINDS: tuple[Kind, ...] = ("epsilon", "linucb", "thompson")
TRUTH = np.array([[0.5, 0.3, 0.0], [0.5, -0.3, 0.0], [0.2, 0.0, 0.0]])


def played(kind: Kind, steps: int, seed: int = 0) -> tuple[Bandit, float]:
    """Let a learner play, and return it with its mean score over the second half."""
    rng = np.random.default_rng(seed)
    learner = bandit.begun(kind, 3, 3)
    scores = []
    for _ in range(steps):
        x = np.array([1.0, rng.uniform(-1, 1), rng.uniform(-1, 1)])
        pick, chances = learner.pick(x, rng)
        assert chances.sum() == pytest.approx(1.0)
        assert chances.min() >= 0.05 / 3 - 1e-12
        score = float(np.clip(x @ TRUTH[pick] + rng.normal(0, 0.1), 0, 1))
        learner.learn(pick, x, score)
        scores.append(score)
    return learner, float(np.mean(scores[steps // 2 :]))


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_learn_what_depends_on_the_request(kind: Kind) -> None:
    learner, score = played(kind, 800)
    assert score > 0.6
    weights = learner.weights()
    assert weights[0, 1] > 0.15
    assert weights[1, 1] < -0.15


@pytest.mark.parametrize("kind", KINDS)
def test_picks_have_the_probabilities_that_are_stated(kind: Kind) -> None:
    learner, _ = played(kind, 60)
    rng = np.random.default_rng(1)
    x = np.array([1.0, 0.05, 0.0])
    picks: Counter[int] = Counter()
    stated = np.zeros(3)
    for _ in range(4000):
        pick, chances = learner.pick(x, rng)
        picks[pick] += 1
        stated += chances
    assert np.allclose([picks[j] / 4000 for j in range(3)], stated / 4000, atol=0.03)


def test_two_learners_know_together_what_one_would() -> None:
    rng = np.random.default_rng(2)
    one, other, both = (bandit.begun("linucb", 2, 4) for _ in range(3))
    for k in range(60):
        x, score, pick = rng.normal(size=4), float(rng.random()), k % 2
        (one if k % 3 else other).learn(pick, x, score)
        both.learn(pick, x, score)
    assert np.allclose(bandit.merged(one, other).weights(), both.weights())


def test_what_fades_follows_a_changed_world() -> None:
    rng = np.random.default_rng(3)
    learner = bandit.begun("epsilon", 2, 1)
    learner.fade = 0.95
    for world in (0.9, 0.1):
        for _ in range(200):
            learner.learn(0, np.ones(1), world + 0.01 * float(rng.normal()))
    assert learner.weights()[0, 0] == pytest.approx(0.1, abs=0.1)


def test_contrasts_learn_from_any_known_propensities() -> None:
    rng = np.random.default_rng(4)
    n = 4000
    x = np.column_stack([np.ones(n), rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)])
    chances = np.tile([0.6, 0.3, 0.1], (n, 1))
    picks = np.array([rng.choice(3, p=c) for c in chances])
    hard = 0.2 * x[:, 2]
    scores = (x * TRUTH[picks]).sum(axis=1) + hard + rng.normal(0, 0.1, n)
    weights = bandit.contrasts(x, picks, scores, chances)
    assert ((x @ weights.T).argmax(axis=1) == (x @ TRUTH.T).argmax(axis=1)).mean() > 0.9
