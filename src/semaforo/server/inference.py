"""V2 ``infer``: the hot path of the front.

What happens to a request, in order:

1. Its target names a task, whose `V2Codec` turns the body into tensors.
2. Its contract is read from headers and parameters; the tenant is checked against the principal.
3. With an idempotency key it joins, or is answered like, an earlier request with the same key.
4. The engine gets it; when the client goes away first, the engine is told to cancel it.
5. The answer is encoded as it was asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.entities import Contract, Request
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.live.answer import Answer, Waiter
from semaforo.live.auto import AUTO, candidates, is_auto, of_tensors
from semaforo.routing.tasks import Given
from semaforo.server.deferred.deferring import Deferring
from semaforo.server.http import JSON, HttpRequest, HttpResponse, Reply
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.identity import tenant_of
from semaforo.server.served import ServedHeaders
from semaforo.server.work import work_of
from semaforo.wire.contract import Asked, read_contract
from semaforo.wire.not_json import NOT_JSON, told
from semaforo.wire.payload import Payload, Tensors
from semaforo.wire.v2 import Call, V2Codec

if TYPE_CHECKING:
    from semaforo.catalog.state import Catalog
    from semaforo.live.engine import Engine

_BINARY = (b"content-type", b"application/octet-stream")
_MOST_TARGETS = 1024


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Inputs(msgspec.Struct):
    inputs: list[_Input]


class _Direct:
    """Takes an answer and replies with it."""

    __slots__ = ("_call", "_codec", "_inference", "_reply", "_request", "over")

    def __init__(
        self, inference: Inference, request: HttpRequest, reply: Reply, codec: V2Codec, call: Call
    ) -> None:
        self._inference = inference
        self._request = request
        self._reply = reply
        self._codec = codec
        self._call = call
        self.over = False

    def settle(self, answer: Answer) -> None:
        self.over = True
        outcome: HttpResponse | Exception
        try:
            if not answer.ok:
                raise answer.error()
            outcome = self._inference.response(self._request, self._codec, self._call, answer)
        except Exception as error:
            # The engine called: whatever is wrong here is the answer to this request, and stops there.
            outcome = error
        self._reply(self._request, outcome)


class Inference:
    """Answers inference requests from an engine.

    Attributes:
        engine: The engine.
        served: Headers that say who served a request.
    """

    def __init__(self, engine: Engine, kept: KeptAnswers) -> None:
        self.engine = engine
        self.served = ServedHeaders()
        self._kept = kept
        self._catalog: Catalog | None = None
        self._codecs: dict[tuple[str, str], V2Codec] = {}
        self._contracts: dict[str, Contract] = {}

    async def infer(self, request: HttpRequest) -> HttpResponse:
        """``POST /v2/models/{model}[/versions/{version}]/infer``."""
        params = request.params
        target = params["model"]
        version = params.get("version", "")
        body = await request.body()
        declared = request.headers.get(b"inference-header-content-length")
        if is_auto(self.engine.catalog, target):
            target = self._found(request, body, None if declared is None else _length(declared))
        codec = self.codec(target, version)
        call = codec.decode(body, None if declared is None else _length(declared))
        asked = self.ask(request, call.parameters)
        if asked.idempotency_key:
            digest = hashlib.sha256(b"\0".join((request.path.encode(), declared or b"", body))).digest()
            return await self._kept.run(
                request,
                (asked.contract.tenant, asked.idempotency_key),
                digest,
                lambda: self._answer(request, codec, call, asked, target, version, hear=False),
            )
        return await self._answer(request, codec, call, asked, target, version)

    def infer_directly(self, request: HttpRequest, reply: Reply) -> bool:
        """Answer what `infer` answers without a task, where nothing has to be awaited but the engine."""
        headers = request.headers
        if b"semaforo-idempotency-key" in headers or request.params["model"] == AUTO:
            return False
        body = request.whole_body()
        if body is None:
            return False
        params = request.params
        target = params["model"]
        version = params.get("version", "")
        codec = self.codec(target, version)
        declared = headers.get(b"inference-header-content-length")
        call = codec.decode(body, None if declared is None else _length(declared))
        asked = self.ask(request, call.parameters)
        work = work_of(request.id, target, version, call, asked)
        direct = _Direct(self, request, reply, codec, call)
        engine = self.engine
        engine.submit(work, call.tensors, direct.settle)
        if not direct.over:
            request.when_gone(partial(engine.cancel, work.id))
        return True

    def _found(self, request: HttpRequest, body: bytes, header: int | None) -> str:
        """Return the task of a request that names none.

        Raises:
            InvalidRequest: It cannot be told.
        """
        try:
            inputs = msgspec.json.decode(body if header is None else body[:header], type=_Inputs).inputs
        except NOT_JSON as error:
            raise InvalidRequest(f"not an inference request: {told(error)}") from None
        given = {one.name: Given(one.datatype, tuple(one.shape[1:])) for one in inputs}
        names = candidates(self.engine.catalog, given)
        arrays = self.codec(names[0]).decode(body, header).tensors.arrays if names else {}
        found = of_tensors(self.engine.tasks, names, arrays)
        self.engine.inferred(request.id, found)
        return found.task

    def codec(self, target: str, version: str = "") -> V2Codec:
        """Return the codec of a target's task.

        Raises:
            NotFound: No such target or version.
            InvalidRequest: The target speaks chat, not tensors.
        """
        catalog = self.engine.catalog
        if catalog is not self._catalog:
            self._catalog = catalog
            self._codecs.clear()
        codec = self._codecs.get((target, version))
        if codec is None:
            task = catalog.task_of(target)
            catalog.resolve(target, version)
            if task.kind == "chat":
                raise InvalidRequest(
                    f"'{target}' chats: ask it at /v1/chat/completions or /v2/models/{target}/generate"
                )
            if len(self._codecs) >= _MOST_TARGETS:
                self._codecs.clear()
            codec = self._codecs[target, version] = V2Codec(task)
        return codec

    def ask(self, request: HttpRequest, parameters: dict[str, Any]) -> Asked:
        """Read a request's contract, with the tenant that it counts for.

        Call it once the body has been read and checked: a request that asks to be queued goes no further.

        Raises:
            InvalidRequest: A value is not allowed.
            Forbidden: The principal may not speak for the tenant that is named.
            Deferring: It asks to be queued, and is sound.
        """
        asked = read_contract(request.headers, parameters)
        contract = asked.contract
        principal = request.principal
        if contract.tenant or principal.tenant:
            tenant = tenant_of(principal, contract.tenant)
            if tenant != contract.tenant:
                asked.contract = self._with_tenant(contract, tenant)
        if asked.mode and not request.replayed:
            raise Deferring(asked, request.kept)
        request.kept = b""
        return asked

    async def run(self, request: HttpRequest, work: Request, payload: Payload, hear: bool = True) -> Answer:
        """Have the engine answer; cancel the work when the client goes away (where `hear`) or the task ends.

        Raises:
            SemaforoError: It was not answered.
        """
        waiter = Waiter()
        engine = self.engine
        engine.submit(work, payload, waiter.settle)
        answer = waiter.answer
        if answer is None:
            waiter.future = asyncio.get_running_loop().create_future()
            if hear:
                request.when_gone(lambda: engine.cancel(work.id))
            try:
                answer = await waiter.future
            except asyncio.CancelledError:
                engine.cancel(work.id)
                raise
        if not answer.ok:
            raise answer.error()
        return answer

    async def _answer(
        self,
        request: HttpRequest,
        codec: V2Codec,
        call: Call,
        asked: Asked,
        target: str,
        version: str,
        hear: bool = True,
    ) -> HttpResponse:
        work = work_of(request.id, target, version, call, asked)
        return self.response(request, codec, call, await self.run(request, work, call.tensors, hear))

    def response(self, request: HttpRequest, codec: V2Codec, call: Call, answer: Answer) -> HttpResponse:
        """Encode an answer as it was asked for."""
        result = answer.result
        if not isinstance(result, Tensors):
            raise SemaforoError(f"request {request.id} ended well without a result")
        body, json_length = codec.encode(call, result, answer.model, answer.version)
        served = self.served.of(answer, request.id)
        if json_length is None:
            return HttpResponse(200, (JSON, *served), body)
        length = (b"inference-header-content-length", b"%d" % json_length)
        return HttpResponse(200, (_BINARY, length, *served), body)

    def _with_tenant(self, contract: Contract, tenant: str) -> Contract:
        if contract == _PLAIN:
            known = self._contracts.get(tenant)
            if known is None:
                if len(self._contracts) >= _MOST_TARGETS:
                    self._contracts.clear()
                known = self._contracts[tenant] = Contract(tenant=tenant)
            return known
        return msgspec.structs.replace(contract, tenant=tenant)


_PLAIN = Contract()


def _length(declared: bytes) -> int:
    if not declared.isdigit():
        raise InvalidRequest("Inference-Header-Content-Length is a number of bytes")
    return int(declared)
