"""The controller: one in charge per fleet. It keeps as many replicas of each variant as are wanted.

Rules this module keeps:

1. Pure, like the dispatcher: events in, effects out, state that serialises.
2. A replica that dies or cannot start is started again after a back-off that doubles from `BACKOFF_S` up to
   `BACKOFF_MOST_S`, and is forgiven once it has served for `STABLE_S`.
3. Scaling moves one replica at a time, within the operator's bounds; what the operator sets by hand stays until
   the next change of the fleet.
4. A replica whose specification changed is stopped only when its successor is ready, so that nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from semaforo.catalog.state import Catalog, Scaling
from semaforo.core.effects import ControllerEffect, StartReplica, StopReplica
from semaforo.core.events import (
    ControllerEvent,
    DrainReplica,
    FleetChanged,
    Load,
    LoadVariant,
    ReplicaFailed,
    ReplicaGone,
    ReplicaReady,
    ReplicaStopped,
    Scale,
    Tick,
    UnloadVariant,
)
from semaforo.entities import ReplicaSpec, ReplicaState
from semaforo.policy import scale

BACKOFF_S = 0.1
BACKOFF_MOST_S = 30.0
STABLE_S = 30.0


class Managed(msgspec.Struct):
    """One replica under the controller's care.

    Attributes:
        spec: What it was started from.
        state: Where it stands.
        failures: Deaths and failed starts since it was last stable.
        restarts: Starts after the first.
        since: When it entered its state.
        start_at: When it is to be started again, while in back-off.
        error: Why it last died or could not start.
    """

    spec: ReplicaSpec
    state: ReplicaState
    failures: int = 0
    restarts: int = 0
    since: float = 0.0
    start_at: float = 0.0
    error: str = ""


class ControllerState(msgspec.Struct):
    """Everything the controller's decisions depend on."""

    catalog: Catalog = msgspec.field(default_factory=Catalog)
    replicas: dict[str, Managed] = {}
    wanted: dict[str, int] = {}
    calm: dict[str, int] = {}


_LIVE = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.BACKOFF)


class Controller:
    """Starts, restarts, scales and stops replicas."""

    def __init__(self, state: ControllerState | None = None) -> None:
        self.state = state or ControllerState()
        # What the event at hand has already decided to stop; empty between calls of `handle`.
        self._stop_now: list[str] = []
        self._on: dict[type, Callable[[Any, float], None]] = {
            FleetChanged: self._fleet,
            ReplicaReady: self._ready,
            ReplicaFailed: self._failed,
            ReplicaGone: self._gone,
            ReplicaStopped: self._stopped,
            Scale: self._scale,
            LoadVariant: self._load_variant,
            UnloadVariant: self._unload_variant,
            DrainReplica: self._drain,
            Load: self._load,
            Tick: lambda event, now: None,
        }

    def handle(self, event: ControllerEvent, now: float) -> list[ControllerEffect]:
        """Take in one event at the monotonic time `now` (seconds)."""
        self._on[type(event)](event, now)
        return self._reconcile(now)

    def next_deadline(self) -> float | None:
        """Return when a `Tick` is due (monotonic seconds), or None."""
        waiting = [m.start_at for m in self.state.replicas.values() if m.state is ReplicaState.BACKOFF]
        return min(waiting, default=None)

    def snapshot(self) -> bytes:
        """Encode the whole state."""
        return msgspec.msgpack.encode(self.state)

    @classmethod
    def restore(cls, snapshot: bytes) -> Controller:
        """Rebuild a controller that will decide exactly as the one that gave the snapshot."""
        return cls(msgspec.msgpack.decode(snapshot, type=ControllerState))

    def bounds(self, variant: str) -> Scaling:
        """Return the operator's bounds on a variant's replicas."""
        return self.state.catalog.scaling.get(variant, Scaling())

    # --- events ----------------------------------------------------------------------------------------

    def _fleet(self, event: FleetChanged, now: float) -> None:
        state = self.state
        state.catalog = event.catalog
        state.wanted = {
            name: max(self.bounds(name).least, min(state.wanted.get(name, 0), self.bounds(name).most))
            for name in event.catalog.variants
        }

    def _ready(self, event: ReplicaReady, now: float) -> None:
        managed = self.state.replicas.get(event.replica.id)
        if managed is not None and managed.state is ReplicaState.STARTING:
            managed.state, managed.since = ReplicaState.READY, now
            self._retire_one_outdated(managed.spec.variant, now)

    def _failed(self, event: ReplicaFailed, now: float) -> None:
        self._back_off(event.replica, event.reason, now)

    def _gone(self, event: ReplicaGone, now: float) -> None:
        self._back_off(event.replica, event.reason, now)

    def _back_off(self, replica: str, reason: str, now: float) -> None:
        managed = self.state.replicas.get(replica)
        if managed is None or managed.state is ReplicaState.BACKOFF:
            return
        if managed.state is ReplicaState.DRAINING:
            del self.state.replicas[replica]
            return
        if managed.state is ReplicaState.READY and now - managed.since >= STABLE_S:
            managed.failures = 0
        delay = min(BACKOFF_MOST_S, BACKOFF_S * 2.0**managed.failures)
        managed.failures += 1
        managed.state, managed.since = ReplicaState.BACKOFF, now
        managed.start_at, managed.error = now + delay, reason

    def _stopped(self, event: ReplicaStopped, now: float) -> None:
        self.state.replicas.pop(event.replica, None)

    def _scale(self, event: Scale, now: float) -> None:
        if event.variant in self.state.wanted:
            self.state.wanted[event.variant] = max(0, event.replicas)

    def _load_variant(self, event: LoadVariant, now: float) -> None:
        if event.variant in self.state.wanted:
            least = max(1, self.bounds(event.variant).least)
            self.state.wanted[event.variant] = max(least, self.state.wanted[event.variant])
            for managed in self.state.replicas.values():
                if managed.spec.variant == event.variant and managed.state is ReplicaState.BACKOFF:
                    managed.start_at = now

    def _unload_variant(self, event: UnloadVariant, now: float) -> None:
        if event.variant in self.state.wanted:
            self.state.wanted[event.variant] = 0

    def _drain(self, event: DrainReplica, now: float) -> None:
        managed = self.state.replicas.get(event.replica)
        if managed is not None and managed.state in _LIVE:
            name = managed.spec.variant
            self.state.wanted[name] = max(0, self.state.wanted.get(name, 0) - 1)
            managed.state, managed.since = ReplicaState.DRAINING, now
            self._stop_now.append(event.replica)

    def _load(self, event: Load, now: float) -> None:
        state = self.state
        for name, busy in event.busy.items():
            if name not in state.wanted or not state.wanted[name]:
                continue
            bounds = self.bounds(name)
            if bounds.least == bounds.most:
                continue
            state.wanted[name], state.calm[name] = scale.desired(
                state.wanted[name], bounds.least, bounds.most, busy,
                event.waiting_rows.get(name, 0), state.calm.get(name, 0),
            )  # fmt: skip

    # --- keeping as many as are wanted -----------------------------------------------------------------

    def _retire_one_outdated(self, variant: str, now: float) -> None:
        template = self.state.catalog.templates.get(variant)
        for name, managed in self.state.replicas.items():
            if managed.spec.variant != variant or managed.state is not ReplicaState.READY:
                continue
            if template is not None and not _same(managed.spec, template):
                managed.state, managed.since = ReplicaState.DRAINING, now
                self._stop_now.append(name)
                return

    def _reconcile(self, now: float) -> list[ControllerEffect]:
        state = self.state
        effects: list[ControllerEffect] = [StopReplica(name) for name in self._stop_now]
        self._stop_now.clear()
        for name, managed in list(state.replicas.items()):
            if managed.spec.variant not in state.catalog.variants and managed.state in _LIVE:
                effects += self._stop(name, managed, now)
            elif managed.state is ReplicaState.BACKOFF and managed.start_at <= now:
                template = state.catalog.templates.get(managed.spec.variant, managed.spec)
                managed.spec = msgspec.structs.replace(template, id=name)
                managed.state, managed.since = ReplicaState.STARTING, now
                managed.restarts += 1
                effects.append(StartReplica(managed.spec))
        for variant, wanted in state.wanted.items():
            wants = state.catalog.templates.get(variant)
            if wants is None:
                continue
            mine = [
                (n, m) for n, m in state.replicas.items() if m.spec.variant == variant and m.state in _LIVE
            ]
            current = [(n, m) for n, m in mine if _same(m.spec, wants)]
            for _ in range(wanted - len(current)):
                name = self._free_name(wants, state.catalog.variants[variant].name)
                spec = msgspec.structs.replace(wants, id=name)
                state.replicas[name] = Managed(spec, ReplicaState.STARTING, since=now)
                effects.append(StartReplica(spec))
            # The ones that serve least go first: not ready yet, then the youngest.
            extra = sorted(current, key=lambda e: (e[1].state is ReplicaState.READY, -e[1].since))
            for name, managed in extra[: max(0, len(current) - wanted)]:
                effects += self._stop(name, managed, now)
            # Outdated ones serve until as many successors as are wanted do.
            if sum(m.state is ReplicaState.READY for _, m in current) >= wanted:
                for name, managed in mine:
                    if managed.state in _LIVE and not _same(managed.spec, wants):
                        effects += self._stop(name, managed, now)
        return effects

    def _stop(self, name: str, managed: Managed, now: float) -> list[ControllerEffect]:
        if managed.state is ReplicaState.BACKOFF:
            del self.state.replicas[name]
            return []
        managed.state, managed.since = ReplicaState.DRAINING, now
        return [StopReplica(name)]

    def _free_name(self, template: ReplicaSpec, variant: str) -> str:
        model = template.variant.split("/", 1)[0]
        number = 1
        while (name := f"{model}-{variant}-{number}") in self.state.replicas:
            number += 1
        return name


def _same(spec: ReplicaSpec, template: ReplicaSpec) -> bool:
    return msgspec.structs.replace(spec, id=template.id) == template
