"""What the commands of ``semaforo router`` do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as Shown

from semaforo.cli.needs import needs_sklearn
from semaforo.cli.output import show_json, write_file
from semaforo.errors import InvalidRequest, nearest
from semaforo.features.language import language_of
from semaforo.features.signals import Signals
from semaforo.features.text import text_numbers
from semaforo.repository.examples import read_table
from semaforo.repository.routers import newest
from semaforo.routing import metrics
from semaforo.routing.cascade import cascade_table
from semaforo.routing.embedded import PARTS as EMBEDDED
from semaforo.routing.predictor import PARTS, Predictor
from semaforo.routing.router import Router
from semaforo.routing.scorer import Scorer
from semaforo.routing.table import ANY_TASK, Table


class Training(msgspec.Struct, frozen=True):
    """What is to be trained, and how."""

    table: Path
    output: Path
    cascade: str
    folds: int
    seed: int
    report: Path | None
    as_json: bool
    embed: str = ""


def run_train(asked: Training) -> None:
    """Train, try out, write, and say what came of it.

    Raises:
        InvalidRequest: The table is wrong, or scikit-learn is not installed.
    """
    needs_sklearn()
    console = Console(stderr=True, highlight=False)
    if asked.embed and asked.cascade:
        raise InvalidRequest(
            "a verifier looks at the answer, not at an embedding: leave --embed or --cascade out"
        )
    table = _table(asked.table, asked.cascade)
    from semaforo.jobs.learn.crossval import out_of_fold
    from semaforo.jobs.learn.evaluate import frontier
    from semaforo.jobs.learn.looks import profiles_of
    from semaforo.jobs.learn.train import LEAST_SCORES, learnable, train

    table, few = learnable(table, asked.folds)
    if few:
        text = f"fewer than {LEAST_SCORES} scores, so nothing is learned of: {', '.join(few)}"
        console.print(text, style="yellow", markup=False)
    if asked.embed:
        from semaforo.cli.router_embed import embedded

        with console.status(f"embedding {len(table):,} prompts"):
            table = embedded(table, asked.embed)
    with console.status(f"trying out {asked.folds} times on {len(table):,} requests"):
        predicted, trust = out_of_fold(table, folds=asked.folds, seed=asked.seed)
    figures = _figures(table, predicted)
    with console.status("training on all of them"):
        predictor = train(table, seed=asked.seed)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    # A verifier sees answers, which are not what is looked at when a request comes.
    data = {} if asked.cascade else profiles_of(table)
    router = Router(
        predictor, len(table), made, figures, verifies=asked.cascade, data=data, seen=table.marks()
    )
    write_file(asked.output, router.encode(), folders=True)
    page = ""
    if asked.report is not None:
        from semaforo.jobs.learn.report import write

        whole = not np.isnan(table.scores).any()
        points = frontier(table, predicted) if whole else []
        told_of = f"{len(table):,} requests, {asked.folds} folds, each predicted without having been seen"
        notes = [told_of, *_said(figures)]
        page = str(write(asked.report, f"Router of {asked.table.name}", table, predicted, points, notes))
    told = {
        "router": str(asked.output), "sha256": router.digest(), "rows": len(table), "models": list(table.models),
        "tasks": list(router.tasks), "figures": figures, "trust": float(trust.mean()), "report": page,
    }  # fmt: skip
    if asked.as_json:
        show_json(told)
        return
    out = Console(highlight=False)
    out.print(f"{len(table):,} requests, {len(table.models)} models, {_tasks(router)}; out of fold:")
    for line in _said(figures):
        out.print(f"  {line}")
    where = f" · report {page}" if page else ""
    out.print(f"{asked.output} · sha256 {router.digest()[:16]}…{where}", markup=False)


def run_evaluate(path: Path, file: Path, keep: float, cascade: str, as_json: bool) -> None:
    """Judge a router on a table it has not seen.

    Raises:
        InvalidRequest: The table or the router is wrong, or cannot judge.
    """
    needs_sklearn()
    router = _router(file)
    if router.verifies != cascade:
        looks = (
            f"at answers of '{router.verifies}': say --cascade {router.verifies}" if router.verifies else ""
        )
        raise InvalidRequest(f"{file} looks {looks or 'at requests only: leave --cascade out'}")
    table = _unseen(router, _known(router, _table(path, cascade)))
    from semaforo.jobs.learn.evaluate import choose, judged, mean_costs, predict

    out = Console(highlight=False)
    if np.isnan(table.scores).any():
        found = judged(table, router.predictor, keep=keep)
        if as_json:
            told = {**msgspec.to_builtins(found), "verdict": found.verdict}
            show_json(told)
            return
        shown = Shown(box=box.SIMPLE_HEAD, title="off policy")
        for column in ("estimate", "mean score", "95 %"):
            shown.add_column(column)
        rows = [("as logged", found.logged), ("IPS", found.ips), ("SNIPS", found.snips)]
        if found.dr is not None:
            rows.append(("doubly robust", found.dr))
        for name, one in [*rows, ("gain", found.gain)]:
            shown.add_row(name, f"{one.value:+.4f}" if name == "gain" else f"{one.value:.4f}",
                          f"{one.low:.4f} … {one.high:.4f}")  # fmt: skip
        out.print(shown)
        out.print(
            f"picks as the log did on {found.matched:.0%} of the rows, which are worth {found.effective:.0f}: "
            f"{found.verdict}"
        )
        return
    predicted, trust = predict(router.predictor, table)
    figures = _figures(table, predicted)
    chosen = choose(predicted, mean_costs(table), keep)
    figures["score"] = float(table.scores[np.arange(len(table)), chosen].mean())
    figures["trust"] = float(trust.mean())
    if as_json:
        show_json(figures)
        return
    for line in _said(figures):
        out.print(line)


def run_frontier(path: Path, file: Path | None, png: Path | None, as_json: bool) -> None:
    """Show what quality can be had at which cost.

    Raises:
        InvalidRequest: The table or the router is wrong.
    """
    needs_sklearn()
    table = _table(path, "")
    router = _router(file) if file is not None else None
    if router is not None:
        table = _unseen(router, _known(router, table))
    from semaforo.jobs.learn.crossval import out_of_fold
    from semaforo.jobs.learn.evaluate import frontier, predict

    if router is not None:
        predicted = predict(router.predictor, table)[0]
    else:
        predicted = out_of_fold(table)[0]
    points = frontier(table, predicted)
    if png is not None:
        from semaforo.jobs.learn.report import frontier_picture

        write_file(png, frontier_picture(points))
    if as_json:
        show_json(points)
        return
    shown = Shown(box=box.SIMPLE_HEAD)
    for column in ("choice", "mean score", "95 %", "$ per 1,000"):
        shown.add_column(column, justify="left" if column == "choice" else "right")
    for p in points:
        shown.add_row(
            p.name, f"{p.score.value:.4f}", f"{p.score.low:.4f} … {p.score.high:.4f}",
            "" if np.isnan(p.cost) else f"{1e3 * p.cost:.4g}",
        )  # fmt: skip
    Console(highlight=False).print(shown)


def run_explain(file: Path, prompt: str, task: str, as_json: bool) -> None:
    """Say what a router has learned.

    Raises:
        InvalidRequest: The file is no router, or does not know the task.
    """
    router = _router(file)
    predictor = router.predictor
    if task and ANY_TASK not in router.tasks and task not in router.tasks:
        raise InvalidRequest(
            f"{file} was not trained on '{task}'; it was on {', '.join(router.tasks)}.{nearest(task, router.tasks)}"
        )
    task = task or router.tasks[0]
    told: dict[str, Any] = {
        "rows": router.rows, "made": router.made, "sha256": router.digest(), "tasks": list(router.tasks),
        "models": list(predictor.models), "figures": router.figures,
        "usual": dict(zip(predictor.models, predictor.usual(task).tolist(), strict=True)),
        "embedded": _embedded(predictor),
        "levels": {part: float(predictor.inside[i, 0]) for i, part in enumerate(PARTS)},
    }  # fmt: skip
    if prompt:
        scorer, signals, looks = Scorer(predictor), [Signals(prompt)], text_numbers(prompt)
        scores, trust = scorer.predict(task, signals)
        begun = time.perf_counter()
        for _ in range(100):
            scorer.predict(task, signals)
        told |= {
            "predicted": dict(zip(predictor.models, scores[0].tolist(), strict=True)), "trust": float(trust[0]),
            "us": 1e4 * (time.perf_counter() - begun), "language": language_of(looks), "code": looks["text.code"],
        }  # fmt: skip
    if as_json:
        show_json(told)
        return
    out = Console(highlight=False)
    out.print(
        f"trained {router.made} on {router.rows:,} requests of "
        f"{', '.join(router.tasks).replace(ANY_TASK, 'any task')[:200]}",
        markup=False,
    )
    for line in _said(router.figures):
        out.print(f"  {line}")
    levels = " · ".join(f"{part} {weight:.2f}" for part, weight in told["levels"].items())
    out.print(f"weights in its domain: {levels}")
    if told["embedded"]:
        weights = " · ".join(f"{part} {weight:.2f}" for part, weight in told["embedded"].items())
        out.print(f"where a request has an embedding: {weights}")
    shown = Shown(box=box.SIMPLE_HEAD, title="any task" if task == ANY_TASK else task)
    for column in ("model", "usual", *(["this request"] if prompt else [])):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for model in predictor.models:
        cells = [f"{told['usual'][model]:.3f}"] + ([f"{told['predicted'][model]:.3f}"] if prompt else [])
        shown.add_row(model, *cells)
    out.print(shown)
    if prompt:
        written = f"{told['language'] or 'language not told'}, {told['code']:.0%} like code"
        out.print(f"{told['trust']:.0%} in its domain; {written}; predicted in {told['us']:.0f} µs")


def _tasks(router: Router) -> str:
    if router.tasks == (ANY_TASK,):
        return "no task named"
    return f"{len(router.tasks)} {'task' if len(router.tasks) == 1 else 'tasks'}"


def _embedded(predictor: Predictor) -> dict[str, float]:
    level = predictor.embedded
    return {part: float(level.inside[i, 0]) for i, part in enumerate(EMBEDDED)} if level is not None else {}


def _figures(table: Table, predicted: np.ndarray) -> dict[str, float]:
    known = ~np.isnan(table.scores)
    found = {"calibration_error": metrics.calibration_error(predicted[known], table.scores[known])}
    if known.all():
        rows = np.arange(len(table))
        found["score"] = float(table.scores[rows, predicted.argmax(axis=1)].mean())
        found["best_single"] = float(table.scores.mean(axis=0).max())
        found["oracle"] = float(table.scores.max(axis=1).mean())
        if len(table.models) == 2:
            dear = int(table.scores.mean(axis=0).argmax())
            gain = table.scores[:, dear] - table.scores[:, 1 - dear]
            if gain.sum():
                order = predicted[:, dear] - predicted[:, 1 - dear]
                found["apgr"] = metrics.apgr(gain, order)
                found["cpt50"], found["cpt80"] = (metrics.cpt(gain, order, share) for share in (0.5, 0.8))
    return found


def _said(figures: dict[str, float]) -> list[str]:
    words = {
        "score": "mean score, the best predicted model asked", "best_single": "mean score of the best single model",
        "oracle": "mean score of the best model for each request", "apgr": "APGR (random 0.5)",
        "cpt50": "dear calls for half of the gap", "cpt80": "dear calls for 80 % of the gap",
        "calibration_error": "calibration error", "trust": "in the domain of training",
    }  # fmt: skip
    return [f"{words.get(name, name)}: {value:.4f}" for name, value in figures.items()]


def _table(path: Path, cascade: str) -> Table:
    table = read_table(path)
    return cascade_table(table, cascade) if cascade else table


def _known(router: Router, table: Table) -> Table:
    """Return what a router can speak of in a history, whose models are variants: ``a/1/default`` is of ``a``."""
    models = router.predictor.models
    called = {name: name if name in models else name.partition("/")[0] for name in table.models}
    kept = [name for name, known in called.items() if known in models]
    found = [called[name] for name in kept]
    if len(kept) < 2 or len(set(found)) < len(found):
        return table
    if len(kept) < len(table.models):
        left = ", ".join(name for name in table.models if name not in kept)
        Console(stderr=True, highlight=False).print(f"not of this router, so left out: {left}", markup=False)
        table = table.of_models(kept)
        table = table.rows(np.flatnonzero((~np.isnan(table.scores)).any(axis=1)))
    return msgspec.structs.replace(table, models=tuple(found))


def _unseen(router: Router, table: Table) -> Table:
    new = router.unseen(table)
    if len(new) < len(table):
        left = len(table) - len(new)
        text = f"{left:,} of {len(table):,} requests were in its training: they are left out"
        Console(stderr=True, highlight=False).print(text)
    return new


def _router(path: Path) -> Router:
    try:
        path = newest(path)
        return Router.decode(path.read_bytes(), str(path))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
