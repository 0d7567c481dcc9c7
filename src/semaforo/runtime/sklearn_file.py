"""Reading estimators from files, of which none is unpickled unless that is allowed."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semaforo.errors import RuntimeLoadError

log = logging.getLogger(__name__)

_PICKLES = (".joblib", ".pkl", ".pickle")


def read_estimator(path: Path, *, trusted: Sequence[str], allow_pickle: bool) -> Any:
    """Return what a file holds; warnings on the way, such as of another version, go to the log.

    Raises:
        RuntimeLoadError: It cannot be read, or may not be.
    """
    if not path.is_file():
        raise RuntimeLoadError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix == ".skops":
        _check_types(path, trusted)
        return _logged(path, lambda: _load_skops(path, trusted))
    if suffix not in _PICKLES:
        raise RuntimeLoadError(f"{path}: scikit-learn's files end in .skops, {', '.join(_PICKLES)}")
    if not allow_pickle:
        raise RuntimeLoadError(
            f"{path}: is a pickle, and unpickling runs what code it brings: save it with skops.io.dump, or set "
            "allow_pickle: true among its options if you trust the file"
        )
    from joblib import load

    return _logged(path, lambda: load(path))


def _load_skops(path: Path, trusted: Sequence[str]) -> Any:
    from skops.io import load

    return load(path, trusted=list(trusted))


def _check_types(path: Path, trusted: Sequence[str]) -> None:
    try:
        from skops.io import get_untrusted_types
    except ImportError as error:
        raise RuntimeLoadError(f"{path}: {error}: pip install 'semaforo[sklearn]'") from None
    try:
        unknown = sorted(set(get_untrusted_types(file=path)) - set(trusted))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise RuntimeLoadError(f"{path}: is no skops file: {error}") from None
    if unknown:
        raise RuntimeLoadError(
            f"{path}: holds types that skops does not know to be safe: {', '.join(unknown)}. List those you trust "
            "as options.trusted"
        )


def _logged(path: Path, read: Callable[[], Any]) -> Any:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = read()
        except Exception as error:
            raise RuntimeLoadError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    for text in dict.fromkeys(" ".join(str(warning.message).split()) for warning in told):
        log.warning("%s: %s", path, text)
    return found
