"""What all of OpenAI's routes do before and after their own work: a body, a contract, an answer that is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from semaforo.entities import Priority, Ref, Request, TaskType
from semaforo.entities.interface import roles
from semaforo.entities.tensor import shape_key
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.live.answer import Answer
from semaforo.server.http import HttpRequest, HttpResponse
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.inference import Inference
from semaforo.wire.contract import Asked
from semaforo.wire.not_json import NOT_JSON, told
from semaforo.wire.openai_fields import InvalidField
from semaforo.wire.payload import Tensors

if TYPE_CHECKING:
    from semaforo.catalog import Catalog
    from semaforo.live.engine import Engine

NO_STREAM = "semaforo-idempotency-key keeps whole answers: leave it out, or set 'stream' to false"


class Door:
    """The way in, shared by the routes.

    Attributes:
        engine: The engine behind it.
        inference: What V2 and these routes have in common.
    """

    def __init__(self, engine: Engine, inference: Inference, kept: KeptAnswers) -> None:
        self.engine = engine
        self.inference = inference
        self._kept = kept

    @property
    def catalog(self) -> Catalog:
        """What may be served now."""
        return self.engine.catalog

    def asked(self, request: HttpRequest, priority: Priority | None) -> Asked:
        """Read the contract from headers; `priority` is what ``service_tier`` says.

        Raises:
            InvalidRequest: A value is not allowed.
            Forbidden: The principal may not speak for the tenant that is named.
        """
        # A header wins over the tier, as it wins over V2's own priority, whose numbers these are.
        return self.inference.ask(request, {} if priority is None else {"priority": priority + 1})

    async def once(
        self,
        request: HttpRequest,
        asked: Asked,
        body: bytes,
        compute: Callable[[bool], Awaitable[HttpResponse]],
    ) -> HttpResponse:
        """Return an answer: with an idempotency key, the one that an earlier request with it has made.

        Args:
            request: Who asks.
            asked: Its contract.
            body: Its body: the same key with another one is a conflict.
            compute: Makes the answer; told whether the work ends when this client goes away.
        """
        if not asked.idempotency_key:
            return await compute(True)
        digest = hashlib.sha256(b"\0".join((request.path.encode(), body))).digest()
        key = (asked.contract.tenant, asked.idempotency_key)
        return await self._kept.run(request, key, digest, lambda: compute(False))

    async def rows(
        self,
        request: HttpRequest,
        asked: Asked,
        target: str,
        task: TaskType,
        cells: Sequence[str | bytes],
        parameters: dict[str, Any],
        *,
        field: str,
        prompt_tokens: int = 0,
        hear: bool = True,
    ) -> tuple[Answer, Tensors]:
        """Have a task with an interface answer, one row for each cell.

        Args:
            request: Who asks.
            asked: Its contract.
            target: A task, model or alias of `task`.
            task: What is asked.
            cells: Texts or files.
            parameters: For the model to read.
            field: Where the cells came from, for messages.
            prompt_tokens: Estimate, by which an upstream charges.
            hear: Whether the work ends when the client goes away.

        Raises:
            InvalidField: More rows than the task's queue holds.
            SemaforoError: It was not answered.
        """
        if len(cells) > task.max_queue_rows:
            raise InvalidField(
                field, f"has {len(cells)} entries, and '{task.name}' takes {task.max_queue_rows} at once"
            )
        spec = roles(task).input
        column = np.empty(len(cells), dtype=object)
        column[:] = cells
        size = sum(len(cell) for cell in cells)
        work = Request(
            request.id,
            target,
            contract=asked.contract,
            ref=Ref(len(cells), size, shape_key([(spec.name, spec.dtype, spec.shape)])),
            prompt_tokens=prompt_tokens,
            affinity=asked.session,
            traceparent=asked.traceparent,
        )
        answer = await self.inference.run(request, work, Tensors({spec.name: column}, parameters), hear)
        if not isinstance(answer.result, Tensors):
            raise SemaforoError(f"request {request.id} ended well without a result")
        return answer, answer.result


def decode(body: bytes) -> Any:
    """Decode a body.

    Raises:
        InvalidRequest: It is not JSON.
    """
    try:
        return msgspec.json.decode(body)
    except NOT_JSON as error:
        raise InvalidRequest(f"the body is not valid JSON: {told(error)}") from None
