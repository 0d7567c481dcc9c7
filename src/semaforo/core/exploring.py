"""Whether a request that could run at once tries another variant than the best one."""

from __future__ import annotations

from semaforo.core.effects import Considered
from semaforo.core.plan import Choice, Plan
from semaforo.core.state import Job, State
from semaforo.policy import balance
from semaforo.policy.explore import Arm, Trial, tried
from semaforo.policy.posterior import Posterior, begun
from semaforo.policy.route import UNKNOWN_QUALITY


def explores(job: Job, plan: Plan) -> bool:
    """Tell whether a request may explore: its task does, and nothing has been decided of it or pinned before."""
    explore = plan.task.explore
    if not (explore.share or explore.shadow) or len(plan.choices) < 2:
        return False
    return not job.moves and not job.attempts and not job.request.variant and not job.request.version


def trial_of(
    state: State, job: Job, plan: Plan, considered: tuple[Considered, ...], best: Choice
) -> tuple[Choice, Trial]:
    """Return the variant that answers a request, and how that was decided."""
    state.chance = balance.next_chance(state.chance)
    free = {c.variant for c in considered if c.free and not c.ruled_out}
    arms = [_arm(state, choice, choice.id in free) for choice in plan.choices if choice.book.ready]
    trial = tried(best.id, arms, plan.task.explore, state.chance)
    if job.request.stream and trial.shadow:
        trial = Trial(trial.pick, trial.propensity)
    return next(choice for choice in plan.choices if choice.id == trial.pick), trial


def _arm(state: State, choice: Choice, free: bool) -> Arm:
    history = state.history.get(choice.id)
    known: Posterior | None = history.quality if history is not None else None
    if known is None:
        variant = state.catalog.variants[choice.id]
        known = begun(variant.quality, UNKNOWN_QUALITY)
    low, _ = known.interval()
    # What is predicted for this request moves both ends alike.
    shift = choice.quality - known.mean
    return Arm(choice.id, choice.quality, low + shift, free, choice.variant.cost.metered)
