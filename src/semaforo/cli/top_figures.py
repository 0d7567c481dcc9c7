"""What ``semaforo top`` shows: rates and shares for the time between two answers of ``/semaforo/v1/figures``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec

_SHORT_S = 1e-6


class Process(msgspec.Struct):
    """The gateway's own process."""

    pid: int = 0
    cpu_s: float = 0.0
    rss_bytes: int = 0


class Task(msgspec.Struct):
    """A task: rows that wait, and how many may."""

    name: str
    kind: str = "tensor"
    waiting_rows: int = 0
    max_queue_rows: int = 0


class Variant(msgspec.Struct):
    """Counters of a variant."""

    id: str
    task: str
    model: str
    name: str
    answered: int = 0
    failed: int = 0
    latency_s: float = 0.0
    queue_s: float = 0.0
    latency_counts: list[int] = []


class Replica(msgspec.Struct):
    """A replica, and its counters."""

    id: str
    variant: str
    state: str
    isolation: str = ""
    device: str = ""
    pid: int = 0
    in_flight_rows: int = 0
    restarts: int = 0
    last_error: str = ""
    memory_bytes: int = 0
    slots: int = 0
    served_rows: int = 0
    service_s: float = 0.0
    batches: int = 0
    failures: int = 0


class Figures(msgspec.Struct):
    """One answer."""

    now_s: float
    uptime_s: float
    process: Process
    arrived: int
    outcomes: dict[str, int]
    latency_bounds_s: list[float]
    tasks: list[Task]
    variants: list[Variant]
    replicas: list[Replica]


class Line(msgspec.Struct):
    """A task, or a variant of it, over the window.

    Attributes:
        name: Of the task, or ``model/variant``.
        task: Whether it is a task.
        waiting_rows: Rows that wait; of a task only.
        answered, failed: Per second.
        p50_s, p99_s: From arrival to answer, as near as the buckets of its histogram tell; None = none came.
        wait_s: Mean seconds answered requests waited; None = none came.
    """

    name: str
    task: bool
    waiting_rows: int | None
    answered: float
    failed: float
    p50_s: float | None
    p99_s: float | None
    wait_s: float | None


class ReplicaLine(msgspec.Struct):
    """A replica over the window.

    Attributes:
        rows, batches: Per second.
        batch_rows: Mean rows of a batch; None = none ended.
        batch_s: Mean seconds of a batch; None = none ended.
        busy: Share of its slots' time that ended batches took.
        failures, restarts: Since the start.
    """

    id: str
    variant: str
    state: str
    isolation: str
    device: str
    pid: int
    in_flight_rows: int
    rows: float
    batches: float
    batch_rows: float | None
    batch_s: float | None
    busy: float
    failures: int
    restarts: int
    memory_bytes: int
    last_error: str


class View(msgspec.Struct):
    """All of it.

    Attributes:
        window_s: Seconds between the two answers.
        arrived: Requests per second.
        outcomes: Per second, by how requests ended.
        cpu: Cores the gateway used.
    """

    uptime_s: float
    window_s: float
    arrived: float
    outcomes: dict[str, float]
    pid: int
    cpu: float
    rss_bytes: int
    lines: list[Line]
    replicas: list[ReplicaLine]


def between(before: Figures, after: Figures) -> View:
    """Compare two answers of one server.

    Whoever is new in the second has counted from 0.
    """
    window_s = max(_SHORT_S, after.now_s - before.now_s)
    variants = {variant.id: variant for variant in before.variants}
    replicas = {replica.id: replica for replica in before.replicas}
    lines: list[Line] = []
    for task in after.tasks:
        mine = [_since(variants.get(v.id), v) for v in after.variants if v.task == task.name]
        lines.append(_line(task.name, task.waiting_rows, mine, after.latency_bounds_s, window_s))
        if len(mine) > 1:
            lines += [_line(f"{v.model}/{v.name}", None, [v], after.latency_bounds_s, window_s) for v in mine]
    return View(
        uptime_s=after.uptime_s,
        window_s=window_s,
        arrived=(after.arrived - before.arrived) / window_s,
        outcomes={
            name: (count - before.outcomes.get(name, 0)) / window_s for name, count in after.outcomes.items()
        },
        pid=after.process.pid,
        cpu=(after.process.cpu_s - before.process.cpu_s) / window_s,
        rss_bytes=after.process.rss_bytes,
        lines=lines,
        replicas=[_replica(replicas.get(replica.id), replica, window_s) for replica in after.replicas],
    )


def same_server(before: Figures, after: Figures) -> bool:
    """Tell whether a server has gone on running between two answers."""
    return before.process.pid == after.process.pid and before.uptime_s <= after.uptime_s


def quantile(counts: Sequence[int], bounds_s: Sequence[float], share: float) -> float | None:
    """Return about the seconds within which a share of a histogram's requests were answered.

    Inside a bucket requests are taken to be spread evenly; beyond the last bound its bound is given.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    for number, reached in enumerate(accumulate(counts)):
        if reached >= wanted and counts[number]:
            if number >= len(bounds_s):
                break
            low = bounds_s[number - 1] if number else 0.0
            inside = (wanted - (reached - counts[number])) / counts[number]
            return low + (bounds_s[number] - low) * inside
    return bounds_s[-1]


def _since(before: Variant | None, after: Variant) -> Variant:
    if before is None:
        return after
    return msgspec.structs.replace(
        after,
        answered=after.answered - before.answered,
        failed=after.failed - before.failed,
        latency_s=after.latency_s - before.latency_s,
        queue_s=after.queue_s - before.queue_s,
        latency_counts=[
            new - old for new, old in zip(after.latency_counts, before.latency_counts, strict=False)
        ],
    )


def _line(
    name: str,
    waiting_rows: int | None,
    variants: Sequence[Variant],
    bounds_s: Sequence[float],
    window_s: float,
) -> Line:
    counts = [sum(each) for each in zip(*(v.latency_counts for v in variants), strict=False)]
    answered = sum(v.answered for v in variants)
    return Line(
        name=name,
        task=waiting_rows is not None,
        waiting_rows=waiting_rows,
        answered=answered / window_s,
        failed=sum(v.failed for v in variants) / window_s,
        p50_s=quantile(counts, bounds_s, 0.5),
        p99_s=quantile(counts, bounds_s, 0.99),
        wait_s=sum(v.queue_s for v in variants) / answered if answered else None,
    )


def _replica(before: Replica | None, after: Replica, window_s: float) -> ReplicaLine:
    # A replica that was started again under its name goes on counting.
    known = before or Replica("", "", "")
    rows, batches = after.served_rows - known.served_rows, after.batches - known.batches
    service_s = after.service_s - known.service_s
    return ReplicaLine(
        id=after.id,
        variant=after.variant,
        state=after.state,
        isolation=after.isolation,
        device=after.device,
        pid=after.pid,
        in_flight_rows=after.in_flight_rows,
        rows=rows / window_s,
        batches=batches / window_s,
        batch_rows=rows / batches if batches else None,
        batch_s=service_s / batches if batches else None,
        busy=min(1.0, max(0.0, service_s / (window_s * max(1, after.slots)))),
        failures=after.failures,
        restarts=after.restarts,
        memory_bytes=after.memory_bytes,
        last_error=after.last_error,
    )
