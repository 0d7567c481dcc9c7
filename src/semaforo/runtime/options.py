"""Options of a runtime as typed values: unknown keys are errors that name the nearest known one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from semaforo.errors import RuntimeLoadError, nearest

T = TypeVar("T", bound=msgspec.Struct)


def read_options(runtime: str, given: Mapping[str, Any], kind: type[T]) -> T:
    """Convert options to the struct that declares them.

    Raises:
        RuntimeLoadError: An option is unknown, or its value has the wrong type or range.
    """
    known = kind.__struct_encode_fields__
    for name in given:
        if name not in known:
            raise RuntimeLoadError(
                f"options.{name}: unknown option of the runtime '{runtime}'.{nearest(name, known)} "
                f"It takes {', '.join(known)}"
            )
    for name, value in given.items():
        try:
            msgspec.convert({name: value}, kind)
        except msgspec.ValidationError as error:
            if f"$.{name}" in str(error):
                reason = str(error).partition(" - at ")[0]
                raise RuntimeLoadError(f"options.{name}: {reason}, not {value!r}") from None
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise RuntimeLoadError(f"options of the runtime '{runtime}': {error}") from None
