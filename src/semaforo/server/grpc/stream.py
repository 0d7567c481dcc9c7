"""``ModelStreamInfer``: many requests in flight on one call, answered in the order they are ready.

Rules this module keeps:

1. A request that fails is answered in band, by ``error_message`` and its `id`; the stream goes on.
2. A chat is answered by chunks as they come. The last response to each request, and no other, has the parameter
   ``triton_final_response`` set; a chat's last one holds no text, and no output at all where the request has
   the parameter ``triton_enable_empty_final_response``. One with ``semaforo_restart`` takes back all before it.
3. A stream has a bound on what it has in flight: a client that sends faster, or reads slower, waits.
4. When the stream ends before its answers, the work it caused is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Any

import grpc

from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.live.answer import Answer
from semaforo.server.grpc.door import STOPPING, Context
from semaforo.server.grpc.inference import Caller, Inference, Job, text_tensor
from semaforo.server.prompt import text_of
from semaforo.wire.grpc_status import details
from semaforo.wire.inference_messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from semaforo.wire.payload import Chat
from semaforo.wire.v2_grpc import parsed

_MOST_IN_FLIGHT = 256
_MOST_WAITING = 256


class InferStream:
    """One call of ``ModelStreamInfer``."""

    def __init__(self, inference: Inference, context: Context, caller: Caller) -> None:
        self._inference = inference
        self._context = context
        self._caller = caller
        self._pending: dict[str, None] = {}
        self._chats: set[asyncio.Task[None]] = set()
        self._ready: deque[bytes] = deque()
        self._closed = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Serve the stream until its client has said all and got all.

        Raises:
            NotReady: The server stops, and nothing is in flight here.
        """
        reader = asyncio.ensure_future(self._read())
        try:
            while True:
                await self._flush()
                if reader.done():
                    reader.result()
                if not self._pending and not self._ready:
                    if self._closed:
                        return
                    if self._inference.door.ending:
                        raise STOPPING
                self._changed.clear()
                if not self._ready:
                    await self._changed.wait()
        finally:
            reader.cancel()
            for task in self._chats:
                task.cancel()
            # The latest first: in the other order each that ends would let the next begin.
            for request_id in reversed(list(self._pending)):
                self._inference.engine.cancel(request_id)
            await asyncio.gather(reader, *self._chats, return_exceptions=True)

    def wake(self) -> None:
        """Look again at what there is to do."""
        self._changed.set()

    async def _flush(self) -> None:
        ready = self._ready
        while ready:
            await self._context.write(ready.popleft())
            self._room.set()

    async def _read(self) -> None:
        try:
            while True:
                while len(self._pending) + len(self._ready) >= _MOST_IN_FLIGHT:
                    self._room.clear()
                    await self._room.wait()
                body: Any = await self._context.read()
                if body is grpc.aio.EOF:
                    break
                self._take(body)
        finally:
            self._closed = True
            self._changed.set()

    def _take(self, body: bytes) -> None:
        door = self._inference.door
        said = request_id = ""
        try:
            message = parsed(ModelInferRequest, body)
            said = message.id
            request_id = door.enter()
            job = self._inference.prepare(message, request_id, self._caller)
            if job.asked.idempotency_key:
                raise InvalidRequest(
                    "semaforo-idempotency-key keeps one whole answer: leave it out, or call ModelInfer"
                )
        except Exception as error:
            door.leave(request_id)
            self._fail(said, door.known(error, request_id or door.new_id()))
            return
        self._pending[request_id] = None
        if isinstance(job.payload, Chat):
            job.payload.body["stream"] = True
            task = asyncio.ensure_future(self._chat(job))
            self._chats.add(task)
            task.add_done_callback(self._chats.discard)
        else:
            self._inference.engine.submit(job.work, job.payload, partial(self._settle, job))

    def _settle(self, job: Job, answer: Answer) -> None:
        try:
            self._say(job, self._inference.encode(job, answer), final=True)
        except Exception as error:
            # The engine called: whatever is wrong here is the answer to this request, and stops there.
            self._fail(job.call.id, self._inference.door.known(error, job.work.id))
        self._over(job)

    async def _chat(self, job: Job) -> None:
        door = self._inference.door
        stream = self._inference.engine.stream(job.work, job.payload)
        try:
            async for chunk in stream:
                text = text_of(chunk.delta)
                if not text:
                    continue
                model, version, _ = stream.variant.split("/", 2)
                message = job.codec.encode(job.call, text_tensor(text), model, version)
                if chunk.restart:
                    message.parameters["semaforo_restart"].bool_param = True
                self._say(job, message, final=False)
                while len(self._ready) >= _MOST_WAITING:
                    self._room.clear()
                    await self._room.wait()
            answer = stream.answer
            if answer is None:
                raise SemaforoError(f"the stream of request {job.work.id} ended without an answer")
            self._say(job, self._last(job, answer), final=True)
        except Exception as error:
            self._fail(job.call.id, door.known(error, job.work.id))
        finally:
            stream.close()
            self._over(job)

    def _last(self, job: Job, answer: Answer) -> Any:
        if job.call.parameters.get("triton_enable_empty_final_response"):
            return ModelInferResponse(model_name=answer.model, model_version=answer.version, id=job.call.id)
        return job.codec.encode(job.call, text_tensor(""), answer.model, answer.version)

    def _say(self, job: Job, message: Any, final: bool) -> None:
        parameters = message.parameters
        parameters["triton_final_response"].bool_param = final
        if final:
            parameters["semaforo_request_id"].string_param = job.work.id
        self._put(ModelStreamInferResponse(infer_response=message))

    def _fail(self, said: str, error: SemaforoError) -> None:
        message = ModelInferResponse(id=said)
        message.parameters["triton_final_response"].bool_param = True
        message.parameters["semaforo_error"].string_param = error.code
        self._put(ModelStreamInferResponse(error_message=details(error), infer_response=message))

    def _put(self, message: Any) -> None:
        self._ready.append(message.SerializeToString())
        self._changed.set()

    def _over(self, job: Job) -> None:
        self._pending.pop(job.work.id, None)
        self._inference.door.leave(job.work.id)
        self._room.set()
        self._changed.set()
