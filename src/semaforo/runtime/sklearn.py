"""The runtime for scikit-learn: estimators and pipelines, as skops or, where that is allowed, pickle saved them.

What a model gives is named by what it can do:

| output | by | of one row |
| --- | --- | --- |
| `label` | `predict` of classifiers, clusterers and outlier detectors | the class as it was trained |
| `prediction` | `predict` of regressors | a number, or one for each target |
| `probabilities` | `predict_proba` | one for each class, in the order of `classes_` |
| `decision` | `decision_function` | a number, or one for each class |
| `features` | `transform` | numbers |

It takes `text` where it begins with a vectoriser of text, one tensor for each column where it picks columns by
name, and `features` otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from sklearn.base import is_classifier, is_regressor
from threadpoolctl import threadpool_limits

from semaforo.entities import Signature, TensorSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.runtime.adapter_flow import OPEN
from semaforo.runtime.options import read_options
from semaforo.runtime.sklearn_file import read_estimator
from semaforo.runtime.sklearn_input import table_of
from semaforo.runtime.table import MATRIX, Table
from semaforo.wire.payload import Array


class SklearnOptions(msgspec.Struct, frozen=True):
    """Options of a scikit-learn model.

    Attributes:
        threads: Threads (``n_jobs``) of each estimator, and of the linear algebra under it.
        trusted: Types of a skops file beyond those that skops knows to be safe, each by its whole name.
        columns: Whether it takes a tensor for each column of the data frame it was trained on; None = where it
            picks columns by name.
        allow_pickle: Unpickle ``.joblib`` and ``.pkl`` files, which lets them run any code.
    """

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    trusted: tuple[str, ...] = ()
    columns: bool | None = None
    allow_pickle: bool = False


class SklearnModel:
    """A loaded estimator or pipeline; only outputs that are wanted are computed."""

    def __init__(self, estimator: Any, table: Table, memory: int) -> None:
        self._table = table
        self._memory = memory
        self._methods = methods(estimator)
        self.signature = Signature(table.inputs, tuple(_spec(estimator, name) for name in self._methods))
        self._wanted: Sequence[str] = tuple(self._methods)

    def want(self, outputs: Sequence[str]) -> None:
        """Compute these outputs only."""
        self._wanted = outputs

    def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidRequest: A value is none that the estimator takes: an unknown category, a NaN …
        """
        rows = self._table.rows(inputs)
        try:
            return {name: _array(self._methods[name](rows)) for name in self._wanted}
        except ValueError as error:
            raise InvalidRequest(f"the model refused its input: {error}") from None

    def memory_bytes(self) -> int:
        """Return the bytes of the file, the best guess of what the estimator holds."""
        return self._memory

    def close(self) -> None:
        """Drop the estimator."""
        self._methods = {}


class SklearnRuntime:
    """Loads ``.skops``, and ``.joblib`` and ``.pkl`` where pickles are allowed."""

    name = "sklearn"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> SklearnModel:
        """Load an estimator.

        Args:
            source: The file.
            options: Fields of `SklearnOptions`.
            device: ``cpu``.

        Raises:
            RuntimeLoadError: The file, an option or the device is at fault.
        """
        chosen = read_options(self.name, options, SklearnOptions)
        if device != "cpu":
            raise RuntimeLoadError(f"device '{device}': scikit-learn runs on the CPU: set device: cpu")
        path = Path(source)
        estimator = read_estimator(path, trusted=chosen.trusted, allow_pickle=chosen.allow_pickle)
        if not methods(estimator):
            raise RuntimeLoadError(
                f"{path}: holds a {type(estimator).__name__}, which is no fitted estimator: it has no predict and "
                "no transform"
            )
        _pin(estimator, chosen.threads)
        # The order of the columns is the signature's; a frame would cost more than most estimators.
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        return SklearnModel(estimator, table_of(path, estimator, chosen.columns), path.stat().st_size)


def methods(estimator: Any) -> dict[str, Callable[[Any], Any]]:
    """Return what an estimator can do, by the name of the output."""
    several = isinstance(getattr(estimator, "classes_", None), list)
    offered = {
        "prediction" if _is(is_regressor, estimator) else "label": "predict",
        # Estimators of several targets return a list of arrays, which is no tensor.
        "probabilities": "" if several else "predict_proba",
        "decision": "" if several else "decision_function",
        "features": "transform",
    }
    found = {}
    for output, name in offered.items():
        # Some have a method only with some of their parameters, and raise as they are asked for it.
        with suppress(AttributeError):
            if name:
                found[output] = getattr(estimator, name)
    return found


def _spec(estimator: Any, output: str) -> TensorSpec:
    classes: Any = getattr(estimator, "classes_", None)
    known = isinstance(classes, np.ndarray) and classes.ndim == 1
    words = tuple(map(str, classes)) if known and classes.dtype.kind in "OUS" else ()
    if output == "label":
        targets = () if known or not _is(is_classifier, estimator) else (-1,)
        if words:
            return TensorSpec(output, "BYTES", targets, labels=words)
        return TensorSpec(output, OPEN, targets)
    if output == "probabilities":
        return TensorSpec(output, OPEN, (len(classes) if known else -1,), labels=words)
    if output == "decision":
        return TensorSpec(output, OPEN, () if known and len(classes) <= 2 else (-1,))
    return TensorSpec(output, OPEN, (-1,) if output == MATRIX else ())


def _is(kind: Callable[[Any], bool], estimator: Any) -> bool:
    try:
        return kind(estimator)
    except AttributeError:
        # Other libraries' classes may have the methods of an estimator, and no tags.
        return False


def _array(value: Any) -> Array:
    if hasattr(value, "toarray"):
        value = value.toarray()
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "US" else array


def _pin(estimator: Any, threads: int) -> None:
    threadpool_limits(threads)
    if hasattr(estimator, "get_params"):
        jobs = [name for name in estimator.get_params() if name == "n_jobs" or name.endswith("__n_jobs")]
        estimator.set_params(**dict.fromkeys(jobs, threads))
