"""What was learned of requests like one, against the same worked out with NumPy, and what is tried for it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import numpy as np
import pytest

from semaforo.entities import Exploration
from semaforo.policy import bandit
from semaforo.policy.balance import next_chance
from semaforo.policy.bandit import EVERY, MEMORY, MOST, NOISE, RIDGE, guesses
from semaforo.policy.explore import FLOOR, Arm, likely_best, spread_over, tried
from semaforo.routing import bandit as reference

NAMES = ("a", "b", "c")


def context(rng: Random) -> dict[str, float]:
    return {name: rng.uniform(-1.0, 1.0) for name in NAMES}


def vector(given: dict[str, float]) -> np.ndarray:
    return np.array([1.0, *(given[name] for name in NAMES)])


def told(steps: int, level: float, seed: int = 0) -> tuple[bandit.Ridge, reference.Bandit, list[np.ndarray]]:
    """Teach the regression and NumPy's learner the same."""
    rng = Random(seed)
    mine, theirs = bandit.begun(level), reference.begun("linucb", 1, 4, ridge=RIDGE)
    seen = []
    for _ in range(steps):
        given, score = context(rng), rng.random()
        mine.learn(given, score)
        theirs.learn(0, vector(given), score - level)
        seen.append(vector(given))
    return mine, theirs, seen


def test_it_learns_what_ridge_regression_does() -> None:
    mine, theirs, _ = told(EVERY - 1, 0.4)
    assert np.allclose(np.reshape(mine.inverse, (4, 4)), theirs.covariance[0])
    assert np.allclose(mine.weights, theirs.weights()[0])
    x = {"a": 0.3, "b": -0.9, "c": 0.1}
    (guess,) = guesses([(mine, 0.4)], x)
    assert guess.gain / mine.trust == pytest.approx(float(vector(x) @ theirs.weights()[0]))
    assert guess.spread == pytest.approx(NOISE * float(vector(x) @ theirs.covariance[0] @ vector(x)) ** 0.5)


def test_it_is_centred_on_what_is_believed_now() -> None:
    rng = Random(1)
    seen = [(context(rng), rng.random()) for _ in range(40)]
    mine = bandit.begun(0.4)
    for given, score in seen:
        mine.learn(given, score)
    x, usual = {"a": 0.5, "b": 0.2, "c": -0.7}, 0.75
    rows, scores = np.array([vector(g) for g, _ in seen]), np.array([s for _, s in seen])
    weights = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(4), rows.T @ (scores - usual))
    (guess,) = guesses([(mine, usual)], x)
    assert guess.gain / mine.trust == pytest.approx(float(vector(x) @ weights))
    # The error covers that of the estimate, taken exactly.
    a = np.linalg.inv(rows.T @ rows + RIDGE * np.eye(4))
    exact = NOISE * float(vector(x) @ a @ (rows.T @ rows) @ a @ vector(x)) ** 0.5
    assert exact <= guess.error / mine.trust <= 2.0 * exact


def test_who_knows_nothing_says_what_the_posterior_says() -> None:
    nobody, fresh = guesses([(None, 0.6), (bandit.begun(0.1), 0.6)], {"a": 1.0})
    assert (nobody.gain, nobody.error) == (0.0, 0.0)
    assert fresh.gain == pytest.approx(0.0)
    assert fresh.error == pytest.approx(0.0)
    assert nobody.spread == pytest.approx(NOISE * (2.0 / RIDGE) ** 0.5)


def test_older_answers_fade_and_the_ridge_does_not() -> None:
    mine, _, seen = told(3 * EVERY, 0.5, seed=2)
    keep = (1.0 - 1.0 / MEMORY) ** EVERY
    squares = np.zeros((4, 4))
    for n, x in enumerate(seen, 1):
        squares += np.outer(x, x)
        if n % EVERY == 0:
            squares *= keep
    assert np.allclose(np.linalg.inv(np.reshape(mine.inverse, (4, 4))), squares + RIDGE * np.eye(4))


def test_rounding_does_not_pile_up() -> None:
    mine, _, _ = told(5_000, 0.5, seed=4)
    inverse = np.reshape(mine.inverse, (4, 4))
    assert np.array_equal(inverse, inverse.T) or mine.fresh
    assert np.linalg.eigvalsh(inverse).min() > 0.0
    (guess,) = guesses([(mine, 0.5)], {"a": 0.2})
    assert abs(guess.gain) < 0.1


def played(chance_of: Callable[[dict[str, float]], float], answers: int, seed: int) -> tuple[float, int]:
    """Let scores come; return the squared error beyond that of the mean alone, and how often it began anew."""
    rng, usual, anew, error = Random(seed), 0.65, 0, 0.0
    mine = bandit.begun(usual)
    for n in range(answers):
        given = {f"f{k}": rng.gauss(0.0, 0.7) for k in range(MOST)}
        chance = chance_of(given)
        (guess,) = guesses([(mine, usual)], given)
        if n >= answers // 2:
            error += (usual + guess.gain - chance) ** 2 - (usual - chance) ** 2
        score = float(rng.random() < chance)
        if mine.tested(score, 1.0, usual, guess.gain):
            mine, anew = bandit.begun(usual), anew + 1
        mine.learn(given, score)
    return error / (answers - answers // 2), anew


def test_features_that_tell_nothing_do_no_harm() -> None:
    for chance_of in (
        lambda given: 0.65,
        lambda given: 0.9 if given["f0"] * given["f1"] > 0.0 else 0.4,
    ):
        error, anew = played(chance_of, 1200, seed=1)
        assert error < 1e-3
        assert anew == 0


def test_features_that_tell_much_are_trusted_for_good() -> None:
    error, anew = played(lambda given: min(1.0, max(0.0, 0.65 + 0.35 * given["f0"])), 1200, seed=2)
    assert error < -0.03
    assert anew == 0


def test_two_gateways_know_together_what_one_would() -> None:
    rng = Random(3)
    one, other, both = bandit.begun(0.5), bandit.begun(0.8), bandit.begun(0.5)
    for k in range(40):
        given, score, weight = context(rng), rng.random(), rng.choice((1.0, 0.25))
        if k % 3 == 0:
            given = {name: given[name] for name in ("c", "a", "b")}
        (one if k % 3 else other).learn(given, score, weight)
        both.learn(given, score, weight)
    joined = bandit.merged(one, other)
    for usual in (0.2, 0.9):
        x = context(rng)
        (mine,), (whole,) = guesses([(joined, usual)], x), guesses([(both, usual)], x)
        assert mine.gain == pytest.approx(whole.gain)
        assert mine.spread == pytest.approx(whole.spread)
    assert joined.answers == pytest.approx(both.answers)


def test_features_beyond_the_most_are_left_out() -> None:
    mine = bandit.begun(0.5)
    mine.learn({f"f{n}": 1.0 for n in range(20)}, 1.0)
    assert len(mine.names) == MOST
    assert len(mine.inverse) == (MOST + 1) ** 2
    other = bandit.begun(0.5)
    other.learn({f"g{n}": 1.0 for n in range(20)}, 1.0)
    assert bandit.merged(mine, other).names == mine.names


def test_it_survives_being_written_down() -> None:
    mine, _, _ = told(100, 0.5)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(mine), type=bandit.Ridge)
    assert again == mine


# --- what is tried ---------------------------------------------------------------------------------------------


def arms(rng: Random, n: int) -> list[Arm]:
    others = [
        Arm(
            str(k),
            rng.random(),
            rng.random(),
            rng.random() < 0.8,
            False,
            rng.uniform(0, 0.3),
            rng.uniform(0, 0.3),
        )
        for k in range(1, n)
    ]
    return [Arm("0", rng.random(), 0.0, True, False, 0.0, rng.uniform(0.0, 0.3)), *others]


@pytest.mark.parametrize("by", ["epsilon", "linucb", "thompson"])
def test_never_more_than_the_share_is_tried(by: str) -> None:
    rng = Random(6)
    for _ in range(400):
        best, *safe = arms(rng, rng.randint(2, 6))
        explore = Exploration(rng.choice((0.01, 0.1, 0.6, 1.0)), by=by)  # type: ignore[arg-type]
        shares = spread_over(best, safe, explore)
        assert sum(shares) <= explore.share + 1e-12
        assert all(own >= FLOOR * explore.share / len(safe) - 1e-12 for own in shares)


@pytest.mark.parametrize("by", ["epsilon", "linucb", "thompson"])
def test_what_is_picked_has_the_probability_that_is_stated(by: str) -> None:
    rng, chance, n = Random(7), 0x9E3779B97F4A7C15, 20_000
    explore = Exploration(0.3, max_loss=1.0, by=by)  # type: ignore[arg-type]
    best, *others = (msgspec.structs.replace(arm, free=True) for arm in arms(rng, 4))
    stated = dict(zip((a.variant for a in others), spread_over(best, others, explore), strict=True))
    stated["0"] = 1.0 - sum(stated.values())
    picks = dict.fromkeys(stated, 0)
    for _ in range(n):
        chance = next_chance(chance)
        trial = tried("0", [best, *others], explore, chance)
        assert trial.propensity == pytest.approx(stated[trial.pick])
        picks[trial.pick] += 1
    for name, probability in stated.items():
        assert picks[name] / n == pytest.approx(probability, abs=0.012)


def test_linucb_tries_what_could_be_best() -> None:
    best = Arm("best", 0.9, 0.8, True, False, 0.0, 0.02)
    sure = Arm("sure", 0.85, 0.8, True, False, 0.05, 0.01)
    new = Arm("new", 0.8, 0.7, True, False, 0.1, 0.3)
    explore = Exploration(0.1, by="linucb")
    known, unknown = spread_over(best, [sure, new], explore)
    assert known == pytest.approx(0.1 * FLOOR / 2)
    assert known + unknown == pytest.approx(0.1)
    # Where nothing could be better, all are tried alike, lest a repair is missed.
    bad = msgspec.structs.replace(sure, variant="bad", behind=0.4)
    assert spread_over(best, [sure, bad], explore) == [0.05, 0.05]


def test_thompson_tries_each_as_often_as_it_is_likely_to_be_best() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 5):
        behind, spread = rng.uniform(0, 0.2, n), rng.uniform(0.05, 0.3, n)
        behind[0] = 0.0
        given = [Arm(str(k), 0.5, 0.4, True, False, float(behind[k]), float(spread[k])) for k in range(n)]
        drawn = rng.normal(size=(100_000, n)) * spread - behind
        often = np.bincount(drawn.argmax(axis=1), minlength=n) / 100_000
        assert np.allclose(likely_best(given), often, atol=0.01)
        wishes = likely_best(given)[1:]
        shares = spread_over(given[0], given[1:], Exploration(1.0, by="thompson"))
        rest = min(1.0, (1.0 - FLOOR) / sum(wishes))
        assert shares == [pytest.approx(FLOOR / (n - 1) + rest * wish) for wish in wishes]


def test_thompson_stops_where_it_is_sure() -> None:
    best = Arm("best", 0.9, 0.8, True, False, 0.0, 0.01)
    bad = Arm("bad", 0.5, 0.4, True, False, 0.4, 0.01)
    assert spread_over(best, [bad], Exploration(0.1, by="thompson")) == [pytest.approx(0.1 * FLOOR)]
