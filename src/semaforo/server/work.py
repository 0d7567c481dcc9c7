"""What a V2 request amounts to for the engine, whatever carried it."""

from __future__ import annotations

from semaforo.entities import Request
from semaforo.wire.contract import Asked
from semaforo.wire.v2_task import Call


def work_of(request_id: str, target: str, version: str, call: Call, asked: Asked) -> Request:
    """Return the work; parameters that are no part of the contract join the payload, for the model to read."""
    if asked.parameters:
        call.tensors.parameters = asked.parameters
    return Request(
        request_id,
        target,
        version,
        asked.variant,
        asked.contract,
        ref=call.ref,
        affinity=asked.session,
        traceparent=asked.traceparent,
    )
