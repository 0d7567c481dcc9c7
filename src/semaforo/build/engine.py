"""A running fleet of a catalog: the engine, and the handles that host its replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from semaforo.build.catalog import Secrets
from semaforo.entities import ReplicaSpec

if TYPE_CHECKING:
    from semaforo.features.plan import Sources
    from semaforo.live.engine import Engine
    from semaforo.live.handle import Handle, Sink
    from semaforo.repository.routers import Routed
    from semaforo.routing.tasks import TaskModel


def handles(secrets: Secrets | None = None) -> Callable[[ReplicaSpec, Sink], Handle]:
    """Return the factory of what hosts replicas: inline, in threads, in processes, or remote."""
    from semaforo.live.handles import handle_for

    def handle_with(spec: ReplicaSpec, sink: Sink) -> Handle:
        hidden = (secrets or {}).get(spec.variant)
        if hidden:
            spec = msgspec.structs.replace(spec, options={**spec.options, **hidden})
        return handle_for(spec, sink)

    return handle_with


def engine_for(
    journal: Path | None = None,
    ring: int = 4096,
    secrets: Secrets | None = None,
    history: Path | None = None,
    routers: Mapping[str, Routed] | None = None,
    tasks: TaskModel | None = None,
    sources: Sources | None = None,
) -> Engine:
    """Make an engine whose replicas run where they say; it serves after ``engine.start(catalog)``.

    Raises:
        ConfigError: The history cannot be kept in this file.
    """
    from semaforo.live.engine import Engine
    from semaforo.repository.history import HistoryStore

    store = HistoryStore(history) if history is not None else None
    return Engine(
        handles(secrets),
        journal=journal,
        explain_ring=ring,
        history=store,
        routers=routers,
        tasks=tasks,
        sources=sources,
    )
