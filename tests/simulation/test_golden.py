"""Decision logs of small seeded scenarios, kept as text, so that a change of any decision is seen and judged.

``SEMAFORO_GOLDEN=write pytest tests/simulation/test_golden.py`` writes them anew after a change that is meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleets import chat, fleet, variant
from semaforo.catalog.state import Scaling
from semaforo.core.effects import Cancel, Decided, Drained, Ejected, Finish, Restored, Run, Score
from semaforo.core.events import Scale
from semaforo.entities import Preference, Priority, TaskType
from semaforo.observe.explain import render
from semaforo.sim.world import Fault
from worlds import Watched, poisson

GOLDEN = Path(__file__).parent / "golden"


def line(now: float, effect: object, numbers: dict[int, int]) -> str:
    """Write one effect; batches are numbered by their order, whatever numbers they were given."""
    head = f"{now * 1e3:9.3f} ms  "
    if isinstance(effect, Decided):
        where = f" -> {effect.pick} on {effect.replica}" if effect.replica else ""
        return f"{head}decided {effect.request}: {effect.reason}{where}"
    if isinstance(effect, Run):
        number = numbers.setdefault(effect.batch, len(numbers) + 1)
        return f"{head}run {number} on {effect.replica}: {' '.join(effect.members)}"
    if isinstance(effect, Finish):
        tail = f" {effect.variant}" if effect.outcome == "done" else f" ({effect.code})"
        return f"{head}finish {effect.request}: {effect.outcome}{tail} after {effect.total_s * 1e3:.3f} ms"
    if isinstance(effect, Cancel):
        return f"{head}cancel {numbers[effect.batch]} on {effect.replica}"
    if isinstance(effect, Ejected):
        return f"{head}eject {effect.replica} for {effect.for_s:g} s: {effect.reason}"
    if isinstance(effect, Restored | Drained | Score):
        return f"{head}{type(effect).__name__.lower()} {getattr(effect, 'replica', '') or effect.request}"  # type: ignore[union-attr]
    return ""


def classes() -> Watched:
    world = Watched(fleet(variant("m", base=0.004, row=0.001, max_rows=4)), record=True)
    world.arrive(
        poisson(900, 0.06, seed=1, priority=list(Priority), tenant=["x", "y"], deadline_s=[0.02, 0.05, None])
    )
    return world


def pressure() -> Watched:
    best = variant("best", quality=0.97, base=0.02, row=0.0, max_rows=1)
    small = variant("small", quality=0.80, base=0.002, row=0.0, max_rows=1)
    world = Watched(fleet(best, small, tasks=[TaskType("t", prefer=Preference(goal="quality"))]), record=True)
    world.arrive(poisson(120, 0.3, seed=2, deadline_s=0.1, min_quality=[0.0, 0.0, 0.9]))
    return world


def faults() -> Watched:
    model = variant("m", base=0.01, row=0.0, max_rows=2)
    world = Watched(fleet(model, scaling=Scaling(2, 3)), exact=False, noise=0.05, record=True)
    world.arrive(poisson(150, 0.4, seed=3, deadline_s=0.3))
    world.at(0.1, Fault(0.0, "m-v-1", "crash"))
    world.at(0.2, Fault(0.0, "m-v-2", "errors", for_s=0.05))
    world.at(0.3, Scale("m/1/v", 3))
    return world


def streams() -> Watched:
    world = Watched(fleet(chat("l"), scaling=Scaling(2, 2)), exact=False, output_tokens=20, record=True)
    world.arrive(
        poisson(100, 0.15, seed=4, target="c", stream=True, affinity=["", "k"], deadline_s=[None, 0.2])
    )
    world.cancel(0.05, "q1")
    return world


@pytest.mark.parametrize("scenario", [classes, pressure, faults, streams], ids=lambda s: s.__name__)
def test_decisions_are_those_that_were_judged_right(scenario: Callable[[], Watched]) -> None:
    world = scenario()
    trace = world.run()
    world.model.check_over()
    numbers: dict[int, int] = {}
    lines = [text for now, effect in trace.effects if (text := line(now, effect, numbers))]
    why = [render(e) for e in trace.ring.recent(3)]
    text = "\n".join(lines) + "\n\n" + "\n\n".join(why) + "\n"
    path = GOLDEN / f"{scenario.__name__}.txt"
    if os.environ.get("SEMAFORO_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("scenario", [classes, faults], ids=lambda s: s.__name__)
def test_the_same_seed_gives_the_same_journal(scenario: Callable[[], Watched]) -> None:
    assert scenario().run().journal == scenario().run().journal
