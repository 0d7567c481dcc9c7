"""Whether a request that could run at once tries another variant than the best one, and what was learned of such.

Rules this module keeps:

1. What was learned from requests like one moves what is believed of each variant for it (`learned`).
2. How far a variant falls short of looking best is said in quality, whatever the task prefers, so that it can be
   compared with how little is known of its quality.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot

from semaforo.core.effects import Considered
from semaforo.core.plan import Choice, Plan
from semaforo.core.state import Job, State
from semaforo.policy import balance
from semaforo.policy.bandit import guesses
from semaforo.policy.explore import Arm, Trial, tried
from semaforo.policy.posterior import begun
from semaforo.policy.route import UNKNOWN_QUALITY

_SURE = 1.96


def learned(state: State, job: Job, choices: tuple[Choice, ...], context: Mapping[str, float]) -> None:
    """Add to the gain that is predicted for a request what was learned from others like it."""
    known = []
    for choice in choices:
        history = state.history.get(choice.id)
        usual = state.believed(state.catalog.variants[choice.id])
        known.append(
            (
                history.ridge if history is not None else None,
                UNKNOWN_QUALITY if usual is None else float(usual),
            )
        )
    found = guesses(known, {name: float(value) for name, value in context.items()})
    job.guesses = {choice.id: guess for choice, guess in zip(choices, found, strict=True)}
    job.gain = {name: float(job.gain.get(name, 0.0)) + guess.gain for name, guess in job.guesses.items()}


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
    seen = {c.variant: c for c in considered if not c.ruled_out}
    arms = [_arm(state, job, plan, choice, best, seen) for choice in plan.choices if choice.book.ready]
    trial = tried(best.id, arms, plan.task.explore, state.chance)
    if job.request.stream and trial.shadow:
        trial = Trial(trial.pick, trial.propensity)
    return next(choice for choice in plan.choices if choice.id == trial.pick), trial


def _arm(
    state: State, job: Job, plan: Plan, choice: Choice, best: Choice, seen: Mapping[str, Considered]
) -> Arm:
    history = state.history.get(choice.id)
    known = history.quality if history is not None else None
    if known is None:
        variant = state.catalog.variants[choice.id]
        known = begun(variant.quality, UNKNOWN_QUALITY)
    guess = job.guesses.get(choice.id)
    error, spread = (guess.error, guess.spread) if guess is not None else (0.0, known.spread)
    # What is predicted for this request moves the whole interval, and adds an error of its own.
    below = hypot(known.mean - known.interval()[0], _SURE * error)
    mine = seen.get(choice.id)
    return Arm(
        choice.id, choice.quality, choice.quality - below, mine is not None and mine.free,
        choice.variant.cost.metered, _behind(plan, choice, mine, best, seen[best.id]), spread,
    )  # fmt: skip


def _behind(plan: Plan, choice: Choice, mine: Considered | None, best: Choice, first: Considered) -> float:
    """Return by how much better a variant, or worse the best one, would have to be for it to be picked instead."""
    if mine is None or choice is best:
        return 0.0
    top = max(c.quality for c in plan.choices)
    prefer = plan.task.prefer
    if prefer.goal == "cost":
        keep = prefer.keep_quality
        short = keep * top - mine.quality if mine.cost <= first.cost else first.quality - keep * mine.quality
    elif plan.weights.quality > 0.0:
        short = (first.score - mine.score) * top / plan.weights.quality
    else:
        short = first.quality - mine.quality
    return max(0.0, short)
