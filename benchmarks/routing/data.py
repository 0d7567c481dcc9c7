"""Public tables of scores, as they lie under `SEMAFORO_DATA`/routing; a small one is made where they do not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import ROOT
from semaforo.routing.table import Table

LABELS = (
    "labels: RouteLLM's tables hold correctness by exact match, as its authors published it, of "
    "Mixtral-8x7B-Instruct (weak) and GPT-4-1106 (strong), without the rows they mark as contaminated. "
    "RouteLLM's own best routers have an APGR of .603 on MMLU and .622 on GSM8K (prompt only), but were "
    "trained on other data (Chatbot Arena, judges' labels), ours on other rows of the same table: they "
    "knew less. LLMRouter's scores are taken as they stand, some of them artefacts of how answers were "
    "parsed"
)


def folder() -> Path | None:
    """Return the folder of the tables, or None."""
    data = Path(os.environ.get("SEMAFORO_DATA") or ROOT.parent / "shared" / "data")
    return data / "routing" if (data / "routing" / "routellm_wide.parquet").exists() else None


def mmlu(rows: int = 0) -> Table | None:
    """Return MMLU with its subjects as groups, or None where it is not at hand; at most `rows` of it, 0 = all."""
    return _routellm("mmlu", rows)


def gsm8k(rows: int = 0) -> Table | None:
    """Return GSM8K with the answers of both models, or None."""
    return _routellm("gsm8k", rows)


def nine_models(rows: int = 0) -> Table | None:
    """Return LLMRouter's table of 9 models on 14 tasks, or None."""
    place = folder()
    if place is None:
        return None
    columns = _read(place / "ulab_llmrouter_wide.parquet")
    models = tuple(sorted(set(columns) - {"split", "qid", "prompt", "cluster_id", "task", "metric"}))
    scores = np.array([columns[m] for m in models], float).T
    return _some(
        Table(
            models,
            tuple(str(t) for t in columns["task"]),
            tuple(str(p) for p in columns["prompt"]),
            scores,
            np.full(scores.shape, np.nan),
        ),
        rows,
    )


def made(rows: int = 600, seed: int = 0) -> Table:
    """Return a table that is made: sums that a weak model gets wrong the longer they are, in two tasks."""
    rng = np.random.default_rng(seed)
    tasks, prompts, scores = [], [], []
    for i in range(rows):
        terms = rng.integers(2, 9)
        numbers = rng.integers(1, 99, terms)
        words = i % 2
        task = "story" if words else "sum"
        sign = " and then " if words else " + "
        prompts.append(f"How much is {sign.join(map(str, numbers))}?")
        tasks.append(task)
        weak = rng.random() < (0.95 - 0.09 * terms - 0.1 * words)
        strong = rng.random() < (0.97 - 0.02 * terms)
        scores.append((float(weak), float(strong)))
    values = np.array(scores)
    return Table(("weak", "strong"), tuple(tasks), tuple(prompts), values, np.full(values.shape, np.nan))


def _routellm(name: str, rows: int) -> Table | None:
    place = folder()
    if place is None:
        return None
    wide = _read(place / "routellm_wide.parquet")
    kept = [i for i, d in enumerate(wide["dataset"]) if d == name and not wide["contaminated"][i]]
    scores = np.array([[wide["weak"][i], wide["strong"][i]] for i in kept], float)
    answers = None
    if name == "gsm8k":
        said = _read(place / "routellm_gsm8k_responses.parquet")
        by_id = {
            q: (str(said["weak_response"][i]), str(said["strong_response"][i]))
            for i, q in enumerate(said["qid"])
        }
        answers = tuple(by_id[wide["qid"][i]] for i in kept)
    return _some(
        Table(
            ("weak", "strong"),
            (name,) * len(kept),
            tuple(str(wide["prompt"][i]) for i in kept),
            scores,
            np.full(scores.shape, np.nan),
            answers=answers,
            groups=tuple(str(wide["subject"][i]) for i in kept) if name == "mmlu" else (),
        ),
        rows,
    )


def _some(table: Table, rows: int) -> Table:
    if not rows or rows >= len(table):
        return table
    return table.rows(np.sort(np.random.default_rng(0).choice(len(table), rows, replace=False)))


def _read(path: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}
