"""Simulated fleets under the eyes of the model, and the traffic they are given."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fleets import ask
from property.model import Model
from property.order import Order
from semaforo.catalog.state import Catalog
from semaforo.core.effects import DispatcherEffect, Finish
from semaforo.core.events import DispatcherEvent, FleetChanged
from semaforo.entities import Priority, Request
from semaforo.sim.world import World


class Watched(World):
    """A world whose dispatcher is watched by a model, and by `Order` where a `slack` is given."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        exact: bool = True,
        slack: float | None = None,
        lead: float = 1e9,
        **fields: Any,
    ) -> None:
        fields = {"noise": 0.0 if exact else 0.1} | fields
        super().__init__(catalog, **fields)
        self.model = Model(exact=exact)
        self.order = None if slack is None else Order(self.model, slack=slack, lead=lead)
        self.model.observe(FleetChanged(catalog), 0.0, [], None)
        handle = self.dispatcher.handle

        def watch(event: DispatcherEvent, now: float) -> list[DispatcherEffect]:
            effects = handle(event, now)
            self.model.observe(event, now, effects, self.dispatcher.next_deadline())
            if self.order is not None:
                self.order.observe(event, now, effects)
            self.model.forget_finished()
            return effects

        self.dispatcher.handle = watch  # type: ignore[method-assign]


def poisson(
    rate: float, seconds: float, *, seed: int = 0, name: str = "q", start: float = 0.0, **fields: Any
) -> Iterator[tuple[float, Request]]:
    """Yield arrivals at `rate` per second; a field given as a list is drawn from it for each request."""
    rng = random.Random(seed)
    now, n = start, 0
    while (now := now + rng.expovariate(rate)) < start + seconds:
        drawn = {k: rng.choice(v) if isinstance(v, list) else v for k, v in fields.items()}
        yield now, ask(f"{name}{n}", drawn.pop("target", "t"), **drawn)
        n += 1


def by_class(
    finished: Sequence[tuple[float, Finish]], requests: dict[str, Request]
) -> dict[Priority, Counter[str]]:
    """Count outcomes by class."""
    found: dict[Priority, Counter[str]] = {p: Counter() for p in Priority}
    for _, answer in finished:
        found[requests[answer.request].contract.priority][answer.outcome] += 1
    return found
