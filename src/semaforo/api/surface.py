"""What can be asked of a fleet, wherever it is: `Fleet` and `Client`, `AsyncFleet` and `AsyncClient`.

The methods are described here once. A function that takes an `AnyFleet` works with a fleet inside the program
as it does with one behind a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from semaforo.api.answer import FleetAnswer
from semaforo.api.chat import AsyncChat, ChatStream
from semaforo.core.effects import Decided
from semaforo.entities import TaskType
from semaforo.live.crew import ReplicaStatus


class AnyFleet(Protocol):
    """A fleet in this program or behind a server; its methods wait."""

    def infer(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        parameters: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> FleetAnswer:
        """Answer one request: one row, or an array of rows for each input.

        Args:
            target: A task, a model or an alias.
            inputs: Inputs by name, where a name cannot be a keyword argument here.
            version, variant: Pinned, or "".
            deadline: ``"20ms"`` or seconds.
            min_quality: Least quality, 0…1.
            max_cost: Most US dollars.
            priority: ``critical``, ``high``, ``normal`` or ``low``.
            privacy: Class of the data: ``public``, ``internal`` or ``site``.
            tenant: On whose behalf.
            cache: Whether an answer that was kept will do, and this one may be kept.
            parameters: What the model may read beside its inputs.
            **named: Inputs by name.

        Raises:
            SemaforoError: Why there is no answer; its `code` says which kind.
        """
        ...

    def decide(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        **named: Any,
    ) -> Decided:
        """Return the decision that a request like this would meet now, without running it."""
        ...

    def chat(
        self,
        target: str,
        messages: str | Sequence[Mapping[str, Any]],
        /,
        *,
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        **fields: Any,
    ) -> ChatStream:
        """Begin a chat and return its answer as a stream of text.

        Args:
            target: A task, a model or an alias.
            messages: What the user says, or messages as OpenAI's protocol has them.
            deadline, min_quality, max_cost, priority, privacy, tenant, cache: As in `infer`.
            **fields: Further fields of OpenAI's protocol, such as `temperature` and `max_tokens`.

        Raises:
            SemaforoError: Why there is no answer; raised before the first piece where that is known.
        """
        ...

    def explain(self, request_id: str) -> str:
        """Return why a request went where it went; a beginning of its id will do.

        Raises:
            NotFound: No such request, or it is no longer kept.
        """
        ...

    def feedback(
        self,
        answer: FleetAnswer | str,
        /,
        *,
        score: float | None = None,
        correct: bool | None = None,
        label: Any = None,
        better_than: FleetAnswer | str = "",
    ) -> None:
        """Say what an answer was worth, now or later; one of the four, once for each answer.

        Args:
            answer: The answer, or the id of its request.
            score: 0…1, in the task's metric.
            correct: Whether it was right: a score of 1 or 0.
            label: The right answer: a value, a list of one for each row, or a mapping from an output to that.
            better_than: Another answer, or the id of its request, that was not as good.

        Raises:
            NotFound: No such request is known any more.
            Conflict: Feedback on it was given before, or it has no answer.
            InvalidRequest: The score is out of range, or the label does not fit the answer.
        """
        ...

    def names(self) -> list[str]:
        """Return every name that can be asked for: tasks, models and aliases."""
        ...

    def tasks(self) -> list[TaskType]:
        """Return every task with what it takes and gives."""
        ...

    def replicas(self) -> list[ReplicaStatus]:
        """Return every replica, running or not."""
        ...

    def ready(self, target: str = "") -> bool:
        """Tell whether a target, or any task at all, has a replica in service.

        Raises:
            NotFound: No such target.
        """
        ...

    def close(self) -> None:
        """End it; what still runs is finished first, within its time."""
        ...


class AnyAsyncFleet(Protocol):
    """The same, awaited; see `AnyFleet` for what each method does."""

    async def infer(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        parameters: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> FleetAnswer:
        """See `AnyFleet.infer`."""
        ...

    async def decide(
        self,
        target: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str = "",
        variant: str = "",
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        **named: Any,
    ) -> Decided:
        """See `AnyFleet.decide`."""
        ...

    async def chat(
        self,
        target: str,
        messages: str | Sequence[Mapping[str, Any]],
        /,
        *,
        deadline: str | float | None = None,
        min_quality: float = 0.0,
        max_cost: float | None = None,
        priority: str = "normal",
        privacy: str = "public",
        tenant: str = "",
        cache: bool = True,
        **fields: Any,
    ) -> AsyncChat:
        """See `AnyFleet.chat`."""
        ...

    async def explain(self, request_id: str) -> str:
        """See `AnyFleet.explain`."""
        ...

    async def feedback(
        self,
        answer: FleetAnswer | str,
        /,
        *,
        score: float | None = None,
        correct: bool | None = None,
        label: Any = None,
        better_than: FleetAnswer | str = "",
    ) -> None:
        """See `AnyFleet.feedback`."""
        ...

    async def names(self) -> list[str]:
        """See `AnyFleet.names`."""
        ...

    async def tasks(self) -> list[TaskType]:
        """See `AnyFleet.tasks`."""
        ...

    async def replicas(self) -> list[ReplicaStatus]:
        """See `AnyFleet.replicas`."""
        ...

    async def ready(self, target: str = "") -> bool:
        """See `AnyFleet.ready`."""
        ...

    async def close(self) -> None:
        """See `AnyFleet.close`."""
        ...
