"""The door through which runtimes come: entry points of the group ``semaforo.runtimes``, the built-in ones too."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from semaforo.errors import RuntimeLoadError, nearest
from semaforo.plugins import installed, loaded
from semaforo.runtime.base import Runtime

GROUP = "semaforo.runtimes"

BUILT_IN = {
    "onnx": "semaforo.runtime.onnx:OnnxRuntime",
    "python": "semaforo.runtime.python:PythonRuntime",
    "openai": "semaforo.runtime.openai:OpenAIRuntime",
    "oip": "semaforo.runtime.oip:OipRuntime",
    "torch": "semaforo.runtime.torch:TorchRuntime",
    "sklearn": "semaforo.runtime.sklearn:SklearnRuntime",
    "lightgbm": "semaforo.runtime.lightgbm:LightgbmRuntime",
    "xgboost": "semaforo.runtime.xgboost:XgboostRuntime",
}
"""What the package's own metadata declares, for a source tree that was never installed."""

EXTRAS = {"torch": "torch", "sklearn": "sklearn", "lightgbm": "trees", "xgboost": "trees"}
"""Runtime → the extra that brings its libraries."""


def runtimes() -> dict[str, EntryPoint]:
    """Return every runtime that is installed, by name; nothing is imported."""
    return installed(GROUP, BUILT_IN)


def runtime(name: str) -> Runtime:
    """Import the runtime of this name.

    Raises:
        RuntimeLoadError: No such runtime, or it cannot be imported here.
    """
    known = runtimes()
    point = known.get(name)
    if point is None:
        raise RuntimeLoadError(
            f"no runtime is named '{name}'.{nearest(name, known)} Installed: {', '.join(sorted(known))}"
        )
    try:
        cls = loaded(point)
    except (ImportError, AttributeError) as error:
        raise RuntimeLoadError(
            f"the runtime '{name}' ({point.value}) cannot be imported here: {error}"
            + (f"; pip install 'semaforo[{EXTRAS[name]}]'" if name in EXTRAS else "")
        ) from error
    found: Runtime = cls()
    return found
