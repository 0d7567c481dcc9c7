"""Libraries that some commands need beyond the core: what is missing is said before anything is done.

They are looked for and not imported, which can take seconds: what else is wrong is to be said before that, too.
"""

from __future__ import annotations

from importlib.util import find_spec

from semaforo.errors import InvalidRequest


def needs_sklearn() -> None:
    """Refuse to train without scikit-learn.

    Raises:
        InvalidRequest: It is not installed.
    """
    _needs("sklearn", "training needs scikit-learn: pip install 'semaforo[sklearn]'")


def needs_matplotlib() -> None:
    """Refuse to plot without matplotlib.

    Raises:
        InvalidRequest: It is not installed.
    """
    _needs("matplotlib", "--plot needs matplotlib: pip install 'semaforo[bench]'")


def _needs(module: str, text: str) -> None:
    if find_spec(module) is None:
        raise InvalidRequest(text)
