"""Trains a predictor on a table of scores.

What happens, in order:

1. The mean scores of all models. What is learned are targets: differences between models, and what they share.
2. The words of all prompts become vectors; no scores are looked at for that.
3. The levels below the trees, the means of the tasks first, are fitted and asked out of fold, by rows and by
   groups.
4. Trees learn from what requests look like and from those levels, out of fold again.
5. The weights of the stack: non-negative least squares on what was said out of fold.
6. All levels are fitted once more, to all rows.
7. Where requests have embeddings, a level that looks at them is stacked on all of that (`jobs/learn/embedded.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest
from semaforo.features.text import TEXT_NUMBERS, text_vector, words_of
from semaforo.jobs.learn import levels
from semaforo.jobs.learn.embedded import Told, train_embedded
from semaforo.jobs.learn.levels import Texts
from semaforo.routing.predictor import PARTS, Predictor
from semaforo.routing.table import Table
from semaforo.routing.words import learned

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FOLDS = 5
LEAST_ROWS = 30
LEAST_SCORES = 10
"""Of a model, so that every fold of training has some."""
STRANGE = 0.1
_GROUPS = 3


class Setting(msgspec.Struct):
    """What all levels are fitted to.

    Attributes:
        targets: (n, h).
        tasks: (n,) numbers of tasks.
        groups: (n,) numbers of groups; empty where there are none.
        looks: (n, f) features of texts and further ones.
        texts: The words; None where there are none.
        penalty, sharpness: Of the linear level, of topics.
    """

    targets: Floats
    tasks: NDArray[np.int64]
    groups: NDArray[np.int64]
    looks: Floats
    texts: Texts | None
    seed: int
    penalty: float = 10.0
    sharpness: float = 20.0


def train(table: Table, *, seed: int = 0) -> Predictor:
    """Train a predictor.

    Args:
        table: Scores of two models or more. Requests without any score are learned from as well: which words
            there are, how rare, and which of them tell groups apart.
        seed: Of everything that is drawn.

    Raises:
        InvalidRequest: There is too little to learn from.
    """
    n, scored = len(table), int((~np.isnan(table.scores)).any(axis=1).sum())
    if scored < LEAST_ROWS:
        raise InvalidRequest(f"{scored} requests are too few to learn from: take {LEAST_ROWS} at least")
    if len(table.models) < 2:
        raise InvalidRequest("there is one model only, and so nothing to choose")
    base = np.nanmean(table.scores, axis=0)
    targets, basis = contrasts(table.scores - base)
    setting = _setting(table, targets, seed)
    if setting.texts is not None:
        _tune(setting)
    folds = list(_folds(n, seed))
    inside, trees, novelty, said = _stack(setting, folds)
    outside, domain = np.zeros_like(inside), _unheard(novelty[:, 0])
    apart = list(_apart(setting.groups, seed))
    told = None
    if apart:
        outside, _, strange, abroad = _stack(setting, apart)
        domain = _domain(novelty, strange)
        told = Told(apart, abroad)
    found = _whole(table, base, basis, setting, trees, inside, outside, domain)
    if table.embeddings is None:
        return found
    level = train_embedded(table.embeddings, targets, Told(folds, said), told, table.space, seed)
    return msgspec.structs.replace(found, embedded=level)


def learnable(table: Table, folds: int) -> tuple[Table, tuple[str, ...]]:
    """Return what can be learned from and tried out in folds, and the models that have too few scores for it.

    Raises:
        InvalidRequest: There are too few requests, or fewer than two models are left.
    """
    known = ~np.isnan(table.scores)
    scored, least = int(known.any(axis=1).sum()), -(-LEAST_ROWS * folds // (folds - 1))
    if scored < least:
        raise InvalidRequest(
            f"{scored} {'request is' if scored == 1 else 'requests are'} too few to learn from and to try that out "
            f"in {folds} folds: take {least} at least"
        )
    few = tuple(name for name, n in zip(table.models, known.sum(axis=0), strict=True) if n < LEAST_SCORES)
    kept = [name for name in table.models if name not in few]
    if len(kept) < 2:
        raise InvalidRequest(
            f"{', '.join(few)} {'has' if len(few) == 1 else 'have'} fewer than {LEAST_SCORES} scores, and two "
            "models at least make a choice"
        )
    return (table.of_models(kept) if few else table), few


def contrasts(deviations: Floats) -> tuple[Floats, Floats]:
    """Return targets ``(n, h)`` for deviations from the base ``(n, m)``, and the basis ``(h, m)`` that undoes it.

    Where few of the requests that have a score were put to all models, each model is a target by itself.
    """
    m = deviations.shape[1]
    whole = ~np.isnan(deviations).any(axis=1)
    if whole.sum() < 0.5 * (~np.isnan(deviations)).any(axis=1).sum():
        return deviations, np.eye(m)
    mean = np.where(whole, deviations.mean(axis=1), np.nan)[:, None]
    if m == 2:
        return np.hstack([deviations[:, 1:] - deviations[:, :1], mean]), np.array([[-0.5, 0.5], [1.0, 1.0]])
    return np.hstack([deviations - mean, mean]), np.vstack([np.eye(m), np.ones((1, m))])


def task_means(targets: Floats, of: Indices, asked: Indices) -> Floats:
    """Return the shrunk mean targets of tasks, one row for each that is asked, given those of rows ``(n, h)``."""
    names = np.unique(of)
    if len(np.unique(asked)) < 2:
        return np.zeros((len(asked), targets.shape[1]))
    means = np.stack([levels.shrunk_means(targets[:, k], of, names) for k in range(targets.shape[1])], axis=1)
    at = np.searchsorted(names, asked).clip(0, len(names) - 1)
    return np.where((names[at] == asked)[:, None], means[at], 0.0)


def _setting(table: Table, targets: Floats, seed: int) -> Setting:
    texts = None
    looks = np.full((len(table), len(TEXT_NUMBERS)), np.nan)
    if any(table.prompts):
        words = [words_of(prompt) for prompt in table.prompts]
        looks = np.stack(
            [text_vector(p, w) if p else looks[0] for p, w in zip(table.prompts, words, strict=True)]
        )
        texts = levels.texts_of(learned(words), words)
    if table.features:
        looks = np.hstack([looks, table.numbers])
    named = table.groups if table.groups and len(set(table.groups)) > _GROUPS else table.tasks
    names, of = np.unique(np.array(named), return_inverse=True)
    groups = of if len(names) >= _GROUPS else np.zeros(0, np.int64)
    tasks = np.unique(np.array(table.tasks), return_inverse=True)[1]
    return Setting(targets, tasks.astype(np.int64), groups.astype(np.int64), looks, texts, seed)


def _folds(n: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    order = np.random.default_rng(seed).permutation(n)
    for part in np.array_split(order, FOLDS):
        yield np.setdiff1d(order, part), np.sort(part)


def _apart(groups: NDArray[np.int64], seed: int) -> Iterator[tuple[Indices, Indices]]:
    """Leave groups out, each once, in about as many parts as there are folds."""
    names = np.unique(groups)
    if len(names) < _GROUPS:
        return
    order = np.random.default_rng(seed).permutation(names)
    for part in np.array_split(order, min(FOLDS, len(names))):
        out = np.isin(groups, part)
        if out.any() and not out.all():
            yield np.flatnonzero(~out), np.flatnonzero(out)


def _tune(setting: Setting) -> None:
    """Choose what the levels are fitted with, by the squared error on a held-out part."""
    texts, targets = setting.texts, setting.targets
    assert texts is not None
    train_rows, test = next(_folds(len(targets), setting.seed + 1))
    truth = targets[test]

    def error(said: Floats) -> float:
        return float(np.nanmean((truth - said) ** 2))

    fitted = {
        p: texts.matrix[test] @ levels.fit_linear(texts, targets, train_rows, p) for p in levels.PENALTIES
    }
    setting.penalty = min(fitted, key=lambda p: error(fitted[p]))
    if len(setting.groups):
        topics = levels.fit_topics(texts, setting.groups, targets, train_rows, 1.0)
        setting.sharpness = min(
            levels.SHARPNESS,
            key=lambda s: error(
                levels.ask_topics(msgspec.structs.replace(topics, sharpness=s), texts.matrix[test])[0]
            ),
        )


def _stack(setting: Setting, folds: list[tuple[Indices, Indices]]) -> tuple[Floats, Floats, Floats, Floats]:
    """Fit and ask all levels out of fold.

    Returns:
        Weights of the stack (parts, h), the features of the trees (n, f), what tells domains apart (n, 2), and what
        the stack says out of fold (n, h).
    """
    from scipy.optimize import nnls

    targets = setting.targets
    n, h = targets.shape
    said = np.zeros((n, len(PARTS), h))
    novelty = np.ones((n, 2))
    novelty[:, 0] = 0.0
    for fitted, asked in folds:
        _ask(setting, fitted, asked, said, novelty)
    rows = np.hstack([setting.looks, said[:, :-1].reshape(n, -1)])
    for k in range(h):
        for fitted, asked in folds:
            if (~np.isnan(targets[fitted, k])).sum() >= LEAST_ROWS:
                said[asked, -1, k] = levels.fit_trees(rows[fitted], targets[fitted, k], setting.seed).predict(
                    rows[asked]
                )[:, 0]
    weights = np.zeros((len(PARTS), h))
    for k in range(h):
        known = ~np.isnan(targets[:, k])
        if known.any():
            weights[:, k] = nnls(said[known, :, k], targets[known, k])[0]
    return weights, rows, novelty, (said * weights).sum(axis=1)


def _ask(setting: Setting, fitted: Indices, asked: Indices, said: Floats, novelty: Floats) -> None:
    texts, targets = setting.texts, setting.targets
    said[asked, 0] = task_means(targets[fitted], setting.tasks[fitted], setting.tasks)[asked]
    if texts is None:
        return
    matrix = texts.matrix[asked]
    said[asked, 1] = matrix @ levels.fit_linear(texts, targets, fitted, setting.penalty)
    # Words that only the held-out part has count as unknown, as they will be when they first come.
    seen = np.zeros(matrix.shape[1], bool)
    seen[np.unique(texts.matrix[fitted].indices)] = True
    counts = np.maximum(np.diff(matrix.indptr), 1)
    new = np.add.reduceat(np.append(~seen[matrix.indices], False).astype(float), matrix.indptr[:-1])
    new[np.diff(matrix.indptr) == 0] = 1.0
    novelty[asked, 0] = texts.unknown[asked] + (1.0 - texts.unknown[asked]) * np.minimum(1.0, new / counts)
    if len(setting.groups):
        topics = levels.fit_topics(texts, setting.groups, targets, fitted, setting.sharpness)
        said[asked, 2], novelty[asked, 1] = levels.ask_topics(topics, matrix)


def _unheard(unknown: Floats) -> Floats:
    """Return a logistic function ``(3,)`` of the share of unknown words, where no groups are there to learn from.

    A share that one request of training in a hundred exceeds counts for a twentieth, a request of unknown words
    alone for all but a twentieth.
    """
    usual = min(float(np.quantile(unknown, 0.99)), 0.99)
    steep = 2.0 * np.log(19.0) / (1.0 - usual)
    return np.array([steep, 0.0, -steep * (1.0 + usual) / 2.0])


def _domain(usual: Floats, strange: Floats) -> Floats:
    """Return a logistic regression ``(3,)`` that tells rows of left-out groups from rows of left-out folds.

    It holds for a stream of which a share `STRANGE` comes from groups that were not in training.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.vstack([usual, strange])
    outside = np.repeat([0, 1], [len(usual), len(strange)])
    model = LogisticRegression(C=100.0, max_iter=500).fit(rows, outside)
    return np.append(model.coef_[0], model.intercept_[0] + np.log(STRANGE / (1.0 - STRANGE)))


def _whole(
    table: Table,
    base: Floats,
    basis: Floats,
    setting: Setting,
    rows: Floats,
    inside: Floats,
    outside: Floats,
    domain: Floats,
) -> Predictor:
    texts, targets, every = setting.texts, setting.targets, np.arange(len(table))
    linear = topics = None
    if texts is not None:
        linear = levels.fit_linear(texts, targets, every, setting.penalty)
        if len(setting.groups):
            topics = levels.fit_topics(texts, setting.groups, targets, every, setting.sharpness)
    means = task_means(targets, setting.tasks, setting.tasks)
    tasks = {task: means[i] for i, task in enumerate(table.tasks)}
    used = (inside[-1] > 0.0).any() or (outside[-1] > 0.0).any()
    trees = (
        [levels.fit_trees(rows, targets[:, k], setting.seed) for k in range(targets.shape[1])] if used else []
    )
    return Predictor(
        models=table.models,
        basis=basis,
        base=base,
        tasks=tasks,
        words=texts.words if texts is not None else None,
        linear=linear,
        topics=topics,
        features=table.features,
        looks=len(TEXT_NUMBERS),
        trees=tuple(trees),
        inside=inside,
        outside=outside,
        domain=domain,
    )
