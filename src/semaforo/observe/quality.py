"""Quality of answers against the truth, each figure with a 95 % interval.

Rules this module keeps:

1. A quality goes from 0 to 1 and more is better, as the scheduler reads it. An error in the target's own unit is
   put on this scale by the error of the best constant answer: 1 = no error, 0 = no better than a constant.
2. A metric is a function of the means of some figures of each row. Its interval comes from resampling the rows
   (percentile bootstrap: Efron, The Annals of Statistics 7, 1979), with a fixed seed.
3. What is not finite is no quality: it is an error that says how many answers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities.final import final_answer
from semaforo.errors import InvalidRequest, ModelFailed

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

CLASS_METRICS = ("accuracy", "macro-f1", "top-k")
NUMBER_METRICS = ("r2", "mae", "rmse")
TEXT_METRICS = ("exact", "contains", "final")
_RESAMPLES = 1000
_MOST_DRAWS = 20_000_000
_BINS = 15
_SEED = 20_231


class Quality(msgspec.Struct, frozen=True):
    """What a metric says of one variant.

    Attributes:
        metric: Its name, ``top-5`` for example.
        value: 0…1, more is better.
        low, high: Ends of the 95 % interval.
        rows: Rows it rests on.
        beside: Figures reported beside it: ``log-loss`` (nats), ``ECE`` (0…1), ``MAE`` and ``RMSE`` (the
            target's unit).
    """

    metric: str
    value: float
    low: float
    high: float
    rows: int
    beside: dict[str, float] = {}


def of_classes(metric: str, truth: Array, said: Array, scores: Floats | None = None, k: int = 5) -> Quality:
    """Judge classes.

    Args:
        metric: One of `CLASS_METRICS`.
        truth: Right classes ``(rows,)``: indices where `scores` are given, otherwise anything comparable.
        said: Classes that were answered ``(rows,)``.
        scores: A score for each class ``(rows, classes)``, for top-k, log-loss and calibration.
        k: Best-scored classes among which top-k looks.

    Raises:
        InvalidRequest: top-k without scores.
    """
    beside = {} if scores is None else calibration(truth, scores)
    if metric == "macro-f1":
        classes = np.unique(np.concatenate([truth, said]))
        right, answered = truth[:, None] == classes, said[:, None] == classes
        figures = np.concatenate([right & answered, right, answered], axis=1)
        return _quality(metric, figures.astype(float), _macro_f1, beside)
    if metric == "top-k":
        if scores is None:
            raise InvalidRequest("top-k needs an output that scores each class, as probabilities: fp32[10]")
        k = min(k, scores.shape[1])
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return _quality(f"top-{k}", (best == truth[:, None]).any(axis=1, keepdims=True), _mean, beside)
    return _quality(metric, (truth == said)[:, None], _mean, beside)


def of_numbers(metric: str, truth: Floats, said: Floats) -> Quality:
    """Judge numbers ``(rows, …)``; R² is the mean over the numbers of a row, errors are pooled.

    Raises:
        InvalidRequest: The truth is one constant, so there is no scale.
        ModelFailed: Answers are not finite.
    """
    rows = len(truth)
    truth, said = truth.reshape(rows, -1).astype(float), said.reshape(rows, -1).astype(float)
    wrong = int((~np.isfinite(said)).any(axis=1).sum())
    if wrong:
        raise ModelFailed(f"{wrong} of {rows} answers are not finite numbers")
    if not (truth != truth[0]).any():
        raise InvalidRequest(
            "the truth is the same in all rows, so nothing tells a good answer: take other rows"
        )
    error = said - truth
    beside = {"MAE": float(np.abs(error).mean()), "RMSE": float(np.sqrt((error**2).mean()))}
    if metric == "mae":
        spread = np.abs(truth - np.median(truth, axis=0))
        figures = np.stack([np.abs(error).mean(axis=1), spread.mean(axis=1)], axis=1)
        return _quality(metric, figures, lambda m: _share(m[0], m[1]), beside)
    if metric == "rmse":
        spread = (truth - truth.mean(axis=0)) ** 2
        figures = np.stack([(error**2).mean(axis=1), spread.mean(axis=1)], axis=1)
        return _quality(metric, figures, lambda m: _share(m[0] ** 0.5, m[1] ** 0.5), beside)
    varied = (truth != truth[0]).any(axis=0)
    # Far from zero, the difference of squares in a variance would lose its digits.
    centred = (truth - truth.mean(axis=0))[:, varied]
    figures = np.concatenate([error[:, varied] ** 2, centred, centred**2], axis=1)
    return _quality("r2", figures, _r2, beside)


def of_texts(metric: str, truth: list[str], said: list[str]) -> Quality:
    """Judge texts; see `hits`."""
    return of_hits(metric, hits(metric, truth, said))


def of_hits(metric: str, right: Array) -> Quality:
    """Judge answers that are right or not, ``(rows,)``."""
    return _quality(metric, right[:, None], _mean, {})


def hits(metric: str, truth: Sequence[str], said: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which texts are right ``(rows,)``.

    Args:
        metric: ``exact`` = the same but for space around it; ``contains`` = the truth occurs, in any case;
            ``final`` = both come to the same, their last number or last line.
        truth: What is right.
        said: What was answered.
    """
    pairs = zip(truth, said, strict=True)
    if metric == "contains":
        return np.array([right.strip().casefold() in answer.casefold() for right, answer in pairs])
    if metric == "final":
        return np.array([final_answer(right) == final_answer(answer) for right, answer in pairs])
    return np.array([right.strip() == answer.strip() for right, answer in pairs])


def calibration(truth: Array, scores: Floats) -> dict[str, float]:
    """Return log-loss (nats) and expected calibration error, or nothing where scores are no probabilities.

    The calibration error takes 15 equal bins of confidence (Guo et al., ICML 2017).
    """
    rows, classes = scores.shape
    indices = truth.dtype.kind in "iu" and rows and int(truth.min()) >= 0 and int(truth.max()) < classes
    sums = scores.sum(axis=1)
    if not indices or not np.isfinite(scores).all() or scores.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        return {}
    at_truth = scores[np.arange(rows), truth.astype(np.int64)]
    confidence = scores.max(axis=1)
    hit = scores.argmax(axis=1) == truth
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.abs(np.bincount(bins, hit - confidence, minlength=_BINS)) / rows
    return {
        "log-loss": float(-np.log(np.maximum(at_truth, 1e-15)).mean()),
        "ECE": float(gaps.sum()),
    }


def _quality(
    metric: str, figures: Array, value: Callable[[Floats], float], beside: dict[str, float]
) -> Quality:
    per_row: Floats = np.asarray(figures, dtype=np.float64)
    rows = len(per_row)
    draws = np.random.default_rng(_SEED)
    resampled = []
    for _ in range(max(100, min(_RESAMPLES, _MOST_DRAWS // max(1, rows)))):
        counts = np.bincount(draws.integers(0, rows, rows), minlength=rows)
        resampled.append(value(counts @ per_row / rows))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Quality(metric, value(per_row.mean(axis=0)), float(low), float(high), rows, beside)


def _mean(means: Floats) -> float:
    return float(means[0])


def _macro_f1(means: Floats) -> float:
    both, right, answered = np.split(means, 3)
    seen = right + answered > 0
    return float((2 * both[seen] / (right + answered)[seen]).mean())


def _r2(means: Floats) -> float:
    error, centre, square = np.split(means, 3)
    spread = square - centre**2
    seen = spread > 0
    return _clip(float((1 - error[seen] / spread[seen]).mean())) if seen.any() else 0.0


def _share(error: float, constant: float) -> float:
    return _clip(1 - error / constant) if constant > 0 else 0.0


def _clip(value: float) -> float:
    return min(1.0, max(0.0, float(value)))
