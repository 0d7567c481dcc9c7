"""Durations, sizes and prices as people write them: ``50ms``, ``512MB``, ``0.04/h``."""

from __future__ import annotations

import re

from semaforo.errors import InvalidRequest

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(?:/\s*)?([a-zA-Zµ]*)\s*")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
}  # fmt: skip


def _parse(
    text: str, units: dict[str, float] | dict[str, int], what: str, example: str
) -> tuple[float, float]:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise InvalidRequest(f"'{text}' is not a {what}: write it with a unit, for example {example}")
    return float(match[1]), units[match[2]]


def parse_duration(text: str) -> float:
    """Return seconds for ``250us``, ``50ms``, ``2s``, ``5m``, ``1h``.

    Raises:
        InvalidRequest: The text has no number or no known unit.
    """
    number, unit = _parse(text, _SECONDS, "duration", "50ms or 2s")
    return number * unit


def parse_size(text: str) -> int:
    """Return bytes for ``512MB`` or ``1GiB``.

    Raises:
        InvalidRequest: The text has no number or no known unit.
    """
    number, unit = _parse(text, _BYTES, "size", "512MB or 1GiB")
    return int(number * unit)


def parse_rate(text: str) -> float:
    """Return US dollars per second for ``0.04/h``.

    Raises:
        InvalidRequest: The text has no number or no known unit.
    """
    number, unit = _parse(text, _SECONDS, "price", "0.04/h")
    return number / unit


def show_duration(seconds: float) -> str:
    """Write seconds for a person: ``0.9 ms``, ``34 ms``, ``2.0 s``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s"


def show_period(seconds: float) -> str:
    """Write a length of time as a fleet file has it: ``1h``, ``1d``, ``90s``."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def show_dollars(dollars: float) -> str:
    """Write US dollars for a person: ``$2.3e-8``, ``$0.04``."""
    if dollars == 0:
        return "$0"
    if dollars < 0.001:
        mantissa, exponent = f"{dollars:.1e}".split("e")
        return f"${mantissa}e{int(exponent)}"
    return f"${dollars:.4g}"


def unlike(first: float, second: float, digits: int = 3) -> tuple[str, str]:
    """Write two numbers with at least `digits` figures, and with as many as it takes to tell them apart."""
    for more in range(digits, 18):
        shown = _figures(first, more), _figures(second, more)
        if shown[0] != shown[1]:
            break
    return shown


def _figures(number: float, digits: int) -> str:
    text = f"{number:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(number) < 1e9 else text
