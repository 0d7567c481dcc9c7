"""Checks of single fields of a body in OpenAI's form; an error names the field in `param`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from semaforo.entities import Priority
from semaforo.errors import InvalidRequest, nearest

SERVICE_TIERS = {
    "auto": Priority.NORMAL,
    "default": Priority.NORMAL,
    "priority": Priority.HIGH,
    "flex": Priority.LOW,
}
"""OpenAI's ``service_tier`` as a class of priority; what is `critical` is for the operator to say."""


class InvalidField(InvalidRequest):
    """One field of the body is wrong.

    Attributes:
        param: The field, for example ``messages[2].role``.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


def named_model(body: Mapping[str, Any], default: str = "") -> str:
    """Return the model that is asked for."""
    model = body.get("model") or default
    if not isinstance(model, str) or not model:
        raise InvalidField("model", "give the name of a model, an alias, a task type or 'auto'")
    return model


def tier(body: Mapping[str, Any]) -> Priority | None:
    """Return the class of priority that ``service_tier`` stands for; None where it says nothing."""
    word = typed(body, "service_tier", str, "a text")
    if word is None or word == "auto":
        return None
    if word not in SERVICE_TIERS:
        raise InvalidField(
            "service_tier", f"'{word}' is none of {', '.join(SERVICE_TIERS)}.{nearest(word, SERVICE_TIERS)}"
        )
    return SERVICE_TIERS[word]


def typed(
    body: Mapping[str, Any], name: str, kind: type, wanted: str, at: str = "", *, must: bool = False
) -> Any:
    """Return a field of a type, or None where it is left out; `wanted` says what is."""
    value = body.get(name)
    if value is None and not must:
        return None
    if not isinstance(value, kind):
        raise InvalidField(at + name, f"must be {wanted}, not {shown(value)}")
    return value


def integer(body: Mapping[str, Any], name: str, default: int, least: int = 1) -> int:
    """Return a whole number of at least so much."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidField(name, f"must be a whole number of at least {least}, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return a value for a message, as JSON, cut where it is long."""
    if value is None:
        return "nothing"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else text[:39] + "…"
