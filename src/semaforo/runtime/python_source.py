"""Finding the Python object that a source names: an import string, a file, or a registered callable."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semaforo.errors import RuntimeLoadError, nearest

REGISTERED = "registered:"

_registered: dict[str, Any] = {}
_importing = threading.RLock()


def register(name: str, target: Any) -> str:
    """Keep a callable of this process under a name, and return the source that finds it again.

    Raises:
        RuntimeLoadError: Another callable has this name.
    """
    if _registered.setdefault(name, target) is not target:
        raise RuntimeLoadError(f"two Python models are named '{name}': give one of them another name")
    return REGISTERED + name


def unregister(source: str) -> None:
    """Forget a registered callable; unknown ones are fine."""
    _registered.pop(source.removeprefix(REGISTERED), None)


def is_registered(source: str) -> bool:
    """Tell whether a source lives in one process only."""
    return source.startswith(REGISTERED)


def find_object(source: str) -> Any:
    """Return the object that a source names.

    Args:
        source: ``package.module:object``, ``path/file.py:object``, or what `register` returned.

    Raises:
        RuntimeLoadError: It cannot be found or imported; the message names the nearest name.
    """
    if is_registered(source):
        name = source.removeprefix(REGISTERED)
        if name not in _registered:
            raise RuntimeLoadError(
                f"no callable is registered as '{name}' in this process.{nearest(name, _registered)} "
                "A registered callable runs in its own process: set isolation to thread or inline"
            )
        return _registered[name]
    place, colon, attribute = source.rpartition(":")
    if not colon or not place or not attribute:
        raise RuntimeLoadError(f"'{source}' names no Python object: write module:object or file.py:object")
    try:
        if place.endswith(".py"):
            with _importing:  # another thread must not see the module before it has run to its end
                module = _import_file(Path(place))
        else:
            module = importlib.import_module(place)
    except RuntimeLoadError:
        raise
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"'{source}': no module named '{error.name}' can be found from {Path.cwd()}; "
            "install it, or name a file as file.py:object"
        ) from error
    except (Exception, SystemExit) as error:
        raise RuntimeLoadError(f"'{source}': importing it raised {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in vars(found) if not name.startswith("_")]
            raise RuntimeLoadError(f"'{source}': '{place}' has no '{part}'.{nearest(part, names)}")
        found = getattr(found, part)
    return found


def exited(error: SystemExit) -> RuntimeError:
    """Return what stands for a ``sys.exit`` of a model."""
    return RuntimeError(f"it called sys.exit({error.code if error.code is not None else ''})")


def signature_of(call: Callable[..., Any], source: str) -> inspect.Signature:
    """Return what a callable takes.

    Raises:
        RuntimeLoadError: It does not tell.
    """
    try:
        return inspect.signature(call)
    except (TypeError, ValueError):
        raise RuntimeLoadError(f"'{source}' tells no parameters: wrap it in a Python function") from None


def _import_file(path: Path) -> Any:
    path = path.resolve()
    if not path.is_file():
        raise RuntimeLoadError(f"{path}: no such file")
    name = "semaforo_model_" + "".join(c if c.isalnum() else "_" for c in str(path))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeLoadError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # As when the file is run: what lies beside it can be imported.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
