"""Prompt-only routing: what is recovered of the gap between models, out of fold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report, table
from benchmarks.routing import data
from semaforo.jobs.learn.crossval import out_of_fold
from semaforo.routing import metrics
from semaforo.routing.metrics import Interval
from semaforo.routing.table import Table

Floats = NDArray[np.float64]


def measure_mmlu(report: Report, quick: bool) -> None:
    """MMLU with two models: in domain, with the subject as task, with 1,500 labels, on subjects never seen."""
    found = data.mmlu(240 if quick else 0)
    if found is None:
        report.note("MMLU is not at hand: a made table of sums takes its place")
        found = data.made()
        found = Table(
            found.models, ("mmlu",) * len(found), found.prompts, found.scores, found.costs, groups=found.tasks
        )
    tagged = Table(found.models, found.groups, found.prompts, found.scores, found.costs, groups=found.groups)
    gain = found.scores[:, 1] - found.scores[:, 0]
    rows: list[tuple[str, Floats]] = [
        ("random", np.random.default_rng(0).random(len(found))),
        ("prompt length", np.array([len(p) for p in found.prompts], float)),
        ("mean of the subject", task_means(tagged, quick)),
    ]
    settings = [
        ("mmlu_apgr", "prompt only", found, {}, 0.70),
        ("mmlu_apgr_tag", "prompt and subject", tagged, {}, 0.72),
        ("mmlu_apgr_1500", "prompt only, 1,500 labels", found, {"most": 1500 if not quick else 100}, 0.66),
        ("mmlu_apgr_unseen", "prompt only, subjects never seen", found, {"apart": True}, 0.60),
    ]
    for key, title, asked, how, aim in settings:
        report.progress(f"MMLU: {title}")
        scores, _ = out_of_fold(asked, folds=2 if quick else 5, **how)  # type: ignore[arg-type]  # each takes its own
        order = scores[:, 1] - scores[:, 0]
        interval = apgr_interval(gain, order)
        report.add(key, (interval.value, interval.low, interval.high), aim=aim, better="more")
        rows.append((title, order))
        if key == "mmlu_apgr":
            error = metrics.calibration_error(scores.ravel(), found.scores.ravel())
            report.add("mmlu_calibration_error", (error, error, error))
    rows.append(("oracle", gain))
    shown = table(f"MMLU, {len(found):,} questions, 2 models: best single {found.scores.mean(axis=0).max():.4f}",
                  "router", "APGR", "95 %", "CPT(50 %)", "CPT(80 %)")  # fmt: skip
    for title, order in rows:
        interval = apgr_interval(gain, order)
        shown.add_row(
            title, f"{interval.value:.3f}", f"{interval.low:.3f} … {interval.high:.3f}",
            f"{metrics.cpt(gain, order, 0.5):.1%}", f"{metrics.cpt(gain, order, 0.8):.1%}",
        )  # fmt: skip
    report.tables.append(shown)
    if report.keeping:
        _plot(report, gain, rows)


def measure_nine(report: Report, quick: bool) -> None:
    """Nine models, quality alone: the mean score of the model that is chosen for each request."""
    found = data.nine_models(200 if quick else 0)
    if found is None:
        report.note("LLMRouter's table is not at hand: nine_models_score is of a made table of two models")
        found = data.made()
    if quick:
        found = found.of_models(found.models[:3])
    report.progress("nine models")
    predicted, _ = out_of_fold(found, folds=2 if quick else 5)
    chosen = choices(found, predicted, quick)
    title = f"LLMRouter, {len(found):,} requests, {len(found.models)} models"
    mine = beside(report, title, chosen)["learned"]
    report.add("nine_models_score", (mine.value, mine.low, mine.high), aim=0.675, better="more")
    over = metrics.bootstrap(
        lambda at: float((chosen["learned"] - chosen["mean of the task"])[at].mean()), len(found)
    )
    report.add("nine_models_over_task_mean", (over.value, over.low, over.high), better="more")


def choices(found: Table, predicted: Floats, quick: bool) -> dict[str, Floats]:
    """Return by name of a router the score ``(n,)`` of the model it chooses for each request."""
    return {
        "random": found.scores.mean(axis=1),
        "best single": found.scores[:, int(found.scores.mean(axis=0).argmax())],
        "prompt length": found.scores[np.arange(len(found)), by_length(found, quick)],
        "mean of the task": picked(found, out_of_fold_means(found, 2 if quick else 5)),
        "learned": picked(found, predicted),
        "oracle": found.scores.max(axis=1),
    }


def beside(report: Report, title: str, chosen: dict[str, Floats]) -> dict[str, Interval]:
    """Add a table of mean scores, a row for each router, and return them with their intervals."""
    shown = table(title, "router", "mean score", "95 %")
    found = {name: _mean(scores) for name, scores in chosen.items()}
    for name, one in found.items():
        shown.add_row(name, f"{one.value:.4f}", f"{one.low:.3f} … {one.high:.3f}")
    report.tables.append(shown)
    return found


def _mean(scores: Floats) -> Interval:
    return metrics.bootstrap(lambda at: float(scores[at].mean()), len(scores))


def picked(found: Table, predicted: Floats) -> Floats:
    """Return the score ``(n,)`` of the model with the best prediction for each request."""
    scores: Floats = found.scores[np.arange(len(found)), predicted.argmax(axis=1)]
    return scores


def out_of_fold_means(found: Table, folds: int) -> Floats:
    """Return the mean scores ``(n, m)`` of each request's task over the other folds."""
    from semaforo.jobs.learn.train import task_means as shrunk

    means = np.zeros_like(found.scores)
    tasks = np.unique(np.array(found.tasks), return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(len(found))
    for part in np.array_split(order, folds):
        rest = np.setdiff1d(order, part)
        overall = found.scores[rest].mean(axis=0)
        means[part] = overall + shrunk(found.scores[rest] - overall, tasks[rest], tasks)[part]
    return means


def task_means(found: Table, quick: bool) -> Floats:
    """Return the gain ``(n,)`` of the strong model by the mean of each request's task over the other folds."""
    means = out_of_fold_means(found, 2 if quick else 5)
    gain: Floats = means[:, 1] - means[:, 0]
    return gain


def by_length(found: Table, quick: bool) -> NDArray[np.int64]:
    """Return the model ``(n,)`` that is best for the fifth of prompts, by length, that a request falls into."""
    lengths = np.array([len(p) for p in found.prompts], float)
    fifths = np.searchsorted(np.quantile(lengths, [0.2, 0.4, 0.6, 0.8]), lengths)
    as_task = Table(
        found.models, tuple(f"fifth{f}" for f in fifths), found.prompts, found.scores, found.costs
    )
    best: NDArray[np.int64] = out_of_fold_means(as_task, 2 if quick else 5).argmax(axis=1)
    return best


def apgr_interval(gain: Floats, order: Floats) -> Interval:
    """Return APGR with its bootstrap interval over requests."""
    return metrics.bootstrap(lambda at: metrics.apgr(gain[at], order[at]), len(gain))


def _plot(report: Report, gain: Floats, rows: list[tuple[str, Floats]]) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("share of calls to the strong model", "share of the gap recovered")
    for title, order in rows:
        curve = metrics.pgr_curve(gain, order)
        step = max(1, len(curve) // 400)
        axes.plot(np.linspace(0, 1, len(curve))[::step], curve[::step], label=title, lw=1.3)
    axes.legend(fontsize=8)
    axes.set_title("MMLU: performance gap recovered, out of fold")
    save(plot, report.plot_path("mmlu"))
