"""``ModelInfer``, and what it shares with streams: from a message to work for the engine, and back.

What happens to a request, in order:

1. Its target names a task, or is ``auto`` and the task is found; its `GrpcCodec` takes the tensors out of it.
2. Its contract is read from metadata and parameters; of its deadline and the call's own the sooner counts.
3. With an idempotency key it joins, or is answered like, an earlier request with the same key.
4. The engine gets it; when the call is cancelled, by its client or by the end of its connection, so is the work.
5. The answer is encoded as it was asked for; the trailing metadata say who gave it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from semaforo.entities import Request
from semaforo.errors import Expired, InvalidRequest, SemaforoError
from semaforo.live.answer import Answer
from semaforo.live.auto import candidates, is_auto, of_prompt, of_tensors
from semaforo.routing.tasks import Given, fitting
from semaforo.server.description import signature
from semaforo.server.grpc.door import Context, Door, Headers, headers_of
from semaforo.server.http import HttpResponse
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.identity import Principal, tenant_of
from semaforo.server.prompt import chat_of, text_of
from semaforo.server.served import ServedHeaders, shown
from semaforo.server.work import work_of
from semaforo.wire.contract import Asked, read_contract
from semaforo.wire.inference_messages import ModelInferRequest
from semaforo.wire.payload import Chat, Payload, Tensors
from semaforo.wire.v2_grpc import GrpcCodec, parsed
from semaforo.wire.v2_task import Call

if TYPE_CHECKING:
    from semaforo.catalog.state import Catalog
    from semaforo.live.engine import Engine

_MOST_TARGETS = 1024

Metadata = tuple[tuple[str, str], ...]


class Job(msgspec.Struct, gc=False):
    """One request on its way.

    Attributes:
        codec: Codec of its task.
        call: What was sent, decoded.
        asked: What was asked for beside the data.
        work: What the engine schedules.
        payload: What it keeps for that.
    """

    codec: GrpcCodec
    call: Call
    asked: Asked
    work: Request
    payload: Payload


class Caller(msgspec.Struct):
    """Who makes a call, and what holds for all of it.

    The collector has to see it: through `remaining` it leads back to the call, whose error holds its frames.

    Attributes:
        headers: Its metadata.
        principal: Who asks.
        remaining: Returns the seconds left to the call, None = as long as it takes.
    """

    headers: Headers
    principal: Principal
    remaining: Callable[[], float | None]


class Inference:
    """Answers inference requests from an engine.

    Args:
        together: Whether calls that arrive together come in one round of the loop, and so make a batch.

    Attributes:
        engine: The engine.
        door: What requests pass.
    """

    def __init__(self, engine: Engine, door: Door, kept: KeptAnswers, together: bool) -> None:
        self.engine = engine
        self.door = door
        self._kept = kept
        self._alone = not together
        self._served = ServedHeaders()
        self._metadata: dict[str, Metadata] = {}
        self._catalog: Catalog | None = None
        self._codecs: dict[tuple[str, str], GrpcCodec] = {}

    async def infer(self, body: bytes, context: Context) -> bytes:
        """Answer a ``ModelInfer`` call."""
        request_id = ""
        try:
            caller = self.caller(context, "ModelInfer")
            request_id = self.door.enter()
            job = self.prepare(parsed(ModelInferRequest, body), request_id, caller)
            if job.asked.idempotency_key:
                return await self._once(context, job, body)
            answer, message = await self._answer(job)
            context.set_trailing_metadata(self.metadata(answer, request_id))
            reply: bytes = message.SerializeToString()
            return reply
        except Exception as error:
            await self.door.refuse(context, error, request_id or self.door.new_id())
            raise
        finally:
            self.door.leave(request_id)

    def caller(self, context: Context, method: str) -> Caller:
        """Return who makes a call.

        Raises:
            Unauthenticated, Forbidden: They may not.
        """
        headers = headers_of(context)
        return Caller(headers, self.door.admit(headers, "infer", method), context.time_remaining)

    def prepare(self, request: Any, request_id: str, caller: Caller) -> Job:
        """Make a job of a ``ModelInferRequest``.

        Raises:
            SemaforoError: It is not one that can be served.
        """
        target, version = request.model_name, request.model_version
        if is_auto(self.engine.catalog, target):
            target = self._found(request, request_id)
        codec = self._codec(target, version)
        call = codec.decode(request)
        asked = self._ask(caller, call.parameters)
        if codec.task.kind == "chat":
            work, payload = _chat(request_id, target, version, call, asked)
            return Job(codec, call, asked, work, payload)
        work = work_of(request_id, target, version, call, asked)
        return Job(codec, call, asked, work, call.tensors)

    def _found(self, request: Any, request_id: str) -> str:
        """Return the task of a ``ModelInferRequest`` that names none.

        Raises:
            InvalidRequest: It cannot be told.
        """
        engine = self.engine
        given = {one.name: Given(one.datatype, tuple(one.shape[1:])) for one in request.inputs}
        names = candidates(engine.catalog, given)
        chats = fitting(engine.catalog.tasks, None) if not names and given.keys() == {"text_input"} else []
        if chats:
            text = _prompt(self._codec(chats[0], "").decode(request))
            found = of_prompt(engine.catalog, engine.tasks, text)
        else:
            arrays = self._codec(names[0], "").decode(request).tensors.arrays if names else {}
            found = of_tensors(engine.tasks, names, arrays)
        engine.inferred(request_id, found)
        return found.task

    def encode(self, job: Job, answer: Answer) -> Any:
        """Return the ``ModelInferResponse`` of an answer.

        Raises:
            SemaforoError: It was not answered, or cannot be sent in the way it was asked for.
        """
        if not answer.ok:
            raise answer.error()
        if not isinstance(answer.result, Tensors):
            raise SemaforoError(f"request {job.work.id} ended well without a result")
        return job.codec.encode(job.call, answer.result, answer.model, answer.version)

    def metadata(self, answer: Answer, request_id: str) -> Metadata:
        """Return the trailing metadata of an answer."""
        # A kept answer has no replica of its own: whoever gave it first is not the same for every one.
        replica = f"{answer.finish.replica} {answer.finish.variant}"
        known = self._metadata.get(replica)
        if known is None:
            if len(self._metadata) >= _MOST_TARGETS:
                self._metadata.clear()
            known = self._metadata[replica] = _plain(self._served.who(answer))
        own = ("semaforo-request-id", request_id)
        if answer.without:
            return (*known, ("semaforo-without", shown(answer.without)), own)
        return (*known, own)

    async def _answer(self, job: Job) -> tuple[Answer, Any]:
        if isinstance(job.payload, Chat):
            return await self._whole(job)
        answer = await self.engine.infer(job.work, job.payload, at_once=self._alone)
        return answer, self.encode(job, answer)

    async def _whole(self, job: Job) -> tuple[Answer, Any]:
        stream = self.engine.stream(job.work, job.payload)
        text = "".join([text_of(chunk.delta) async for chunk in stream])
        answer = stream.answer
        if answer is None:
            raise SemaforoError(f"the stream of request {job.work.id} ended without an answer")
        return answer, job.codec.encode(job.call, text_tensor(text), answer.model, answer.version)

    async def _once(self, context: Context, job: Job, body: bytes) -> bytes:
        async def compute() -> HttpResponse:
            answer, message = await self._answer(job)
            served = self._served.of(answer, job.work.id)
            return HttpResponse(200, served, message.SerializeToString())

        key = (job.asked.contract.tenant, job.asked.idempotency_key)
        message = parsed(ModelInferRequest, body).SerializeToString(deterministic=True)
        digest = hashlib.sha256(b"ModelInfer\0" + message).digest()
        kept = await self._kept.run(_Held(), key, digest, compute)
        context.set_trailing_metadata(_plain(kept.headers))
        return kept.body

    def _codec(self, target: str, version: str) -> GrpcCodec:
        catalog = self.engine.catalog
        if catalog is not self._catalog:
            self._catalog = catalog
            self._codecs.clear()
        codec = self._codecs.get((target, version))
        if codec is None:
            task = catalog.task_of(target)
            catalog.resolve(target, version)
            inputs, outputs = signature(task)
            if len(self._codecs) >= _MOST_TARGETS:
                self._codecs.clear()
            task = msgspec.structs.replace(task, inputs=inputs, outputs=outputs)
            codec = self._codecs[target, version] = GrpcCodec(task)
        return codec

    def _ask(self, caller: Caller, parameters: dict[str, Any]) -> Asked:
        asked = read_contract(caller.headers, parameters)
        if asked.mode:
            raise InvalidRequest(
                "semaforo-mode: queue is taken over HTTP only: POST /v2/models/{model}/infer"
            )
        contract = asked.contract
        tenant = contract.tenant
        if tenant or caller.principal.tenant:
            tenant = tenant_of(caller.principal, tenant)
        deadline_s = contract.deadline_s
        remaining = caller.remaining()
        if remaining is not None:
            if remaining <= 0:
                raise Expired("the call's deadline is past")
            deadline_s = remaining if deadline_s is None else min(deadline_s, remaining)
        if deadline_s != contract.deadline_s or tenant != contract.tenant:
            asked.contract = msgspec.structs.replace(contract, deadline_s=deadline_s, tenant=tenant)
        return asked


class _Held:
    """Asks for a kept answer in a task that is cancelled when its client goes away."""

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Do nothing: the task hears of it first."""


def text_tensor(text: str) -> Tensors:
    """Return a text as the output of a chat."""
    return Tensors({"text_output": np.array([text], object)})


def _prompt(call: Call) -> str:
    given = call.tensors.arrays["text_input"]
    if len(given) != 1:
        raise InvalidRequest(f"input 'text_input' has {len(given)} rows; a chat takes one")
    try:
        return str(given[0].decode())
    except UnicodeDecodeError:
        raise InvalidRequest("input 'text_input' is not UTF-8") from None


def _chat(request_id: str, target: str, version: str, call: Call, asked: Asked) -> tuple[Request, Chat]:
    text = _prompt(call)
    asked.parameters.pop("triton_enable_empty_final_response", None)
    return chat_of(request_id, target, version, text, {}, asked)


def _plain(headers: Any) -> Metadata:
    return tuple((name.decode(), value.decode()) for name, value in headers)
