"""A dispatcher rebuilt from a snapshot decides exactly as the one that gave it, from any moment on."""

from __future__ import annotations

from random import Random

import pytest

from property import events
from semaforo.core import plan
from semaforo.core.dispatcher import Dispatcher


@pytest.mark.parametrize("block", range(4))
def test_the_restored_one_goes_on_as_the_first_would_have(block: int) -> None:
    for seed in range(block * 15, block * 15 + 15):
        _compare(seed)


def test_plans_and_lanes_that_were_dropped_change_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small bounds make the dispatcher forget cached plans and empty lanes all the time.
    monkeypatch.setattr(plan, "_PLANS", 3)
    monkeypatch.setattr(plan, "_LANES", 4)
    for seed in range(1000, 1030):
        _compare(seed)


def _compare(seed: int) -> None:
    rng = Random(seed)
    rig = events.begin(rng)
    twins: list[Dispatcher] = []
    for step in range(150):
        if step in (20, 60, 110):
            taken = rig.dispatcher.snapshot()
            twins.append(Dispatcher.restore(taken))
            assert twins[-1].snapshot() == taken
        told = _told(rig, events.random_event(rng, rig), rng.choice((0.0, 0.0005, 0.003, 0.05)))
        for twin in twins:
            for event, now, effects in told:
                assert twin.handle(event, now) == effects, (seed, step)
            assert twin.next_deadline() == rig.dispatcher.next_deadline()
    for twin in twins:
        assert twin.snapshot() == rig.dispatcher.snapshot()


def _told(rig: events.Rig, event: object, after: float) -> list[tuple[object, float, list[object]]]:
    """Tell the rig an event and return every event it handled on the way, ticks among them."""
    heard: list[tuple[object, float, list[object]]] = []
    handle = rig.dispatcher.handle

    def listen(one: object, now: float) -> list[object]:
        effects = handle(one, now)  # type: ignore[arg-type]
        heard.append((one, now, effects))  # type: ignore[arg-type]
        return effects  # type: ignore[return-value]

    rig.dispatcher.handle = listen  # type: ignore[method-assign,assignment]
    try:
        rig.tell(event, after)  # type: ignore[arg-type]
    finally:
        rig.dispatcher.handle = handle  # type: ignore[method-assign]
    return heard
