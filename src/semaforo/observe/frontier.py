"""Where a live fleet stands between quality and cost: from what is believed, and from what was answered lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Considered
from semaforo.core.state import History
from semaforo.entities import Variant
from semaforo.observe.explain import Explanation
from semaforo.policy import posterior
from semaforo.policy.frontier import Frontier, Place, Standing, frontier

LATELY = 1000
"""Requests that are looked at for where a fleet stands."""


class Answered(msgspec.Struct, frozen=True):
    """One answer: by whom, what was believed of it, its cost (US dollars) and latency, and what was said of it."""

    task: str
    variant: str
    quality: float | None
    cost: float
    latency_s: float
    score: float | None = None


def frontiers(
    catalog: Catalog,
    history: Mapping[str, History],
    answers: Iterable[Answered],
    predicted: Callable[[str], Mapping[str, Considered]],
) -> list[Frontier]:
    """Return the frontier of every task.

    Args:
        catalog: What is served.
        history: What variants have shown themselves to be worth.
        answers: What was answered lately.
        predicted: Returns for a task what a request would meet now, by variant: for what nobody has seen yet.
    """
    by_task: dict[str, list[Answered]] = {}
    for answer in answers:
        by_task.setdefault(answer.task, []).append(answer)
    found = []
    for name, task in catalog.tasks.items():
        lately = by_task.get(name, [])
        count = Counter(answer.variant for answer in lately)
        looks = predicted(name)
        places = [
            place_of(
                v.id, history.get(v.id), v, looks.get(v.id), count[v.id] / len(lately) if lately else 0.0
            )
            for v in catalog.variants.values()
            if v.task == name and catalog.in_service.get(v.model, v.version) == v.version
        ]
        found.append(frontier(name, places, standing(lately), task.prefer))
    return found


def place_of(
    name: str,
    history: History | None,
    variant: Variant | None = None,
    predicted: Considered | None = None,
    share: float = 0.0,
) -> Place:
    """Return where one variant stands, by what was seen of it, and else by what is predicted."""
    belief = history.quality if history is not None else None
    if belief is None and variant is not None and variant.quality is not None:
        belief = posterior.begun(variant.quality)
    low, high = belief.interval() if belief is not None else (None, None)
    cost = history.cost.value if history is not None and history.cost.count else None
    seen = sum(mean.count for mean in history.latency) if history is not None else 0.0
    latency = None
    if history is not None and seen:
        latency = sum(mean.value * mean.count for mean in history.latency) / seen
    if predicted is not None and not predicted.ruled_out:
        cost = predicted.cost if cost is None else cost
        latency = predicted.predicted_s if latency is None else latency
    mean, given = (belief.mean, belief.given) if belief is not None else (None, 0)
    return Place(name, mean, low, high, cost, latency, given, share)


def standing(answers: list[Answered]) -> Standing | None:
    """Return what answers amount to; None without any."""
    n = len(answers)
    if not n:
        return None
    known = [answer.quality for answer in answers if answer.quality is not None]
    scores = [answer.score for answer in answers if answer.score is not None]
    return Standing(
        n,
        sum(known) / len(known) if known else None,
        sum(answer.cost for answer in answers) / n,
        sum(answer.latency_s for answer in answers) / n,
        sum(scores) / len(scores) if scores else None,
        len(scores),
    )


def answered(
    explanations: Iterable[Explanation], catalog: Catalog, believed: Callable[[Variant], float | None]
) -> list[Answered]:
    """Return the answers among explanations; copies that nobody waits for are none.

    Args:
        explanations: Of requests.
        catalog: What is served.
        believed: Returns what is believed of a variant where no decision says.
    """
    found = []
    for one in explanations:
        finish, step = one.finish, one.request.step
        if finish is None or finish.outcome != "done" or (step is not None and step.name == "shadow"):
            continue
        variant = catalog.variants.get(finish.variant)
        if variant is None:
            continue
        looks = (
            c for d in one.decided for c in d.considered if c.variant == finish.variant and not c.assumed
        )
        look = next(looks, None)
        quality = look.quality if look is not None else believed(variant)
        score = one.feedback[-1].score if one.feedback else None
        found.append(Answered(variant.task, finish.variant, quality, finish.cost, finish.total_s, score))
    return found
