"""When requests are sent: drawn from a process, or read from a trace."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities.units import parse_duration
from semaforo.errors import InvalidRequest

Moments = NDArray[np.float64]

_AT = ("at", "arrival", "arrival_s", "timestamp", "time", "t")
_CHUNK = 4096


class Arrival(msgspec.Struct, frozen=True):
    """One line of a trace.

    Attributes:
        at: Seconds from the first arrival.
        priority: As ``semaforo-priority`` takes it, or "".
        deadline_s: Seconds from `at`, or None.
        tokens: Most tokens of a chat's answer; 0 = not said.
    """

    at: float
    priority: str = ""
    deadline_s: float | None = None
    tokens: int = 0


def poisson(rate: float, seconds: float, seed: int) -> Moments:
    """Return the arrivals of a Poisson process of `rate` per second, in order, all before `seconds`."""
    drawn = np.random.default_rng(seed)
    parts = [np.zeros(0)]
    last = 0.0
    while last < seconds:
        size = min(_CHUNK, int(rate * (seconds - last)) + 64)
        parts.append(last + np.cumsum(drawn.exponential(1 / rate, size)))
        last = float(parts[-1][-1])
    moments = np.concatenate(parts)
    return moments[moments < seconds]


def uniform(rate: float, seconds: float) -> Moments:
    """Return arrivals at even distances, the first at 0, all before `seconds`."""
    return np.arange(math.ceil(rate * seconds - 1e-9)) / rate


def read_trace(path: Path, speed: float = 1.0) -> list[Arrival]:
    """Read a trace: CSV with a header, or JSON objects one a line; sorted, and counted from its first arrival.

    Its columns are ``at`` (seconds; also arrival, timestamp, time or t), and where wanted ``priority``,
    ``deadline`` (as ``50ms``; also deadline_ms) and ``tokens``. Others are ignored.

    Args:
        path: The file.
        speed: Arrivals come so many times as fast; deadlines stay.

    Raises:
        InvalidRequest: The file cannot be read, or a line is wrong; the message says which.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"the trace {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"the trace {path} is no text: it takes CSV, or JSON objects one a line"
        ) from None
    lines = text.splitlines()
    found = [_arrival(path, number, row) for number, row in _rows(path, lines)]
    if not found:
        raise InvalidRequest(f"the trace {path} has no arrivals")
    found.sort(key=lambda arrival: arrival.at)
    first = found[0].at
    return [msgspec.structs.replace(arrival, at=(arrival.at - first) / speed) for arrival in found]


def _rows(path: Path, lines: list[str]) -> Iterable[tuple[int, Mapping[str, Any]]]:
    if next((line for line in lines if line.strip()), "").lstrip().startswith("{"):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise InvalidRequest(f"{path}:{number}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise InvalidRequest(f"{path}:{number}: a line is a JSON object with the field 'at'")
            yield number, row
        return
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if not set(names) & set(_AT):
        raise InvalidRequest(
            f"{path}:1: no column 'at': a trace begins with a line of names, as at,priority,deadline"
        )
    reader.fieldnames = names
    for row in reader:
        yield reader.line_num, row


def _arrival(path: Path, number: int, row: Mapping[str, Any]) -> Arrival:
    try:
        at = float(next((row[name] for name in _AT if name in row), "")) + 0.0
        if not math.isfinite(at):
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidRequest(f"{path}:{number}: 'at' takes seconds, for example 12.25") from None
    deadline, milliseconds = row.get("deadline") or None, row.get("deadline_ms") or None
    try:
        if milliseconds is not None:
            deadline_s: float | None = float(milliseconds) / 1e3
        else:
            deadline_s = None if deadline is None else parse_duration(str(deadline))
        tokens = int(row.get("tokens") or 0)
        if tokens < 0 or (deadline_s is not None and not 0 < deadline_s < math.inf):
            raise ValueError
    except (TypeError, ValueError, InvalidRequest):
        raise InvalidRequest(
            f"{path}:{number}: 'deadline' takes a duration as 50ms, 'deadline_ms' and 'tokens' a number"
        ) from None
    return Arrival(at, str(row.get("priority") or ""), deadline_s, tokens)
