"""What a program gets back: outputs by name, and who served them, at what cost, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec


class Served(msgspec.Struct, frozen=True):
    """Who served a request.

    Attributes:
        model, version, variant: By name.
        replica: Id of the replica.
        request_id: Id of the request.
        latency_s: Seconds from asking to answer; a client's include the way there and back.
        without: What the answer of a graph had to do without, each with the reason, such as ``net: late``.
    """

    model: str
    version: str
    variant: str
    replica: str
    request_id: str
    latency_s: float
    without: tuple[str, ...] = ()


class Story(msgspec.Struct, frozen=True):
    """What is known of a request after its end: why it went where it went, and its cost in US dollars."""

    why: str
    cost: float


class FleetAnswer(Mapping[str, Any]):
    """The outputs of one request by name: arrays of rows, or one row's values where one row was given.

    `why` and `cost` of a client's answer are asked for when they are first looked at, which takes a round trip
    (in an asyncio program too: there `await client.explain(answer.request_id)` does not hold the loop up).

    Attributes:
        model, version, variant: Who served it, by name.
        replica: Id of the replica.
        request_id: Id of the request; ``fleet.explain(request_id)`` tells its story while it is kept.
        latency_s: Seconds from asking to answer.
        without: What the answer of a graph had to do without, each with the reason; empty where all was there.
    """

    def __init__(self, outputs: Mapping[str, Any], served: Served, story: Callable[[], Story]) -> None:
        self._outputs = dict(outputs)
        self.model, self.version, self.variant = served.model, served.version, served.variant
        self.replica = served.replica
        self.request_id = served.request_id
        self.latency_s = served.latency_s
        self.without = served.without
        self._ask = story
        self._story: Story | None = None

    @property
    def why(self) -> str:
        """What was considered, what was ruled out and by which filter, the scores, and the pick."""
        return self._told().why

    @property
    def cost(self) -> float:
        """US dollars."""
        return self._told().cost

    def _told(self) -> Story:
        if self._story is None:
            self._story = self._ask()
        return self._story

    def __getitem__(self, name: str) -> Any:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        return f"<FleetAnswer {', '.join(self._outputs)} from {self.model}/{self.variant} on {self.replica}>"
