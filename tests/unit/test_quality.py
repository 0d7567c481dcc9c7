"""Metrics against scikit-learn's, and intervals against theory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from semaforo.errors import InvalidRequest, ModelFailed
from semaforo.observe.quality import calibration, of_classes, of_numbers, of_texts


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 5, 400)
    logits = rng.normal(size=(400, 5))
    logits[np.arange(400), truth] += 1.5
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, scores.argmax(axis=1), scores


def test_metrics_of_classes_are_scikit_learns(classes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, said, scores = classes
    found = of_classes("accuracy", truth, said, scores)
    assert found.value == pytest.approx(metrics.accuracy_score(truth, said))
    assert found.beside["log-loss"] == pytest.approx(metrics.log_loss(truth, scores))
    f1 = of_classes("macro-f1", truth, said).value
    assert f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    top = of_classes("top-k", truth, said, scores, k=2)
    assert top.metric == "top-2"
    assert top.value == pytest.approx(metrics.top_k_accuracy_score(truth, scores, k=2))


def test_words_are_classes_too() -> None:
    truth, said = np.array(["a", "b", "b", "c"]), np.array(["a", "b", "c", "d"])
    assert of_classes("accuracy", truth, said).value == 0.5
    expected = metrics.f1_score(truth, said, average="macro")
    assert of_classes("macro-f1", truth, said).value == pytest.approx(expected)


def test_metrics_of_numbers_are_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(1e6, 3, size=(300, 2))
    said = truth + rng.normal(size=(300, 2))
    found = of_numbers("r2", truth, said)
    assert found.value == pytest.approx(metrics.r2_score(truth, said), abs=1e-9)
    assert found.beside["MAE"] == pytest.approx(metrics.mean_absolute_error(truth, said))
    assert found.beside["RMSE"] == pytest.approx(metrics.root_mean_squared_error(truth, said), rel=0.01)
    one, other = truth[:, 0], said[:, 0]
    mae = 1 - metrics.mean_absolute_error(one, other) / np.abs(one - np.median(one)).mean()
    assert of_numbers("mae", one, other).value == pytest.approx(mae)
    rmse = 1 - metrics.root_mean_squared_error(one, other) / one.std()
    assert of_numbers("rmse", one, other).value == pytest.approx(rmse)


def test_worse_than_a_constant_is_no_quality() -> None:
    truth = np.arange(20.0)
    for metric in ("r2", "mae", "rmse"):
        assert of_numbers(metric, truth, truth[::-1] * 3).value == 0.0
        assert of_numbers(metric, truth, truth).value == 1.0


def test_the_interval_of_a_share_is_as_wide_as_theory_says() -> None:
    rows = 1000
    truth, said = np.zeros(rows, dtype=int), (np.arange(rows) % 5 == 0).astype(int)
    found = of_classes("accuracy", truth, said)
    half = 1.96 * (0.8 * 0.2 / rows) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.8 - half, 0.8 + half), abs=half / 5)
    assert of_classes("accuracy", truth, said) == found  # the seed is fixed


def test_calibration_counts_the_gap_between_confidence_and_hits() -> None:
    scores = np.tile([0.9, 0.1], (100, 1))
    truth = np.repeat([0, 1], [60, 40])
    assert calibration(truth, scores)["ECE"] == pytest.approx(0.3)
    assert calibration(truth, scores * 2) == {}  # no probabilities
    assert calibration(truth + 5, scores) == {}  # no indices of these scores


def test_what_cannot_be_judged_is_an_error() -> None:
    with pytest.raises(ModelFailed, match="2 of 3 answers are not finite"):
        of_numbers("r2", np.arange(3.0), np.array([0.0, np.nan, np.inf]))
    with pytest.raises(InvalidRequest, match="the same in all rows"):
        of_numbers("mae", np.ones(3), np.ones(3))
    with pytest.raises(InvalidRequest, match="scores each class"):
        of_classes("top-k", np.ones(3), np.ones(3))


def test_texts() -> None:
    truth, said = ["Paris", "4", "blue"], ["It is PARIS.", " 4 ", "red"]
    assert of_texts("exact", truth, said).value == pytest.approx(1 / 3)
    assert of_texts("contains", truth, said).value == pytest.approx(2 / 3)
