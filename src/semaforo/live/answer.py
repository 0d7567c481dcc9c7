"""What a caller of the live engine gets back."""

from __future__ import annotations

import asyncio

import msgspec

from semaforo.core.effects import Finish
from semaforo.errors import SemaforoError, error_from
from semaforo.wire.payload import Tensors


class Answer(msgspec.Struct):
    """The terminal answer of one request.

    Attributes:
        finish: How it ended, who served it, how long it took, what it cost.
        result: The outputs when it ended well and was not a stream.
        model, version, variant: Who served it, by name; "" when nobody did.
        lost: What a stream had to do without, each with the reason.
    """

    finish: Finish
    result: Tensors | None = None
    model: str = ""
    version: str = ""
    variant: str = ""
    lost: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the request was answered."""
        return self.finish.outcome == "done"

    @property
    def without(self) -> tuple[str, ...]:
        """What the answer of a graph had to do without, each with the reason."""
        return self.result.without if self.result is not None else self.lost

    def error(self) -> SemaforoError:
        """Return the error of a request that was not answered, ready to be raised."""
        return error_from(
            self.finish.code or "internal", self.finish.message, self.finish.retry_after_s or None
        )


class Waiter:
    """Takes an answer, which often is there before anybody has to wait for it."""

    __slots__ = ("answer", "future")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.future: asyncio.Future[Answer] | None = None

    def settle(self, answer: Answer) -> None:
        """Keep the answer, and wake whoever waits."""
        self.answer = answer
        if self.future is not None and not self.future.done():
            self.future.set_result(answer)
