"""Puts this folder on the path, so that tests of every kind share the servers and models beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Undo what commands that run inside a test say of the log: they have a process to themselves elsewhere."""
    log = logging.getLogger("semaforo")
    level = log.level
    yield
    log.setLevel(level)
