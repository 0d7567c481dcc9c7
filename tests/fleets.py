"""Small fleets for tests of the core: catalogs, requests and replicas in a line each, and a watched dispatcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from property.model import Model
from semaforo.catalog.state import Catalog, Scaling
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Decided, DispatcherEffect, Finish, Run
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    DispatcherEvent,
    FleetChanged,
    ReplicaReady,
    Tick,
)
from semaforo.entities import (
    BatchProfile,
    Contract,
    Profile,
    Ref,
    ReplicaSpec,
    ReplicaView,
    Request,
    StreamProfile,
    TaskType,
    Variant,
)

CONTRACT = set(Contract.__struct_fields__)


def variant(
    model: str, *, base: float = 0.001, row: float = 0.001, task: str = "t", **fields: Any
) -> Variant:
    """Return a batch variant ``model/1/v``."""
    fields = {"profile": BatchProfile(base, row), "quality": 0.9, "version": "1", "name": "v"} | fields
    return Variant(id=f"{model}/{fields['version']}/{fields['name']}", model=model, task=task, **fields)


def chat(model: str, *, task: str = "c", profile: StreamProfile | None = None, **fields: Any) -> Variant:
    """Return a stream variant ``model/1/v``."""
    profile = profile or StreamProfile(first_s=0.02, token_s=0.001, slots=2)
    return variant(model, task=task, profile=profile, kind="chat", **fields)


def fleet(
    *variants: Variant,
    tasks: Sequence[TaskType] = (),
    scaling: Scaling | None = None,
    isolation: Any = "process",
    **fields: Any,
) -> Catalog:
    """Return a catalog of these variants; tasks that are not given are made as they are needed."""
    known = {t.name: t for t in tasks}
    for v in variants:
        known.setdefault(v.task, TaskType(v.task, kind="chat" if v.kind == "chat" else "tensor"))
    templates = {
        v.id: ReplicaSpec(
            "",
            v.id,
            "onnx",
            f"models/{v.model}",
            isolation=isolation,
            device="loop" if isolation == "inline" else "cpu",
        )
        for v in variants
    }
    return Catalog(
        tasks=known,
        variants={v.id: v for v in variants},
        templates=templates,
        scaling={v.id: scaling or Scaling() for v in variants},
        **fields,
    )


def ask(rid: str, target: str = "t", *, rows: int = 1, shape: str = "", **fields: Any) -> Request:
    """Return a request; fields of its contract may be given beside its own."""
    contract = Contract(**{k: v for k, v in fields.items() if k in CONTRACT})
    rest = {k: v for k, v in fields.items() if k not in CONTRACT}
    return Request(id=rid, target=target, contract=contract, ref=Ref(rows=rows, shape=shape), **rest)


class Rig:
    """A dispatcher and the model that watches it."""

    def __init__(self, catalog: Catalog | None = None, *, exact: bool = False) -> None:
        self.dispatcher = Dispatcher()
        self.model = Model(exact=exact)
        self.now = 0.0
        if catalog is not None:
            self.tell(FleetChanged(catalog))

    def tell(self, event: DispatcherEvent, after: float = 0.0) -> list[DispatcherEffect]:
        """Give the dispatcher an event `after` seconds, with every tick that is due before it."""
        until = self.now + after
        while (due := self.dispatcher.next_deadline()) is not None and due <= until:
            self._handle(Tick(), max(due, self.now))
        return self._handle(event, until)

    def _handle(self, event: DispatcherEvent, now: float) -> list[DispatcherEffect]:
        self.now = now
        effects = self.dispatcher.handle(event, now)
        self.model.observe(event, now, effects, self.dispatcher.next_deadline())
        return effects

    def ready(
        self,
        name: str,
        variant_id: str = "",
        *,
        profile: Profile | None = None,
        after: float = 0.0,
        **fields: Any,
    ) -> list[DispatcherEffect]:
        """Take a replica into service; without a variant it is that of the only one."""
        variant_id = variant_id or next(iter(self.model.catalog.variants))
        return self.tell(ReplicaReady(ReplicaView(name, variant_id, **fields), profile), after)

    def ask(
        self, rid: str, target: str = "t", *, after: float = 0.0, **fields: Any
    ) -> list[DispatcherEffect]:
        """Let a request arrive."""
        return self.tell(Arrived(ask(rid, target, **fields)), after)

    def done(self, rid: str, *, after: float = 0.001, **fields: Any) -> list[DispatcherEffect]:
        """End the batch that a request runs in."""
        return self.tell(BatchDone(self.batch(rid), after, **fields), after)

    def failed(
        self, rid: str, kind: Any = "error", *, after: float = 0.001, **fields: Any
    ) -> list[DispatcherEffect]:
        """Fail the batch that a request runs in."""
        return self.tell(BatchFailed(self.batch(rid), kind, **fields), after)

    def tick(self, after: float) -> None:
        """Let time pass."""
        until = self.now + after
        while (due := self.dispatcher.next_deadline()) is not None and due <= until:
            self._handle(Tick(), max(due, self.now))
        self.now = until

    def batch(self, rid: str) -> int:
        """Return the number of the batch that a request runs in (the oldest one)."""
        return min(self.model.asked[rid].live)

    def runs_on(self, rid: str) -> str:
        """Return the replica that a request runs on."""
        return self.model.work[self.batch(rid)].replica


def runs(effects: Sequence[DispatcherEffect]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (replica, members) of what was begun."""
    return [(e.replica, e.members) for e in effects if isinstance(e, Run)]


def ends(effects: Sequence[DispatcherEffect]) -> list[tuple[str, str]]:
    """Return (request, outcome) of what was answered."""
    return [(e.request, e.outcome) for e in effects if isinstance(e, Finish)]


def finish(effects: Sequence[DispatcherEffect], rid: str = "") -> Finish:
    """Return the answer of a request."""
    (found,) = [e for e in effects if isinstance(e, Finish) and rid in ("", e.request)]
    return found


def decided(effects: Sequence[DispatcherEffect], rid: str = "") -> Decided:
    """Return the last decision on a request."""
    return [e for e in effects if isinstance(e, Decided) and rid in ("", e.request)][-1]
