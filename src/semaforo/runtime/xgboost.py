"""The runtime for XGBoost: boosters that it saved as JSON or UBJSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xgboost

from semaforo.errors import RuntimeLoadError
from semaforo.runtime.options import read_options
from semaforo.runtime.trees import Booster, Kind, TreeModel, TreeOptions, check_file, tree_model
from semaforo.wire.payload import Array

_PROBABILITY = "binary:logistic"
_MARGINS = ("binary:logitraw", "binary:hinge", "multi:softmax")
"""Objectives of classes whose prediction is not their probability."""


class XgboostRuntime:
    """Loads ``.json`` and ``.ubj`` files of XGBoost."""

    name = "xgboost"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> TreeModel:
        """Load a booster.

        Args:
            source: The file.
            options: Fields of `TreeOptions`.
            device: ``cpu``.

        Raises:
            RuntimeLoadError: The file, an option or the device is at fault.
        """
        chosen = read_options(self.name, options, TreeOptions)
        path = Path(source)
        check_file(path, device, "XGBoost")
        try:
            booster = xgboost.Booster(params={"nthread": chosen.threads}, model_file=path)
            about = msgspec.json.decode(booster.save_config())["learner"]
        except (xgboost.core.XGBoostError, ValueError, KeyError) as error:
            raise RuntimeLoadError(f"{path}: XGBoost cannot load it: {_reason(error)}") from None
        objective = about["objective"]["name"]
        kind = _kind(objective)
        numbers = about["learner_model_param"]
        width = int(numbers["num_class"]) if kind == "classes" else int(numbers.get("num_target", 1))
        # Rounds after the best one were of no use; its own estimators leave them out too.
        best = booster.attributes().get("best_iteration")
        rounds = (0, int(best) + 1) if best is not None else (0, 0)

        def run(rows: Array, what: str) -> Array:
            found: Array = booster.inplace_predict(rows, iteration_range=rounds, predict_type=what)
            # Of no rows it forgets the classes.
            return found if len(rows) or width <= 1 else found.reshape(0, width)

        def margin(rows: Array) -> Array:
            return run(rows, "margin")

        def predict(rows: Array) -> Array:
            if objective in _MARGINS:
                return _probabilities(margin(rows), objective)
            return run(rows, "value")

        given = Booster(
            predict,
            margin,
            ValueError,
            kind,
            width,
            booster.feature_names or (),
            booster.num_features(),
            "FP32",
            path.stat().st_size,
        )
        return tree_model(path, given, chosen)


def _kind(objective: str) -> Kind:
    family = objective.partition(":")[0]
    if family == "multi" or objective == _PROBABILITY or objective in _MARGINS:
        return "classes"
    return "order" if family == "rank" else "number"


def _probabilities(margin: Array, objective: str) -> Array:
    if objective == "binary:hinge":
        return (margin > 0).astype(np.float32)
    if objective == "binary:logitraw":
        return 1 / (1 + np.exp(-margin))
    power = np.exp(margin - margin.max(axis=1, keepdims=True))
    shares: Array = power / power.sum(axis=1, keepdims=True)
    return shares


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line says where in XGBoost's own source, before what.
    return lines[0].rpartition("] ")[2] if lines else type(error).__name__
