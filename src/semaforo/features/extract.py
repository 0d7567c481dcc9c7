"""From a payload to signals: texts as they are, numbers of whatever else it holds.

What a text looks like is left to whoever needs it: a predictor counts its words anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.features.signals import Signals
from semaforo.features.tensor import array_numbers
from semaforo.features.text import REACH

_MOST_TEXTS = 16


def chat_signals(body: Mapping[str, Any]) -> Signals:
    """Return the signals of a chat: what its user says last, and how long it has gone on."""
    said = [m for m in body.get("messages") or () if isinstance(m, Mapping)]
    turns = [m for m in said if m.get("role") == "user"]
    text = _text_of(turns[-1]) if turns else ""
    whole = sum(len(_text_of(m)) for m in said)
    numbers = {"chat.turns": float(len(turns)), "chat.length": float(np.log1p(whole))}
    return Signals(text, numbers)


def tensor_signals(arrays: Mapping[str, NDArray[Any]]) -> Signals:
    """Return the signals of tensors ``(rows, …)``: the texts among them as one, and numbers of the others."""
    numbers: dict[str, float] = {}
    for name, array in arrays.items():
        if array.dtype.kind in "fiub" and array.size:
            numbers |= array_numbers(name, array)
    return Signals(text_of(arrays.values()), numbers)


def text_of(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the words in arrays of objects ``(rows, …)`` as one text, of others nothing."""
    words = (array.ravel()[:_MOST_TEXTS].tolist() for array in arrays if array.dtype == object)
    return "\n".join(_word(item) for items in words for item in items)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(p.get("text") or "") for p in content if isinstance(p, Mapping))
    return ""


def _word(item: Any) -> str:
    if isinstance(item, bytes):
        # A character takes at most four bytes; more is not looked at.
        return item[: 8 * REACH].decode("utf-8", "replace")
    return str(item)
