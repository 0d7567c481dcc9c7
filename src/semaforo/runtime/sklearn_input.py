"""What an estimator takes: found from its first step, and from the columns it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semaforo.errors import RuntimeLoadError
from semaforo.runtime.table import Columns, Frame, Matrix, Table, Texts


def table_of(path: Path, estimator: Any, columns: bool | None) -> Table:
    """Return how rows are made for an estimator.

    Args:
        path: Its file, for errors.
        estimator: A fitted estimator or pipeline.
        columns: Whether each column is a tensor; None = where it picks columns by name.

    Raises:
        RuntimeLoadError: Columns are wanted, and it knows no names of any; or pandas is missing.
    """
    first = _first(estimator)
    if hasattr(first, "build_analyzer"):
        return Texts()
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    by_name = any(_picks_by_name(step) for step in _nested(first))
    if columns or (columns is None and by_name):
        if not names:
            raise RuntimeLoadError(
                f"options.columns: {path.name} knows no names of columns: train it on a data frame, or leave it out"
            )
        return Frame(names, _data_frame(path)) if by_name else Columns(names, "FP64")
    if by_name:
        raise RuntimeLoadError(
            f"options.columns: {path.name} picks columns by name: leave it out, or set it true"
        )
    return Matrix(int(getattr(estimator, "n_features_in_", -1)), "FP64")


def _first(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    while steps:
        # A step that was left out passes its input on.
        estimator = next((step for _, step in steps if step not in (None, "passthrough")), None)
        steps = getattr(estimator, "steps", None)
    inner = getattr(estimator, "best_estimator_", None)
    return estimator if inner is None else _first(inner)


def _nested(step: Any) -> Iterator[Any]:
    yield step
    for _, inner in getattr(step, "transformer_list", ()):
        yield from _nested(_first(inner))


def _picks_by_name(step: Any) -> bool:
    picks = (entry[2] for entry in getattr(step, "transformers", ()) if len(entry) == 3)
    return any(
        isinstance(pick, str)
        or callable(pick)
        or (isinstance(pick, list) and any(isinstance(p, str) for p in pick))
        for pick in picks
    )


def _data_frame(path: Path) -> Any:
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise RuntimeLoadError(
            f"{path}: picks columns of a data frame by name, and {error}: pip install pandas"
        ) from None
    return DataFrame
