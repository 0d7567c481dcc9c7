"""The longest way through a graph: what a deadline is shared out by."""

from __future__ import annotations

from collections.abc import Mapping

from semaforo.graph.plan import Plan


def tails(plan: Plan, takes: Mapping[str, float], *, least: bool = False) -> dict[str, float]:
    """Return, for each step, the predicted seconds of the longest way from its end to the answer.

    Args:
        plan: Of the graph.
        takes: Step → predicted seconds it takes; 0 where it is not named.
        least: Leave out ways through escalations, unless the step is one itself.
    """
    found: dict[str, float] = {}
    for name in reversed(plan.steps):
        step_after = plan.after[name]
        if least and name not in plan.escalations:
            step_after = [later for later in step_after if later not in plan.escalations]
        delayed = (plan.steps[later].delay_s for later in step_after)
        found[name] = max(
            (
                takes.get(later, 0.0) + held + found[later]
                for later, held in zip(step_after, delayed, strict=True)
            ),
            default=0.0,
        )
    return found


def whole(plan: Plan, takes: Mapping[str, float]) -> float:
    """Return the predicted seconds from the beginning to the answer."""
    after = tails(plan, takes)
    first = (takes.get(name, 0.0) + plan.steps[name].delay_s + after[name] for name in plan.first)
    return max(first, default=0.0)
