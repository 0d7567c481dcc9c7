"""What a client asks a server, without sending anything: each call is a generator of requests.

It yields an `Ask`, is sent the `Reply`, and returns what the caller gets. `Client` and `AsyncClient` only
carry requests and replies, so what they ask and how they read it is written once.

Rules this module keeps:

1. Tensors travel as blobs, chats as OpenAI's stream; the contract travels in headers.
2. What a target takes is asked for once and kept; where it does not fit any more it is asked for again, and
   only then is a mismatch the caller's.
3. An error is raised as the class it had at the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from semaforo.api import replies
from semaforo.api.answer import FleetAnswer, Served, Story
from semaforo.api.auto import fitting
from semaforo.api.exchange import Ask, Call, Reply, Ticket
from semaforo.api.inputs import outputs_of, tensors_of
from semaforo.core.effects import Decided
from semaforo.entities import Contract, Ref, TaskType, TensorSpec
from semaforo.errors import InvalidRequest, NotFound, ProtocolError, SemaforoError
from semaforo.live.auto import AUTO
from semaforo.live.crew import ReplicaStatus
from semaforo.live.feedback import Opinion
from semaforo.wire.openai import parse_chat
from semaforo.wire.payload import Array, Tensors
from semaforo.wire.v2_client import (
    HEADER_LENGTH,
    contract_headers,
    decode_reply,
    encode_request,
    header_text,
    parse_metadata,
    reply_error,
)

T = TypeVar("T")
_ADMIN = "/semaforo/v1"
_STALE = (400, 404)
_ACCEPTED = 202
_MOST_KNOWN = 1024
_CHAT_TENSORS = ("text_input", "text_output")


class Calls:
    """All calls to one server.

    Args:
        url: Its address, for messages.
        story: Returns the explanation of a request that was served, when somebody looks at it.
    """

    def __init__(self, url: str, story: Callable[[str], Story]) -> None:
        self._url = url
        self._story = story
        self._known: dict[tuple[str, str], TaskType] = {}
        self._all: list[TaskType] = []

    def infer(
        self,
        target: str,
        contract: Contract,
        values: Mapping[str, Any],
        *,
        version: str,
        variant: str,
        parameters: Mapping[str, Any] | None,
        idempotency_key: str,
    ) -> Call[FleetAnswer]:
        """Answer one request; see `AnyFleet.infer`."""
        begun = time.monotonic()
        headers = _headers(contract, variant, idempotency_key)
        reply, single = yield from self._asked(target, version, contract, headers, values, parameters)
        return self._outputs(reply, single, time.monotonic() - begun)

    def submit(
        self,
        target: str,
        contract: Contract,
        values: Mapping[str, Any],
        *,
        version: str,
        variant: str,
        parameters: Mapping[str, Any] | None,
        idempotency_key: str,
    ) -> Call[Ticket]:
        """Put one request into the server's queue."""
        headers = _headers(contract, variant, idempotency_key) | {"semaforo-mode": "queue"}
        reply, single = yield from self._asked(target, version, contract, headers, values, parameters)
        return Ticket(self._read(reply, replies.Decision).id, single)

    def outcome(self, ticket: Ticket) -> Call[FleetAnswer | None]:
        """Return the answer to a queued request; None while there is none."""
        reply = yield _get(f"{_ADMIN}/deferred/{_segment(ticket.id)}/result")
        if reply.status == _ACCEPTED:
            return None
        self._check(reply)
        return self._outputs(reply, ticket.single, 0.0)

    def standing(self, ticket: Ticket, *, cancel: bool = False) -> Call[str]:
        """Return the status of a queued request, after calling it off where that is wanted."""
        path = f"{_ADMIN}/deferred/{_segment(ticket.id)}"
        reply = yield Ask("DELETE", path, repeatable=True) if cancel else _get(path)
        return self._read(reply, replies.Standing).status

    def decide(
        self, target: str, contract: Contract, values: Mapping[str, Any], *, version: str, variant: str
    ) -> Call[Decided]:
        """Return a decision without running it; see `AnyFleet.decide`."""
        words = {
            n.removeprefix("semaforo-").replace("-", "_"): v for n, v in contract_headers(contract).items()
        }
        ref = Ref()
        if values:
            _, (_, ref, _), _ = yield from self._fitting(target, version, values)
        body = {
            "target": target, "version": version, "variant": variant, "contract": words,
            "rows": max(1, ref.rows), "bytes": ref.bytes, "shape": ref.shape,
        }  # fmt: skip
        reply = yield Ask("POST", f"{_ADMIN}/decide", content=msgspec.json.encode(body), repeatable=True)
        return self._read(reply, Decided)

    def explain(self, request_id: str) -> Call[Story]:
        """Return the explanation of a request; see `AnyFleet.explain`."""
        if not request_id:
            raise NotFound("an empty id is the id of no request")
        reply = yield _get(f"{_ADMIN}/decisions/{_segment(request_id)}")
        told = self._read(reply, replies.Told)
        return Story(told.text, told.finish.cost if told.finish else 0.0)

    def feedback(self, request_id: str, opinion: Opinion) -> Call[None]:
        """Say what an answer was worth; see `AnyFleet.feedback`."""
        said = {
            name: value for name, value in msgspec.structs.asdict(opinion).items() if value not in (None, "")
        }
        try:
            content = msgspec.json.encode({"request_id": request_id, **said})
        except TypeError as error:
            raise InvalidRequest(f"a label is sent as JSON: {error}") from None
        self._check((yield Ask("POST", f"{_ADMIN}/feedback", content=content)))

    def latest(self) -> Call[str]:
        """Return the id of the request that was decided last, or of the one that this was a step of.

        Raises:
            NotFound: Nothing was decided yet.
        """
        reply = yield _get(f"{_ADMIN}/decisions?limit=1")
        found = self._read(reply, replies.Decisions).decisions
        if not found:
            raise NotFound("the server has decided nothing yet")
        latest = found[0]
        while latest.request.step is not None:
            reply = yield _get(f"{_ADMIN}/decisions/{_segment(latest.request.step.parent)}")
            latest = self._read(reply, replies.Decision)
        return latest.id

    def names(self) -> Call[list[str]]:
        """Return every name that can be asked for."""
        reply = yield _get("/v2/models")
        return self._read(reply, replies.Names).models

    def tasks(self) -> Call[list[TaskType]]:
        """Return every task."""
        reply = yield _get(f"{_ADMIN}/fleet")
        return self._read(reply, replies.Fleet).tasks

    def replicas(self) -> Call[list[ReplicaStatus]]:
        """Return every replica."""
        reply = yield _get(f"{_ADMIN}/fleet")
        models = self._read(reply, replies.Fleet).models
        variants = [variant for model in models for version in model.versions for variant in version.variants]
        return [replica for variant in variants for replica in variant.replicas]

    def ready(self, target: str) -> Call[bool]:
        """Tell whether a target, or any task, has a replica in service."""
        path = f"/v2/models/{_segment(target)}/ready" if target else "/v2/health/ready"
        reply = yield _get(path)
        if reply.status in (400, 503):
            return False
        self._check(reply)
        return True

    def chat(
        self,
        target: str,
        messages: str | Sequence[Mapping[str, Any]],
        contract: Contract,
        fields: Mapping[str, Any],
    ) -> Ask:
        """Return the request of a chat, whose reply is a stream.

        Raises:
            InvalidRequest: What is wrong with it.
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        call = parse_chat({**fields, "model": target, "messages": said, "stream": True})
        try:
            content = msgspec.json.encode(call.body)
        except TypeError as error:
            raise InvalidRequest(f"a chat is sent as JSON: {error}") from None
        return Ask("POST", "/v1/chat/completions", contract_headers(contract), content, contract.deadline_s)

    def answer(self, outputs: Mapping[str, Any], headers: Mapping[str, str], latency_s: float) -> FleetAnswer:
        """Return an answer whose headers say who served it."""
        model, version, variant, replica, request_id = (
            headers.get(f"semaforo-{name}", "")
            for name in ("model", "version", "variant", "replica", "request-id")
        )
        lost = headers.get("semaforo-without", "")
        without = tuple(lost.split("; ")) if lost else ()
        served = Served(model, version, variant, replica, request_id, latency_s, without)
        return FleetAnswer(outputs, served, lambda: self._story(request_id))

    def error(self, reply: Reply) -> SemaforoError:
        """Return the error that a reply stands for."""
        return reply_error(reply.status, reply.headers, reply.content, self._url)

    def _asked(
        self,
        target: str,
        version: str,
        contract: Contract,
        headers: Mapping[str, str],
        values: Mapping[str, Any],
        parameters: Mapping[str, Any] | None,
    ) -> Call[tuple[Reply, bool]]:
        """Return the good reply to an inference, and whether it is of one row."""
        task, (tensors, _, single), kept = yield from self._fitting(target, version, values)
        reply = yield self._question(target, version, contract, headers, task, tensors, parameters)
        if reply.status in _STALE and kept:
            # What was kept may be out of date, and then the server is right to refuse what fits it.
            newer, (tensors, _, single), _ = yield from self._fitting(target, version, values, anew=True)
            if newer != task:
                reply = yield self._question(target, version, contract, headers, newer, tensors, parameters)
        self._check(reply)
        return reply, single

    def _outputs(self, reply: Reply, single: bool, latency_s: float) -> FleetAnswer:
        # Of a bytearray the outputs can be written to, as those of a fleet inside the program can.
        content = bytearray(reply.content)
        _, _, arrays = decode_reply(content, reply.headers.get(HEADER_LENGTH))
        outputs = outputs_of(Tensors({name: _texts(a) for name, a in arrays.items()}), single)
        return self.answer(outputs, reply.headers, latency_s)

    def _question(
        self,
        target: str,
        version: str,
        contract: Contract,
        headers: Mapping[str, str],
        task: TaskType,
        tensors: Tensors,
        parameters: Mapping[str, Any] | None,
    ) -> Ask:
        datatypes = {spec.name: spec.dtype for spec in task.inputs}
        try:
            content, length = encode_request(tensors.arrays, datatypes, binary=True, parameters=parameters)
        except TypeError as error:
            raise InvalidRequest(f"parameters are sent as JSON: {error}") from None
        return Ask(
            "POST",
            f"{_model(target, version)}/infer",
            {**headers, HEADER_LENGTH: str(length), "content-type": "application/octet-stream"},
            content,
            contract.deadline_s,
            "semaforo-idempotency-key" in headers,
        )

    def _fitting(
        self, target: str, version: str, values: Mapping[str, Any], *, anew: bool = False
    ) -> Call[tuple[TaskType, tuple[Tensors, Ref, bool], bool]]:
        """Return what the target takes, the values made to fit it, and whether it was known before."""
        known = self._known.get((target, version)) if not anew else None
        if known is not None:
            with suppress(InvalidRequest):
                return known, tensors_of(known, values), True
        if target == AUTO and not version and self._all and not anew:
            with suppress(InvalidRequest):
                return (*fitting(self._all, values), True)
        try:
            task = yield from self._task(target, version)
        except NotFound:
            if target != AUTO or version:
                raise
            self._all = yield from self._described()
            return (*fitting(self._all, values), False)
        try:
            return task, tensors_of(task, values), False
        except InvalidRequest:
            if tuple(spec.name for spec in (*task.inputs, *task.outputs)) == _CHAT_TENSORS:
                raise InvalidRequest(f"'{target}' chats: ask it by chat") from None
            raise

    def _described(self) -> Call[list[TaskType]]:
        """Return what every name takes that takes tensors."""
        found = []
        for name in (yield from self.names()):
            task = yield from self._task(name, "")
            if tuple(spec.name for spec in (*task.inputs, *task.outputs)) != _CHAT_TENSORS:
                found.append(task)
        return found

    def _task(self, target: str, version: str) -> Call[TaskType]:
        reply = yield _get(_model(target, version))
        self._check(reply)
        try:
            about = parse_metadata(reply.content)
        except ProtocolError as error:
            raise self._strange(error) from None
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        task = TaskType(target, inputs=_rows(about.inputs), outputs=_rows(about.outputs))
        self._known[target, version] = task
        return task

    def _check(self, reply: Reply) -> None:
        if not 200 <= reply.status < 300:
            raise self.error(reply)

    def _read(self, reply: Reply, kind: type[T]) -> T:
        self._check(reply)
        try:
            return msgspec.json.decode(reply.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._strange(error) from None

    def _strange(self, error: Exception) -> ProtocolError:
        return ProtocolError(f"{self._url} answers what a Semaforo server would not: {error}")


def _headers(contract: Contract, variant: str, idempotency_key: str) -> dict[str, str]:
    headers = contract_headers(contract)
    if variant:
        headers["semaforo-variant"] = header_text("variant", variant)
    if idempotency_key:
        headers["semaforo-idempotency-key"] = header_text("idempotency_key", idempotency_key)
    return headers


def _get(path: str) -> Ask:
    return Ask("GET", path, repeatable=True)


def _segment(name: str) -> str:
    return quote(name, safe="")


def _model(target: str, version: str) -> str:
    if not target:
        raise InvalidRequest("name a task, a model or an alias to ask")
    path = f"/v2/models/{_segment(target)}"
    return f"{path}/versions/{_segment(version)}" if version else path


def _rows(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Leave the dimension of the rows out."""
    return tuple(msgspec.structs.replace(spec, shape=spec.shape[1:]) for spec in specs)


def _texts(array: Array) -> Array:
    """Turn BYTES into texts, as functions and ONNX models give them, where all of them are UTF-8."""
    if array.dtype != object:
        return array
    texts = array.copy()
    try:
        texts.ravel()[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    except UnicodeDecodeError:
        return array
    return texts
