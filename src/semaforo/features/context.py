"""What a request looks like in a few numbers, for learning while the fleet serves.

Scales are fixed, never fitted to what came by: gateways that learn apart mean the same by a feature, and go on to
after a restart. A number that is no feature of a text may be of any size, so that its logarithm counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import asinh, isfinite

MOST = 8
"""Features of one request."""
_SCALES = {
    "text.length": 0.2, "text.numbers": 0.5, "text.formula": 5.0, "text.questions": 0.5, "text.beyond_latin": 2.0,
    "text.variety": 1.0, "chat.turns": 0.3,
}  # fmt: skip
# Of a tensor, by what is likely to tell most; what is not named here comes in between, by name.
_FIRST = ("mean", "std", "missing", "rough", "zeros")
_LAST = ("peak", "least", "most", "size")


def context_of(numbers: Mapping[str, float], gain: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the features of a request by name, at most `MOST`.

    Args:
        numbers: Features of its payload by name, those of its text included.
        gain: By variant, how much better than usual a trained router predicts it to do.
    """
    found = {f"gain:{name}": float(gain[name]) for name in sorted(gain)[:2]} if gain else {}
    for name in _chosen(tuple(numbers))[: MOST - len(found)]:
        value = numbers[name]
        scale = _SCALES.get(name)
        if isfinite(value):
            found[name] = asinh(value) if scale is None else scale * value
    return found


@lru_cache(maxsize=256)
def _chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    known = [name for name in _SCALES if name in names]
    return (*known, *sorted(_others(names), key=lambda name: (_rank(name), name)))


def _others(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(("text.", "chat."))]


def _rank(name: str) -> int:
    feature = name.rpartition(".")[2]
    if feature in _FIRST:
        return _FIRST.index(feature)
    return len(_FIRST) + 1 + _LAST.index(feature) if feature in _LAST else len(_FIRST)
