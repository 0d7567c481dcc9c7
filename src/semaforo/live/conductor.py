"""What a graph needs of the engine it runs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Finish
from semaforo.core.events import BatchFailed
from semaforo.entities import Request
from semaforo.errors import SemaforoError
from semaforo.live.answer import Answer
from semaforo.live.stream import Stream
from semaforo.observe.explain import Looked
from semaforo.wire.payload import ChatChunk, Payload, Tensors


class Asked(msgspec.Struct, frozen=True):
    """The request that a run of a graph answers.

    Attributes:
        request: As it arrived.
        deadline_at: Absolute second, infinite = none.
    """

    request: Request
    deadline_at: float


class Conductor(Protocol):
    """An engine, as graphs see it; everything on the loop's thread."""

    @property
    def catalog(self) -> Catalog:
        """What is served."""
        ...

    def now(self) -> float:
        """Return the monotonic second."""
        ...

    def new_id(self) -> str:
        """Return a fresh request id."""
        ...

    def asked(self, batch: int) -> Asked | None:
        """Return the request that a batch of one answers; None where nobody waits for it any more."""
        ...

    def submit(self, request: Request, payload: Payload, on_answer: Callable[[Answer], None]) -> None:
        """Serve a request; `on_answer` is called once, perhaps before this returns."""
        ...

    def stream(self, request: Request, payload: Payload) -> Stream:
        """Serve a request whose answer comes in chunks."""
        ...

    def cancel(self, request_id: str) -> None:
        """Stop a request; unknown ids are ignored."""
        ...

    def hurry(self) -> None:
        """Run what waits for the loop's next round now."""
        ...

    def lost(self, request_id: str, without: tuple[str, ...]) -> None:
        """Keep what the answer to a request had to do without, to be explained."""
        ...

    def looked(self, request_id: str, looked: Looked) -> None:
        """Keep what a step saw of its rows, to be explained."""
        ...

    def agreed(self, finish: Finish, score: float, weight: float) -> None:
        """Learn that an answer was with what was fused of several on a share of its rows."""
        ...

    def predicted_s(self, target: str, rows: int) -> float:
        """Return the seconds a target takes for so many rows, as its variants have been seen to."""
        ...


class GraphSink(Protocol):
    """Where a graph reports the end of a run."""

    def graph_done(self, batch: int, result: Tensors | SemaforoError, service_s: float, cost: float) -> None:
        """A run ended: its answer or its error, and the US dollars its steps cost."""
        ...

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        """A chunk of a streamed answer."""
        ...

    def batch_failed(self, event: BatchFailed) -> None:
        """A run was cancelled, or its stream failed."""
        ...
