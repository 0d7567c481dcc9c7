"""What a program gets back: outputs by name, and who served them, at what cost, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from semaforo.core.effects import Finish
from semaforo.observe.explain import Explanation, render


class FleetAnswer(Mapping[str, Any]):
    """The outputs of one request by name: arrays of rows, or one row's values where one row was given.

    Attributes:
        model, version, variant: Who served it, by name.
        replica: Id of the replica.
        request_id: Id of the request; ``fleet.explain(request_id)`` tells its story while it is kept.
        cost: US dollars.
        latency_s: Seconds from arrival to answer.
    """

    def __init__(self, outputs: Mapping[str, Any], finish: Finish, explanation: Explanation | None) -> None:
        self._outputs = dict(outputs)
        self.model, self.version, self.variant = finish.variant.split("/", 2)
        self.replica = finish.replica
        self.request_id = finish.request
        self.cost = finish.cost
        self.latency_s = finish.total_s
        self._explanation = explanation

    @property
    def why(self) -> str:
        """What was considered, what was ruled out and by which filter, the scores, and the pick."""
        return render(self._explanation) if self._explanation else "the decision is no longer kept"

    def __getitem__(self, name: str) -> Any:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        return f"<FleetAnswer {', '.join(self._outputs)} from {self.model}/{self.variant} on {self.replica}>"


class ChatStream(Iterator[str]):
    """A chat's answer as it comes: an iterator of pieces of text.

    Attributes:
        answer: Who served it and why, once it has ended; None before.
    """

    def __init__(self, pull: Callable[[], str | None], close: Callable[[], None]) -> None:
        self.answer: FleetAnswer | None = None
        self._pull = pull
        self._close = close

    def __next__(self) -> str:
        piece = self._pull()
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Stop the work; what was not read is dropped."""
        self._close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
