"""``GET /semaforo/v1/figures``: everything counted since the start, and what is going on now, in one answer.

Counters only grow, so that whoever asks twice has rates for the time between: `now_s` is the clock of both.
Times are seconds, costs US dollars. Rows in a queue are by task, the rest by variant and by replica.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.entities import Priority, Variant
from semaforo.observe.metrics import BUCKETS_S, ReplicaStats, VariantStats
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.server.shown import shown

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


class Figures:
    """The handler."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began = time.monotonic()

    async def figures(self, request: HttpRequest) -> Response:
        """Tell everything."""
        engine = self._engine
        metrics, catalog = engine.metrics, engine.catalog
        now = time.monotonic()
        return json_response(
            {
                "now_s": now,
                "uptime_s": now - self._began,
                "process": {"pid": os.getpid(), "cpu_s": time.process_time(), "rss_bytes": _rss_bytes()},
                "arrived": metrics.arrived,
                "outcomes": metrics.outcomes,
                "moves": metrics.moves,
                "latency_bounds_s": BUCKETS_S,
                "looks": [
                    {"task": task, "extractor": kind, **msgspec.to_builtins(cost)}
                    for (task, kind), cost in sorted(engine.learning.looking.costs.items())
                ],
                "tasks": [
                    {
                        "name": task.name,
                        "kind": task.kind,
                        "waiting_rows": engine.waiting_rows(task.name, Priority.LOW),
                        "max_queue_rows": task.max_queue_rows,
                    }
                    for task in catalog.tasks.values()
                ],
                "variants": [
                    _variant(v, metrics.variants.get(v.id, _NONE)) for v in catalog.variants.values()
                ],
                "replicas": [
                    shown(status) | _replica(metrics.replicas.get(status.id, _IDLE))
                    for status in engine.replicas()
                ],
            }
        )


_NONE = VariantStats()
_IDLE = ReplicaStats()


def routes(engine: Engine) -> list[Route]:
    """Return the route of the figures."""
    return [Route("GET", "/semaforo/v1/figures", "read", Figures(engine).figures)]


def _variant(variant: Variant, stats: VariantStats) -> dict[str, Any]:
    return {
        "id": variant.id,
        "task": variant.task,
        "model": variant.model,
        "version": variant.version,
        "name": variant.name,
        "answered": stats.ok,
        "failed": stats.failed,
        "rows": stats.rows,
        "batches": sum(batch.count for batch in stats.batches.values()),
        "latency_s": stats.ok_s,
        "queue_s": stats.queue_s,
        "compute_s": stats.compute_s,
        "cost": stats.cost,
        "latency_counts": stats.histogram,
    }


def _replica(stats: ReplicaStats) -> dict[str, Any]:
    return {"batches": stats.batches, "failures": stats.failures, "ejections": stats.ejections}


def _rss_bytes() -> int:
    """Return the resident size of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
