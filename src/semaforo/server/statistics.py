"""V2's statistics extension: counts and nanoseconds, from the engine's metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from semaforo.entities import Variant
from semaforo.observe.metrics import Metrics, VariantStats


def model_statistics(variants: Iterable[Variant], metrics: Metrics) -> list[dict[str, Any]]:
    """Return one entry for each model and version, its variants taken together.

    `inference_count` counts rows and `execution_count` batches. A batch's time in its worker is all counted as
    `compute_infer`: copying in and out is not told apart.
    """
    grouped: dict[tuple[str, str], list[VariantStats]] = {}
    for variant in variants:
        stats = metrics.variants.get(variant.id, _NONE)
        grouped.setdefault((variant.model, variant.version), []).append(stats)
    return [_entry(model, version, stats) for (model, version), stats in grouped.items()]


_NONE = VariantStats()


def _entry(model: str, version: str, stats: list[VariantStats]) -> dict[str, Any]:
    ok = sum(s.ok for s in stats)
    batches: dict[int, tuple[int, float]] = {}
    for stat in stats:
        for size, batch in stat.batches.items():
            count, seconds = batches.get(size, (0, 0.0))
            batches[size] = count + batch.count, seconds + batch.seconds
    executions = sum(count for count, _ in batches.values())
    last_at = max(s.last_at for s in stats)
    age_s = time.monotonic() - last_at
    zero = _duration(0, 0.0)
    return {
        "name": model,
        "version": version,
        "last_inference": int((time.time() - age_s) * 1e3) if last_at else 0,
        "inference_count": sum(s.rows for s in stats),
        "execution_count": executions,
        "inference_stats": {
            "success": _duration(ok, sum(s.ok_s for s in stats)),
            "fail": _duration(sum(s.failed for s in stats), sum(s.failed_s for s in stats)),
            "queue": _duration(ok, sum(s.queue_s for s in stats)),
            "compute_input": _duration(ok, 0.0),
            "compute_infer": _duration(ok, sum(s.compute_s for s in stats)),
            "compute_output": _duration(ok, 0.0),
            "cache_hit": zero,
            "cache_miss": zero,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(count, 0.0),
                "compute_infer": _duration(count, seconds),
                "compute_output": _duration(count, 0.0),
            }
            for size, (count, seconds) in sorted(batches.items())
        ],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": int(seconds * 1e9)}
