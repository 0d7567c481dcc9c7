"""``GET /metrics``: the engine's counters in Prometheus' text format.

All names begin with ``semaforo_``; times are seconds, costs US dollars. Nothing is counted here: each scrape
reads `Metrics` and the replicas as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from semaforo.entities import Variant
from semaforo.features.drift import Drift
from semaforo.live.looking import Cost
from semaforo.observe.metrics import BUCKETS_S, VariantStats
from semaforo.routing.tryout import Side, Tryout
from semaforo.server.http import HttpRequest, HttpResponse, Response, Route

if TYPE_CHECKING:
    from semaforo.live.crew import ReplicaStatus
    from semaforo.live.engine import Engine
    from semaforo.server.deferred.service import Deferred, Figures

_Row = TypeVar("_Row")

_VARIANT = ("task", "model", "version", "variant")
_REPLICA = (*_VARIANT, "replica")
_ROUTER = ("task", "router", "role")
_STATES = ("starting", "ready", "draining", "ejected", "backoff", "stopped")


class EngineCollector:
    """Reads an engine's counters at each scrape.

    Attributes:
        deferred: Figures of the queue on disk, where there is one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.deferred: Figures | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._requests()
        yield from self._cached()
        yield from self._looks()
        yield from self._drifts()
        yield from self._routers()
        yield from self._variants()
        yield from self._replicas()
        if self.deferred is not None:
            yield from _deferred(self.deferred)

    def _cached(self) -> Iterator[Metric]:
        for at, name, text in (
            (0, "hits", "Requests that were answered by an answer that was kept."),
            (1, "misses", "Requests for which none was kept, of tasks that keep answers."),
        ):
            family = CounterMetricFamily(f"semaforo_cache_{name}", text, labels=["task"])
            for task, counts in self._engine.learning.cached().items():
                family.add_metric([task], counts[at])
            yield family
        likened = self._engine.learning.likened()
        hits = CounterMetricFamily(
            "semaforo_cache_semantic_hits",
            "Requests that were answered by what was said to one like them.",
            labels=["task"],
        )
        pairs = CounterMetricFamily(
            "semaforo_cache_compared",
            "Pairs of requests by which the cache has learned how alike is enough.",
            labels=["task"],
        )
        threshold = GaugeMetricFamily(
            "semaforo_cache_threshold",
            "Likeness from which answers are given; +Inf while that is not known.",
            labels=["task"],
        )
        for task, figures in likened.items():
            hits.add_metric([task], figures.hits)
            pairs.add_metric([task], figures.compared)
            threshold.add_metric([task], figures.threshold)
        yield from (hits, pairs, threshold)

    def _looks(self) -> Iterator[Metric]:
        counters: dict[str, tuple[str, Callable[[Cost], float]]] = {
            "looks": ("Times that an extractor looked at a request.", lambda c: c.count),
            "seconds": ("Seconds that it took.", lambda c: c.seconds),
            "away": ("Times that it ran in a thread.", lambda c: c.away),
            "skipped": ("Times that it was left out, being too long.", lambda c: c.skipped),
            "failed": ("Times that it failed, or gave what is no number.", lambda c: c.failed),
        }
        costs = list(self._engine.learning.looking.costs.items())
        yield from _families(CounterMetricFamily, "feature", ("task", "extractor"), counters, costs)

    def _drifts(self) -> Iterator[Metric]:
        variants, drifts = self._engine.catalog.variants, self._engine.learning.drifting.drifts()
        gauges: dict[str, tuple[str, Callable[[Drift], float]]] = {
            "index": (
                "Population stability index of the feature that has changed most since it was measured.",
                lambda d: d.index,
            ),
            "outside": ("Share of features out of the range it was measured on.", lambda d: d.outside),
        }
        known = [(_labels(variants[variant]), drift) for variant, drift in drifts.items()]
        yield from _families(GaugeMetricFamily, "variant_drift", _VARIANT, gauges, known)

    def _routers(self) -> Iterator[Metric]:
        shares = GaugeMetricFamily(
            "semaforo_router_share",
            "Share of the requests of its task that a router decides.",
            labels=_ROUTER,
        )
        tried: list[tuple[Sequence[str], Tryout]] = []
        sides: list[tuple[Sequence[str], Side]] = []
        for task, course in self._engine.learning.rollouts.courses.items():
            rollout, tryout = course.rollout, course.tryout
            service = (task, rollout.service.name, "service")
            shares.add_metric(service, 1.0 - rollout.share if rollout.candidate is not None else 1.0)
            if rollout.candidate is None:
                continue
            candidate = (task, rollout.candidate.name, "candidate")
            shares.add_metric(candidate, rollout.share)
            if tryout is not None:
                tried.append(((task, rollout.candidate.name), tryout))
                sides += [(service, tryout.service), (candidate, tryout.candidate)]
        yield shares
        both: dict[str, tuple[str, Callable[[Tryout], float]]] = {
            "seen": ("Requests that both routers looked at.", lambda t: t.seen),
            "apart": ("Those of them for which they would pick different variants.", lambda t: t.apart),
        }
        yield from _families(CounterMetricFamily, "router_candidate", ("task", "router"), both, tried)
        counters: dict[str, tuple[str, Callable[[Side], float]]] = {
            "answered": (
                "Requests answered that it decided since a candidate is tried.",
                lambda s: s.answers,
            ),
            "failed": ("Those that ended badly.", lambda s: s.failed),
            "cost_dollars": ("US dollars that the answered ones cost.", lambda s: s.cost),
            "answer_seconds": ("Seconds that the answered ones took.", lambda s: s.seconds),
        }
        yield from _families(CounterMetricFamily, "router", _ROUTER, counters, sides)

    def _requests(self) -> Iterator[Metric]:
        metrics = self._engine.metrics
        yield CounterMetricFamily("semaforo_requests_arrived", "Requests that arrived.", metrics.arrived)
        outcomes = CounterMetricFamily("semaforo_requests", "Requests by how they ended.", labels=["outcome"])
        for outcome, count in metrics.outcomes.items():
            outcomes.add_metric([outcome], count)
        yield outcomes
        moves = CounterMetricFamily("semaforo_moves", "Requests bound again, by why.", labels=["reason"])
        for reason, count in metrics.moves.items():
            moves.add_metric([reason], count)
        yield moves

    def _variants(self) -> Iterator[Metric]:
        metrics = self._engine.metrics
        variants = self._engine.catalog.variants
        counters: dict[str, tuple[str, Callable[[VariantStats], float]]] = {
            "answered": ("Requests answered.", lambda s: s.ok),
            "failed": ("Requests that ended badly.", lambda s: s.failed),
            "rows": ("Rows served.", lambda s: s.rows),
            "compute_seconds": ("Seconds that workers spent on batches.", lambda s: s.compute_s),
            "queue_seconds": ("Seconds that answered requests waited.", lambda s: s.queue_s),
            "cost_dollars": (
                "US dollars that answered requests cost; a graph costs what its steps do, which count too.",
                lambda s: s.cost,
            ),
            "batches": ("Batches run.", lambda s: sum(batch.count for batch in s.batches.values())),
        }
        known = [(_labels(v), metrics.variants.get(v.id, _NONE)) for v in variants.values()]
        yield from _families(CounterMetricFamily, "variant", _VARIANT, counters, known)
        latency = HistogramMetricFamily(
            "semaforo_request_seconds", "Seconds from arrival to answer.", labels=_VARIANT
        )
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        for labels, stats in known:
            buckets = list(zip(bounds, accumulate(stats.histogram), strict=True))
            latency.add_metric(labels, buckets, stats.ok_s)
        yield latency

    def _replicas(self) -> Iterator[Metric]:
        variants = self._engine.catalog.variants
        replicas = [(r, variants[r.variant]) for r in self._engine.replicas() if r.variant in variants]
        gauges: dict[str, tuple[str, Callable[[ReplicaStatus], float]]] = {
            "in_flight_rows": ("Rows that a replica works on.", lambda r: r.in_flight_rows),
            "memory_bytes": ("Bytes that a replica holds.", lambda r: r.memory_bytes),
        }
        known = [((*_labels(v), replica.id), replica) for replica, v in replicas]
        yield from _families(GaugeMetricFamily, "replica", _REPLICA, gauges, known)
        restarts = CounterMetricFamily(
            "semaforo_replica_restarts", "Times a replica was started again.", labels=_REPLICA
        )
        for labels, replica in known:
            restarts.add_metric(labels, replica.restarts)
        yield restarts
        counts = GaugeMetricFamily("semaforo_replicas", "Replicas by state.", labels=(*_VARIANT, "state"))
        for v in variants.values():
            states = [str(replica.state) for replica, of in replicas if of.id == v.id]
            for state in _STATES:
                counts.add_metric((*_labels(v), state), states.count(state))
        yield counts


_NONE = VariantStats()


def _labels(v: Variant) -> tuple[str, ...]:
    return (v.task, v.model, v.version, v.name)


def _families(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    of: str,
    labels: tuple[str, ...],
    figures: Mapping[str, tuple[str, Callable[[_Row], float]]],
    rows: Sequence[tuple[Sequence[str], _Row]],
) -> Iterator[Metric]:
    """Yield a family for each figure: its name → its text, and how it is read off a row."""
    for name, (text, read) in figures.items():
        family = kind(f"semaforo_{of}_{name}", text, labels=labels)
        for values, row in rows:
            family.add_metric(values, read(row))
        yield family


def _deferred(figures: Figures) -> Iterator[Metric]:
    counts = GaugeMetricFamily("semaforo_deferred", "Requests kept on disk, by status.", labels=["status"])
    for status, count in figures.by_status.items():
        counts.add_metric([status], count)
    yield counts
    yield GaugeMetricFamily(
        "semaforo_deferred_bytes", "Bytes of requests, results and files on disk.", figures.bytes
    )
    yield GaugeMetricFamily(
        "semaforo_deferred_oldest_seconds", "Age of the first request of the queue on disk.", figures.oldest_s
    )


def routes(engine: Engine, deferred: Deferred | None = None) -> list[Route]:
    """Return the route of the metrics."""
    registry = CollectorRegistry(auto_describe=False)
    collector = EngineCollector(engine)
    registry.register(collector)
    ProcessCollector(registry=registry)

    async def metrics(request: HttpRequest) -> Response:
        """``GET /metrics``."""
        if deferred is not None:
            collector.deferred = await deferred.figures()
        return HttpResponse(
            200, ((b"content-type", CONTENT_TYPE_LATEST.encode()),), generate_latest(registry)
        )

    return [Route("GET", "/metrics", "read", metrics)]
