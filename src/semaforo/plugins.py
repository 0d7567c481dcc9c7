"""What is installed under a group of entry points, the built-in ones by the same door."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def installed(group: str, built_in: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Return every entry point of a group by name; nothing is imported.

    Args:
        group: Its name.
        built_in: What the package's own metadata declares, for a source tree that was never installed.
    """
    found = {name: EntryPoint(name, value, group) for name, value in built_in.items()}
    found.update({point.name: point for point in entry_points(group=group)})
    return found


def loaded(point: EntryPoint) -> Any:
    """Return the object of an entry point.

    Raises:
        ImportError: Its module cannot be imported.
        AttributeError: It is not in its module.
    """
    module, _, attribute = point.value.partition(":")
    return getattr(import_module(module), attribute)
