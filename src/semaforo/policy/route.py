"""Choosing a variant: filters by contract and capability, then one utility of quality, latency and cost.

Rules this module keeps:

1. A filter is hard. A variant it rules out is never used for the request, under any pressure.
2. A preference is soft. It sorts the variants that are left into *open* ones, used whenever they are free, and
   *reserve* ones, used when waiting for an open one would use up the request's patience (under pressure), so
   that something is given up before anything is refused; and quality returns as pressure goes.
3. Paid capacity is no idle capacity: of the metered variants only the one with the best utility is open.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from semaforo.entities import Preference, Privacy, Request, StreamProfile, Variant
from semaforo.entities.tensor import parse_shape_key
from semaforo.entities.units import unlike

UNKNOWN_QUALITY = 0.5
NEAR_BEST = 0.99
HORIZON_S = 1.0
PATIENCE = 0.25
PATIENCE_S = 1.0


class Weights(msgspec.Struct, frozen=True):
    """Weights of the utility, summing to 1."""

    quality: float
    latency: float
    cost: float


def weights_of(prefer: Preference) -> Weights:
    """Turn a preference into weights; the goals leave a trace of the others to break ties."""
    if prefer.goal == "cost":
        quality, latency, cost = 0.0, 0.05, 1.0
    elif prefer.goal == "quality":
        quality, latency, cost = 1.0, 0.01, 0.01
    else:
        quality, latency, cost = prefer.quality, prefer.latency, prefer.cost
    total = (quality + latency + cost) or 1.0
    return Weights(quality / total, latency / total, cost / total)


def predicted_tokens(request: Request, usual_output: float) -> float:
    """Predict a stream's output tokens: the usual length, cut at what the caller allows."""
    return float(min(usual_output, request.max_tokens) if request.max_tokens else usual_output)


def predicted_cost(variant: Variant, request: Request, seconds: float, output_tokens: float) -> float:
    """Predict the US dollars one request costs on a variant that serves it for `seconds`."""
    price = variant.cost
    return (
        price.second * seconds
        + price.input_token * request.prompt_tokens
        + price.output_token * output_tokens
        + price.request
    )


def ruled_out(variant: Variant, request: Request, seconds: float, output_tokens: float) -> tuple[str, str]:
    """Return (filter, detail) of the first filter that rules a variant out, or ("", "").

    The deadline is not among them: it depends on the load, and is checked at each choice.

    Args:
        variant: The candidate.
        request: The request with its contract.
        seconds: Predicted service alone on an idle replica.
        output_tokens: Predicted output of a stream.
    """
    contract = request.contract
    if (variant.kind == "chat") != request.stream:
        return "modality", f"speaks {variant.kind}"
    if variant.sees < contract.privacy:
        return (
            "privacy",
            f"for {Privacy(variant.sees).name.lower()} data, this is {contract.privacy.name.lower()}",
        )
    quality = variant.quality
    if contract.min_quality > 0 and (quality is None or quality < contract.min_quality):
        shown = "not measured" if quality is None else f"{quality:g}"
        return "quality", f"{shown} < {contract.min_quality:g}"
    if missing := [need for need in request.needs if need not in variant.capabilities]:
        return "capability", f"no {', '.join(missing)}"
    if variant.context and request.prompt_tokens + request.max_tokens > variant.context:
        asked = request.prompt_tokens + request.max_tokens
        return "context", f"{asked} tokens > {variant.context}"
    if variant.inputs and request.ref.shape and (detail := _misfit(variant, request.ref.shape)):
        return "shape", detail
    if request.ref.rows > variant.max_rows and isinstance(variant.profile, StreamProfile):
        return "shape", f"{request.ref.rows} rows in one stream"
    if contract.max_cost is not None:
        cost = predicted_cost(variant, request, seconds, output_tokens)
        if cost > contract.max_cost:
            shown, limit = unlike(cost, contract.max_cost, 2)
            return "cost", f"${shown} > ${limit}"
    return "", ""


def _misfit(variant: Variant, shape_key: str) -> str:
    given = {name: (dtype, shape) for name, dtype, shape in parse_shape_key(shape_key)}
    for spec in variant.inputs:
        if spec.name not in given:
            if not spec.optional:
                return f"needs {spec.name}"
            continue
        dtype, shape = given[spec.name]
        if dtype != spec.dtype or not spec.accepts(shape):
            return f"{spec.name} is {dtype.lower()}{list(shape)}, takes {spec}"
    return ""


def open_set(variants: Sequence[Variant], costs: Sequence[float], prefer: Preference) -> list[bool]:
    """Tell for each eligible variant whether it is open (True) or reserve (False); at least one is open."""
    qualities = [UNKNOWN_QUALITY if v.quality is None else v.quality for v in variants]
    best = max(qualities, default=0.0)
    if prefer.at_most is not None:
        # Which of them is worth its cost, the price of money says for each request.
        return [True] * len(variants)
    if prefer.goal == "cost":
        flags = [q >= prefer.keep_quality * best for q in qualities]
    elif prefer.goal == "quality":
        flags = [q >= NEAR_BEST * best for q in qualities]
    else:
        flags = [True] * len(variants)
    w = weights_of(prefer)
    dearest = max(costs, default=0.0)
    if any(v.cost.metered for v in variants):
        scores = [
            utility(w, q / best if best else 0.0, 0.0, c / dearest if dearest else 0.0) if flag else -1.0
            for q, c, flag in zip(qualities, costs, flags, strict=True)
        ]
        top = scores.index(max(scores))
        flags = [flag and (i == top or not variants[i].cost.metered) for i, flag in enumerate(flags)]
    return flags


def utility(w: Weights, quality: float, latency: float, cost: float) -> float:
    """Return the score 0…1 of one variant.

    Args:
        w: Weights.
        quality: Quality relative to the best eligible, 0…1.
        latency: Predicted seconds relative to the time there is, 0 = at once; above 1 counts as 1.
        cost: Cost relative to the dearest eligible, 0…1.
    """
    return (
        w.quality * quality + w.latency * (1.0 - (latency if latency < 1.0 else 1.0)) + w.cost * (1.0 - cost)
    )
