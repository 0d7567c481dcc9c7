"""The request by which a step asks its target: all of the contract goes with it."""

from __future__ import annotations

import msgspec

from semaforo.entities import Ref, Request
from semaforo.entities import Step as Place
from semaforo.graph.graph import Step

_NEVER = float("inf")


def step_request(
    step: Step,
    asked: Request,
    request_id: str,
    ref: Ref,
    deadline: float,
    spent: float,
    *,
    stream: bool = False,
) -> Request:
    """Return what a step asks.

    Args:
        step: The step.
        asked: What the graph was asked.
        request_id: A new id.
        ref: Size of the step's inputs.
        deadline: Absolute second by which the step must have ended, infinite = none.
        spent: US dollars that the other steps have cost so far.
        stream: Whether it answers in chunks.
    """
    contract = asked.contract
    budget = contract.max_cost
    if budget is not None:
        budget = max(0.0, budget - spent)
    if step.max_cost is not None:
        budget = step.max_cost if budget is None else min(budget, step.max_cost)
    if contract.deadline_s is not None or contract.min_quality != step.min_quality or budget is not None:
        contract = msgspec.structs.replace(
            contract, deadline_s=None, min_quality=step.min_quality, max_cost=budget
        )
    return Request(
        request_id,
        step.target,
        step.version,
        step.variant,
        contract,
        ref,
        stream=stream,
        affinity=asked.affinity,
        idempotent=asked.idempotent,
        step=Place(asked.id, step.name, None if deadline == _NEVER else deadline),
        traceparent=asked.traceparent,
    )
