"""Reads a table of scores: Parquet or CSV, one row for each request and model; or the history of a fleet.

| column | what |
| --- | --- |
| model | name of the model |
| score | 0…1; left out where nobody knows |
| task | name of the task; what is learned holds for every task where the column is missing |
| prompt | text of the request |
| feature.NAME | a further feature, a number |
| cost | US dollars |
| answer | what the model said |
| id | rows with the same id are one request; task and prompt tell requests apart where it is missing |
| group | what is left out together when another domain is tried, a subject for example |
| embedding | embedding of the prompt: a list of numbers, in CSV as JSON |
| propensity | probability with which the model was asked, in logs |

`prompt` or a feature there must be, or a task; all other columns are ignored. A history (``.db``) gives the answers
that were judged: who was picked, with which probability, on what signals; it keeps no prompts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest, nearest
from semaforo.repository.history import read_answers
from semaforo.routing.table import ANY_TASK, Table

_FEATURE = "feature."
_KNOWN = ("model", "score", "task", "prompt", "cost", "answer", "id", "group", "propensity", "embedding")


def read_table(path: str | Path) -> Table:
    """Read a table.

    Raises:
        InvalidRequest: What is wrong with it, and in which row.
    """
    path = Path(path)
    columns = _history(path) if path.suffix == ".db" else _columns(path)
    if not columns:
        raise InvalidRequest(f"{path} is empty: its first line names columns, model and score among them")
    for wanted in ("model", "score"):
        if wanted not in columns:
            raise InvalidRequest(
                f"{path} has no column '{wanted}'; it has {', '.join(columns)}.{nearest(wanted, columns)}"
            )
    features = tuple(name for name in columns if name.startswith(_FEATURE))
    if "prompt" not in columns and "task" not in columns and not features:
        raise InvalidRequest(
            f"{path} has no column 'prompt', 'task' or 'feature.…': nothing tells requests apart"
        )
    return _wide(path, columns, features)


def _history(path: Path) -> dict[str, list[Any]]:
    answers = read_answers(path)
    if not answers:
        raise InvalidRequest(f"{path} has no answer that was judged: give feedback first")
    names = sorted({name for answer in answers for name in answer.features})
    columns: dict[str, list[Any]] = {
        "id": [a.id for a in answers], "task": [a.task for a in answers], "model": [a.variant for a in answers],
        "score": [a.score for a in answers], "cost": [a.cost for a in answers],
        "propensity": [a.propensity for a in answers],
    }  # fmt: skip
    return columns | {f"feature.{name}": [a.features.get(name) for a in answers] for name in names}


def _columns(path: Path) -> dict[str, list[Any]]:
    try:
        if path.suffix == ".parquet":
            try:
                from pyarrow import parquet
            except ImportError:
                raise InvalidRequest(
                    f"{path} is Parquet: pip install 'semaforo[data]', or write CSV"
                ) from None
            table = parquet.read_table(path)
            return {str(name): table.column(name).to_pylist() for name in table.column_names}
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            for number, row in enumerate(rows, 2):
                if None in row or None in row.values():
                    raise InvalidRequest(f"{path}: line {number} has not as many fields as the first line")
            return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is neither Parquet nor CSV in UTF-8: {error}") from None
    except ValueError as error:  # what Arrow raises for a damaged file
        raise InvalidRequest(f"{path} cannot be read: {error}") from None


def _wide(path: Path, columns: Mapping[str, list[Any]], features: tuple[str, ...]) -> Table:
    n = len(columns["model"])
    names = [_text(path, "model", i, value) for i, value in enumerate(columns["model"])]
    models = tuple(sorted(set(names)))
    if len(models) < 2:
        raise InvalidRequest(
            f"{path} has scores of {models[0] if models else 'no model'} alone: two models at least make a choice"
        )
    column = {name: j for j, name in enumerate(models)}
    tasks = [str(v) if v is not None else "" for v in columns.get("task", [ANY_TASK] * n)]
    prompts = [str(v) if v is not None else "" for v in columns.get("prompt", [""] * n)]
    ids = columns.get("id")
    row_of: dict[Any, int] = {}
    first: list[int] = []
    at = np.empty(n, np.int64)
    for i in range(n):
        key = str(ids[i]) if ids is not None else (tasks[i], prompts[i], *(columns[f][i] for f in features))
        found = row_of.get(key)
        if found is None:
            found = row_of[key] = len(first)
            first.append(i)
        at[i] = found
    shape = (len(first), len(models))
    scores, costs, propensities = (np.full(shape, np.nan) for _ in range(3))
    answers = [[""] * len(models) for _ in first]
    asked = np.zeros(shape, bool)
    for i in range(n):
        place = at[i], column[names[i]]
        if asked[place]:
            raise InvalidRequest(
                f"{path}: row {i + 1} is the second one of '{names[i]}' on the same request: "
                "tell requests apart by 'id'"
            )
        asked[place] = True
    for name, into, low, high in (
        ("score", scores, 0.0, 1.0), ("cost", costs, 0.0, math.inf), ("propensity", propensities, 0.0, 1.0),
    ):  # fmt: skip
        for i, value in _numbers(path, name, columns.get(name), low, high):
            into[at[i], column[names[i]]] = value
    if "answer" in columns:
        for i, value in enumerate(columns["answer"]):
            answers[at[i]][column[names[i]]] = "" if value is None else str(value)
    numbers = np.full((len(first), len(features)), np.nan)
    for j, name in enumerate(features):
        for i, value in _numbers(path, name, columns[name], -math.inf, math.inf):
            before = numbers[at[i], j]
            if not (math.isnan(before) or before == value):
                raise InvalidRequest(
                    f"{path}: row {i + 1}: {name} is {value:g}, and {before:g} in another row of the same "
                    "request: leave it empty where it is of another model's answer"
                )
            numbers[at[i], j] = value
    groups = columns.get("group")
    return Table(
        models,
        tuple(tasks[i] for i in first),
        tuple(prompts[i] for i in first),
        scores,
        costs,
        tuple(name.removeprefix(_FEATURE) for name in features),
        numbers,
        tuple(map(tuple, answers)) if "answer" in columns else None,
        tuple(str(groups[i]) for i in first) if groups is not None else (),
        propensities if "propensity" in columns else None,
        _embeddings(path, columns["embedding"], first) if "embedding" in columns else None,
    )


def _embeddings(path: Path, values: list[Any], rows: list[int]) -> NDArray[np.float32]:
    found: list[NDArray[np.float32] | None] = []
    width = 0
    for row in rows:
        value = values[row]
        try:
            given = msgspec.json.decode(value) if isinstance(value, str) and value else value
            vector = None if given is None or given == "" else np.asarray(given, np.float32)
        except (msgspec.DecodeError, TypeError, ValueError):
            raise InvalidRequest(f"{path}: row {row + 1}: embedding is no list of numbers") from None
        if vector is not None and (vector.ndim != 1 or len(vector) != (width or len(vector))):
            raise InvalidRequest(
                f"{path}: row {row + 1}: embedding has not the {width} numbers of the others"
            )
        if vector is not None:
            width = len(vector)
        found.append(vector)
    missing = np.full(width, np.nan, np.float32)
    return np.stack([missing if vector is None else vector for vector in found])


def _numbers(
    path: Path, name: str, values: list[Any] | None, low: float, high: float
) -> Iterator[tuple[int, float]]:
    for i, value in enumerate(values or ()):
        if value is None or value == "":
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InvalidRequest(f"{path}: row {i + 1}: {name} is '{value}', which is no number") from None
        if math.isnan(number):
            continue
        if not low <= number <= high:
            raise InvalidRequest(f"{path}: row {i + 1}: {name} is {number:g}; it takes {low:g} to {high:g}")
        yield i, number


def _text(path: Path, name: str, row: int, value: Any) -> str:
    if value is None or value == "":
        raise InvalidRequest(f"{path}: row {row + 1}: {name} is empty")
    return str(value)
