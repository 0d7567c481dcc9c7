"""Figures of a run."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.traffic.outcome import UNANSWERED, Floats, Outcome

SHARES = (0.5, 0.9, 0.99, 0.999)
LATE_S = 0.002
BUSY = 0.9


class Spread(msgspec.Struct, frozen=True):
    """Seconds: percentiles (exact, of all values), the mean and the largest; NaN of nothing."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Served(msgspec.Struct, frozen=True):
    """What one model and variant served.

    Attributes:
        name: ``model/variant``; "" where no header says it.
        count: Requests answered well.
        latency: Of these.
    """

    name: str
    count: int
    latency: Spread


class Summary(msgspec.Struct, frozen=True):
    """The figures.

    Attributes:
        seconds: How long requests were sent.
        requests: As many were due; `answered` well, `in_time` too, `unanswered` at the end.
        offered: Requests due per second.
        throughput: Good answers per second until the last one came.
        goodput: Good answers in time, per second of sending.
        latency: Of good answers, and of requests still unanswered as far as they had waited.
        first_token, per_token: Of chats that were streamed.
        tokens_per_s: Tokens of good answers per second.
        lateness: Of the generator.
        status: Requests by how they ended: HTTP status, ``broken``, ``unanswered``, ``cut short``.
        reasons: Requests that ended badly: (status, reason, count), most first.
        served: By model and variant, most first.
        warnings: Why the figures may not be the server's.
    """

    seconds: float
    requests: int
    answered: int
    in_time: int
    unanswered: int
    offered: float
    throughput: float
    goodput: float
    latency: Spread
    first_token: Spread
    per_token: Spread
    tokens_per_s: float
    lateness: Spread
    status: dict[str, int]
    reasons: tuple[tuple[str, str, int], ...]
    served: tuple[Served, ...]
    connections: int
    sent_bytes: int
    received_bytes: int
    generator_cpu: float
    warnings: tuple[str, ...] = ()


WORDS = {0: "broken", UNANSWERED: "unanswered", -2: "cut short"}


def spread(values: Floats) -> Spread:
    """Return the figures of some durations."""
    nan = float("nan")
    if not len(values):
        return Spread(0, nan, nan, nan, nan, nan, nan)
    # The value that so many are at or below: never made up between two.
    ordered = np.sort(values)
    # Rounding must not make 0.999 of 1,000 values more than 999 of them.
    p50, p90, p99, p999 = (float(ordered[math.ceil(share * len(ordered) - 1e-6) - 1]) for share in SHARES)
    return Spread(len(ordered), float(ordered.mean()), p50, p90, p99, p999, float(ordered[-1]))


def summarise(outcome: Outcome, deadlines: tuple[float | None, ...], *, open_loop: bool) -> Summary:
    """Return the figures of a run.

    Args:
        outcome: What became of its requests.
        deadlines: Seconds by kind of request.
        open_loop: Whether its generator kept to a schedule.
    """
    seconds = max(1e-9, outcome.seconds)
    ok = outcome.ok
    limit = np.array([np.inf if d is None else d for d in deadlines])[outcome.kind]
    in_time = ok & (outcome.latency <= limit)
    waiting = outcome.status == UNANSWERED
    answers = outcome.done[~np.isnan(outcome.done)]
    end = max(outcome.seconds, outcome.ended, float(answers.max(initial=0.0)))
    latency = np.concatenate([outcome.latency[ok], end - outcome.scheduled[waiting]])
    streamed = ok & ~np.isnan(outcome.first)
    several = streamed & (outcome.tokens > 1) & (outcome.last > outcome.first)
    span = max(seconds, float(outcome.done[ok].max(initial=0.0)))
    return Summary(
        seconds=seconds,
        requests=len(outcome.status),
        answered=int(ok.sum()),
        in_time=int(in_time.sum()),
        unanswered=int(waiting.sum()),
        offered=len(outcome.status) / seconds,
        throughput=float(ok.sum() / span),
        goodput=float(in_time.sum() / seconds),
        latency=spread(latency),
        first_token=spread((outcome.first - outcome.scheduled)[streamed]),
        per_token=spread(((outcome.last - outcome.first) / np.maximum(1, outcome.tokens - 1))[several]),
        tokens_per_s=float(outcome.tokens[ok].sum() / span),
        lateness=spread(outcome.lateness),
        status=_status(outcome.status),
        reasons=tuple((WORDS.get(s, str(s)), text, count) for (s, text), count in outcome.reasons.items()),
        served=_served(outcome, ok),
        connections=outcome.connections,
        sent_bytes=outcome.sent_bytes,
        received_bytes=outcome.received_bytes,
        generator_cpu=outcome.cpu,
        warnings=_warnings(outcome, spread(outcome.lateness), open_loop, int(waiting.sum())),
    )


def _status(status: NDArray[np.int16]) -> dict[str, int]:
    values, counts = np.unique(status, return_counts=True)
    pairs = sorted(zip(counts.tolist(), values.tolist(), strict=True), reverse=True)
    return {WORDS.get(value, str(value)): count for count, value in pairs}


def _served(outcome: Outcome, ok: NDArray[np.bool_]) -> tuple[Served, ...]:
    found = []
    for number, name in enumerate(outcome.names):
        mine = ok & (outcome.who == number)
        if mine.any():
            found.append(Served(name, int(mine.sum()), spread(outcome.latency[mine])))
    return tuple(sorted(found, key=lambda served: -served.count))


def _warnings(outcome: Outcome, late: Spread, open_loop: bool, unanswered: int) -> tuple[str, ...]:
    found = []
    if open_loop and late.p99 > LATE_S:
        found.append(
            f"the generator itself was late (p99 {late.p99 * 1e3:.1f} ms), which counts as the server's latency: "
            "share the load by --processes, lower the rate, or give the generator a core of its own"
        )
    if outcome.cpu > BUSY:
        found.append(
            f"a generator used {outcome.cpu:.0%} of a core and may be what limits the figures: use more --processes"
        )
    if open_loop and outcome.full:
        found.append(
            f"{outcome.full:,} requests waited for one of the {outcome.connections:,} connections: "
            "the server did not keep up, or --connections is too small"
        )
    if unanswered:
        found.append(
            f"{unanswered:,} requests had no answer at the end: their latency is at least what is counted"
        )
    return tuple(found)


def plain(summary: Summary) -> dict[str, Any]:
    """Return the figures as plain JSON types; what is not a number is None."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: of(item) for name, item in value.items()}
        if isinstance(value, list):
            return [of(item) for item in value]
        return None if isinstance(value, float) and value != value else value

    found: dict[str, Any] = of(msgspec.to_builtins(summary))
    return found
