"""The runtime for LightGBM: boosters that it saved as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from semaforo.errors import RuntimeLoadError
from semaforo.runtime.options import read_options
from semaforo.runtime.trees import Booster, Kind, TreeModel, TreeOptions, check_file, tree_model
from semaforo.wire.payload import Array

_CLASSES = ("binary", "multiclass", "multiclassova")
_ORDERS = ("lambdarank", "rank_xendcg")
_UNNAMED = "Column_"


class LightgbmRuntime:
    """Loads ``.txt`` files of LightGBM."""

    name = "lightgbm"

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
        check_file(path, device, "LightGBM")
        try:
            booster = lightgbm.Booster(model_file=path)
        except (lightgbm.basic.LightGBMError, ValueError, KeyError) as error:
            raise RuntimeLoadError(f"{path}: LightGBM cannot load it: {error}") from None

        def predict(rows: Array, raw: bool = False) -> Array:
            # It aborts on no rows.
            if not len(rows):
                return np.empty((0, width) if width > 1 else 0)
            found: Array = booster.predict(rows, raw_score=raw, num_threads=chosen.threads)
            return found

        width = booster.num_model_per_iteration()
        names = booster.feature_name()
        unnamed = all(name == f"{_UNNAMED}{index}" for index, name in enumerate(names))
        about = Booster(
            predict,
            lambda rows: predict(rows, raw=True),
            lightgbm.basic.LightGBMError,
            _kind(booster),
            width,
            () if unnamed else names,
            booster.num_feature(),
            "FP64",
            path.stat().st_size,
        )
        return tree_model(path, about, chosen)


def _kind(booster: Any) -> Kind:
    objective = booster.dump_model(num_iteration=1).get("objective", "").partition(" ")[0]
    return "classes" if objective in _CLASSES else "order" if objective in _ORDERS else "number"
