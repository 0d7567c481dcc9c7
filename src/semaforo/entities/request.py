"""The unit that is scheduled. Payloads stay outside: a request carries a `Ref` and small signals only."""

from __future__ import annotations

import msgspec

from semaforo.entities.contract import Contract
from semaforo.entities.step import Step


class Ref(msgspec.Struct, frozen=True, omit_defaults=True):
    """Points at a payload that the driver keeps under the request's id.

    Attributes:
        rows: Rows in the payload (≥ 1); capacity is counted in rows.
        bytes: Size of the payload in bytes.
        shape: Shape key. Requests are batched together only when their keys are equal; it is what
            `TensorSpec.key` makes of the inputs without their batch dimension, or "" where anything goes.
    """

    rows: int = 1
    bytes: int = 0
    shape: str = ""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of work for one variant, with its contract.

    Attributes:
        id: Unique, made by the driver.
        target: A task type, model or alias, resolved by the catalog.
        version: Version the caller pinned, or "" for the one in service.
        variant: Variant name the caller pinned, or "".
        contract: Hard limits.
        ref: Where the payload is and how large it is.
        stream: The answer comes in chunks from a variant with a `StreamProfile`.
        needs: Capabilities the variant must have: ``tools``, ``vision``, ``schema``, ``audio``, ``completion``.
        prompt_tokens: Estimated tokens of the prompt (0 where tokens mean nothing).
        max_tokens: Most tokens the caller wants back; 0 = not said.
        affinity: Key of a session or prompt prefix; a replica that served it before is preferred.
        idempotent: Running it twice does no harm: it may be retried after a crash, and hedged.
        step: Place in a graph of steps, or None for a request of its own.
        traceparent: W3C trace context, passed on unchanged.
    """

    id: str
    target: str
    version: str = ""
    variant: str = ""
    contract: Contract = Contract()
    ref: Ref = Ref()
    stream: bool = False
    needs: tuple[str, ...] = ()
    prompt_tokens: int = 0
    max_tokens: int = 0
    affinity: str = ""
    idempotent: bool = True
    step: Step | None = None
    traceparent: str = ""
