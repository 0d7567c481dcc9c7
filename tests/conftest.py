"""Puts this folder on the path, so that tests of every kind share the servers and models beside it.

Hundreds of HTTP clients are made here, and to read the certificates of the system anew for each of them would take
longer than most tests: they are read once.
"""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import Iterator

import pytest

ssl.create_default_context = functools.cache(ssl.create_default_context)


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Undo what commands that run inside a test say of the log: they have a process to themselves elsewhere."""
    log = logging.getLogger("semaforo")
    level = log.level
    yield
    log.setLevel(level)
