"""Learning online: from the score of one model for each request, on MMLU and on nine models.

For two models the objective has a price, at which both are equally good on average: whatever is gained is learned.
The learner that is given all scores is the same one, on the same requests and features. Features are what texts
look like and their words, in a few leading directions of each, which are found without any score, and the task
where there are several: one score for each request teaches little, and every further direction costs some of it.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from benchmarks.report import Report, bootstrap, table
from benchmarks.routing import data
from semaforo.features.text import text_vector, words_of
from semaforo.jobs.learn import levels
from semaforo.routing import bandit
from semaforo.routing.bandit import Kind
from semaforo.routing.table import Table
from semaforo.routing.words import learned

Floats = NDArray[np.float64]

REQUESTS = 3000
LOOKS, WORDS, WIDER = 8, 12, 48
KINDS: tuple[Kind, ...] = ("epsilon", "linucb", "thompson")


def measure(report: Report, quick: bool) -> None:
    """Measure both tables, and draw regret."""
    rows = 1500 if quick else 0
    for name, end, found, aim in (
        ("2", "", data.mmlu(rows), 0.9),
        ("9", "_nine", data.nine_models(rows), 0.65),
    ):
        if found is None:
            report.note(f"no table of {name} models is at hand: bandits are measured on a made one")
            found = data.made(2500)
        report.progress(f"bandits: {name} models")
        share = _one(report, name, found, 2 if quick else 10, 600 if quick else REQUESTS)
        report.add(f"bandit_share_of_full_3000{end}", share, aim=aim, better="more")


def features(found: Table) -> Floats:
    """Return features ``(n, d)`` of all requests, the first of them 1."""
    words = [words_of(prompt) for prompt in found.prompts]
    matrix = levels.texts_of(learned(words), words).matrix
    _, _, space = randomized_svd(matrix, WIDER, n_iter=2, random_state=0)
    places = matrix @ space.T
    places *= WIDER**0.5 / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-9)
    looks = np.array([text_vector(p, w) for p, w in zip(found.prompts, words, strict=True)])
    looks = np.clip((looks - looks.mean(axis=0)) / (looks.std(axis=0) + 1e-9), -3.0, 3.0)
    looks -= looks.mean(axis=0)
    looks = looks @ np.linalg.svd(looks, full_matrices=False)[2][:LOOKS].T
    tasks, of = np.unique(np.array(found.tasks), return_inverse=True)
    own = 3.0 * np.eye(len(tasks))[of] if len(tasks) > 1 else np.zeros((len(found), 0))
    return np.hstack([np.ones((len(found), 1)), looks, places[:, :WORDS], own])


def _one(report: Report, name: str, found: Table, orders: int, requests: int) -> tuple[float, float, float]:
    x = features(found)
    n, m = found.scores.shape
    price = np.zeros(m)
    if m == 2:
        price[1] = found.scores[:, 1].mean() - found.scores[:, 0].mean()
    reward = found.scores - price
    gains: list[tuple[float, float]] = []
    curves: dict[str, list[Floats]] = {kind: [] for kind in KINDS}
    online: dict[str, list[float]] = {kind: [] for kind in KINDS}
    step_us: dict[str, float] = {}
    for seed in range(orders):
        rng = np.random.default_rng(seed)
        order = rng.permutation(n)
        seen, rest = order[:requests], order[requests:]
        random = float(reward[rest].mean())

        def worth(weights: Floats, rest: NDArray[np.int64] = rest, random: float = random) -> float:
            return float(reward[rest, (x[rest] @ weights.T).argmax(axis=1)].mean()) - random

        centred = reward[seen] - reward[seen].mean(axis=1, keepdims=True)
        full = worth(bandit.ridge(x[seen], centred).T)
        picks = rng.integers(0, m, requests)
        scores = reward[seen, picks]
        gains.append((worth(bandit.contrasts(x[seen], picks, scores, np.full((requests, m), 1.0 / m))), full))
        for kind in KINDS:
            learner = bandit.begun(kind, m, x.shape[1], floor=0.05)
            regret = np.empty(requests)
            begun = time.perf_counter()
            for i, row in enumerate(seen.tolist()):
                pick, _ = learner.pick(x[row], rng)
                learner.learn(pick, x[row], float(reward[row, pick]))
                regret[i] = reward[row].mean() - reward[row, pick]
            step_us[kind] = (time.perf_counter() - begun) / requests * 1e6
            curves[kind].append(np.cumsum(-regret))
            online[kind].append(worth(learner.weights()))
    shown = table(f"{name} models, {requests:,} requests, one score each: gain over random", "learner", "held out",
                  "share of full", "µs a step")  # fmt: skip
    got, most = (np.array([pair[k] for pair in gains]) for k in (0, 1))
    shown.add_row("all scores given", f"{most.mean():.4f}", "100%", "")
    shown.add_row("contrasts, from a random log", f"{got.mean():.4f}", f"{got.mean() / most.mean():.0%}", "")
    for kind in KINDS:
        mean = float(np.mean(online[kind]))
        shown.add_row(kind, f"{mean:.4f}", f"{mean / most.mean():.0%}", f"{step_us[kind]:.0f}")
    report.tables.append(shown)
    if report.keeping:
        _plot(report, name, curves)
    return bootstrap(
        [float(k) for k in range(orders)],
        lambda drawn: float(got[np.array(drawn, int)].mean() / most[np.array(drawn, int)].mean()),
    )


def _plot(report: Report, name: str, curves: dict[str, list[Floats]]) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("requests", "gained over random, in all")
    for kind, found in curves.items():
        mean = np.mean(found, axis=0)
        axes.plot(np.arange(1, len(mean) + 1), mean, label=kind, lw=1.3)
    axes.legend()
    axes.set_title(f"{name} models: what bandits gain while they learn")
    save(plot, report.plot_path(f"bandits-{name}"))
