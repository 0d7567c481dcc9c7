"""What a router is worth on a table, before it goes live: by all scores, or by a log of what was picked."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest
from semaforo.jobs.learn.crossval import out_of_fold, signals_of
from semaforo.routing import metrics, offpolicy
from semaforo.routing.metrics import Interval
from semaforo.routing.offpolicy import Estimate, Log
from semaforo.routing.predictor import Predictor
from semaforo.routing.scorer import Scorer
from semaforo.routing.table import Table

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

KEEPS = (1.0, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.3, 0.0)


class Point(msgspec.Struct, frozen=True):
    """One way to choose: what it costs and what it is worth.

    Attributes:
        name: Of the way.
        score: Mean score.
        cost: Mean US dollars of a request; NaN where nobody said what models cost.
        keep: Share of the best predicted quality that is kept; NaN for what is no router.
    """

    name: str
    score: Interval
    cost: float
    keep: float = float("nan")


def predict(predictor: Predictor, table: Table) -> tuple[Floats, Floats]:
    """Predict the scores of a table's models ``(n, m)``, with the trust ``(n,)``.

    Raises:
        InvalidRequest: The predictor does not know a model of the table.
    """
    missing = [model for model in table.models if model not in predictor.models]
    if missing:
        raise InvalidRequest(
            f"the router does not know {', '.join(missing)}: it was trained on {', '.join(predictor.models)}"
        )
    columns = [predictor.models.index(model) for model in table.models]
    scorer = Scorer(predictor)
    scores, trust = np.zeros((len(table), len(columns))), np.zeros(len(table))
    tasks = np.array(table.tasks, dtype=object)
    for task in sorted(set(table.tasks)):
        asked = np.flatnonzero(tasks == task)
        found, trust[asked] = scorer.predict(task, signals_of(table, asked))
        scores[asked] = found[:, columns]
    return scores, trust


def choose(predicted: Floats, costs: Floats, keep: float) -> Indices:
    """Return the cheapest model ``(n,)`` whose predicted score is at least `keep` times the best one's.

    Args:
        predicted: (n, m).
        costs: (m,) NaN = unknown; models of equal cost are chosen among by predicted score.
        keep: 0…1.
    """
    price = np.nan_to_num(costs, nan=0.0)
    allowed = predicted >= keep * predicted.max(axis=1, keepdims=True) - 1e-12
    span = float(price.max() - price.min()) or 1.0
    rank = np.where(allowed, price[None, :] / span - 1e-9 * predicted, np.inf)
    found: Indices = rank.argmin(axis=1)
    return found


def frontier(table: Table, predicted: Floats) -> list[Point]:
    """Return what can be had at which cost: routers of all tempers, each single model, the task's best, the oracle.

    Raises:
        InvalidRequest: Not all requests were put to all models, so that nobody knows what others would have scored.
    """
    if np.isnan(table.scores).any():
        raise InvalidRequest(
            "not all requests were put to all models: a frontier needs all scores; a log is judged by `evaluate`"
        )
    n, m = table.scores.shape
    costs = mean_costs(table)
    spent = np.where(np.isnan(table.costs), costs[None, :], table.costs)

    def point(name: str, chosen: Indices, keep: float = float("nan")) -> Point:
        rows = np.arange(n)
        scores = table.scores[rows, chosen]
        return Point(
            name, metrics.bootstrap(lambda at: float(scores[at].mean()), n, draws=200),
            float(spent[rows, chosen].mean()), keep,
        )  # fmt: skip

    found = [point(f"keeps {keep:.0%}", choose(predicted, costs, keep), keep) for keep in KEEPS]
    found += [point(model, np.full(n, j, np.int64)) for j, model in enumerate(table.models)]
    found.append(point("random", np.random.default_rng(0).permutation(n) % m))
    found.append(point("oracle", choose(table.scores, costs, 1.0)))
    return found


def judged(table: Table, predictor: Predictor, *, keep: float = 1.0, seed: int = 0) -> Estimate:
    """Estimate a router's worth on a log of what was picked with which probability.

    Raises:
        InvalidRequest: The table is no log, or cannot judge.
    """
    if table.propensities is None:
        raise InvalidRequest("the table has no column 'propensity': it is no log of a policy that explores")
    rows, picks = np.nonzero(~np.isnan(table.scores))
    if len(np.unique(rows)) < len(rows):
        raise InvalidRequest(
            "the log has requests that several models answered: leave one row for each request"
        )
    logged = table.rows(rows)
    log = Log(picks, np.nan_to_num(table.propensities[rows, picks]), table.scores[rows, picks])
    predicted, _ = predict(predictor, logged)
    costs = mean_costs(logged)
    modelled = None
    if len(rows) >= 100:
        modelled, _ = out_of_fold(logged, folds=3, seed=seed)
    return offpolicy.estimate(log, choose(predicted, costs, keep), modelled, seed=seed)


def mean_costs(table: Table) -> Floats:
    """Return what each model costs on average ``(m,)``; NaN where nobody said."""
    known = ~np.isnan(table.costs)
    sums, counts = np.where(known, table.costs, 0.0).sum(axis=0), known.sum(axis=0)
    found: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found
