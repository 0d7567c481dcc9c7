"""Values as the admin API shows them: every field, defaults included, and classes by name."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec


def shown(value: Any) -> Any:
    """Return a value as plain JSON types; a struct's tag is its ``type``, an integer enum its lower-case name."""
    if isinstance(value, msgspec.Struct):
        plain = {name: shown(getattr(value, name)) for name in value.__struct_fields__}
        tag = value.__struct_config__.tag
        return {"type": tag, **plain} if tag is not None else plain
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return value
