"""``/v1/batches``: many requests in one file, answered in another, as OpenAI's clients handle them.

What happens to a batch, in order:

1. It is stored as ``validating`` and answered at once; its input is read by a task of its own.
2. A line that is wrong fails the batch, and every such line is named. Otherwise its lines are queued, and it is
   ``in_progress`` once all are.
3. Each line is answered as a request of its own, under the contract that the batch came with.
4. When nothing of it is left to do, its files are written: good answers in one, all others in the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from semaforo.entities.units import parse_duration
from semaforo.errors import InvalidRequest, NotFound, SemaforoError
from semaforo.repository.deferred import BatchRecord, Bounds, NewItem, Store, batches, files
from semaforo.repository.deferred.items import size
from semaforo.server.deferred.files import whole
from semaforo.server.deferred.names import new_name
from semaforo.server.deferred.owner import tenant_for, visible_to
from semaforo.server.deferred.paging import Page, page_response
from semaforo.server.deferred.replay import kept_headers
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.server.idempotency import REPLAYED
from semaforo.wire.batches import Line, LineError, read_lines
from semaforo.wire.contract import read_contract
from semaforo.wire.not_json import NOT_JSON, told
from semaforo.wire.openai_fields import InvalidField

logger = logging.getLogger("semaforo.deferred")

_MOST = 100
_AT_ONCE = 500
"""Requests queued in one transaction, so that others need not wait for a large batch."""

_MOST_METADATA = (16, 64, 512)
_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata")
_TIMES = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip


class Batches:
    """The routes of batches.

    Args:
        store: Where they are.
        bounds: How much is kept.
        serves: Tells whether an endpoint is one that takes requests with whole answers.
        queued: Called when requests of a batch are queued, with the batch.
        cancelled: Called with a batch that was cancelled and its requests that were running.
    """

    def __init__(
        self,
        store: Store,
        bounds: Bounds,
        serves: Callable[[str], bool],
        queued: Callable[[BatchRecord], None],
        cancelled: Callable[[str, Sequence[str]], None],
    ) -> None:
        self._store = store
        self._bounds = bounds
        self._serves = serves
        self._queued = queued
        self._cancelled = cancelled
        self._reading: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read the inputs that the last server had not read to the end."""
        for batch_id in await self._store.run(batches.to_validate):
            self._read(batch_id)

    async def close(self) -> None:
        """Stop reading; the next server begins anew with what was not read to the end."""
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def create(self, request: HttpRequest) -> Response:
        """``POST /v1/batches``."""
        body = _decode(await request.body())
        tenant = tenant_for(request)
        asked = read_contract(request.headers, {})
        if asked.mode or asked.contract.deadline_s is not None:
            raise InvalidRequest("a batch is queued as it is, and its deadline is its completion_window")
        now = time.time()
        batch = self._record(body, tenant, request.headers, asked.idempotency_key, now)
        found = await self._store.run(files.find, batch.input_file, visible_to(request))
        if found is None:
            raise InvalidField("input_file_id", f"no file has the id '{batch.input_file[:100]}'")
        batch, replayed = await self._store.run(batches.create, batch)
        if not replayed:
            self._read(batch.id)
        return json_response(shown_batch(batch), headers=(REPLAYED,) if replayed else ())

    async def batch(self, request: HttpRequest) -> Response:
        """``GET /v1/batches/{id}``."""
        name = request.params["id"]
        found = await self._store.run(batches.find, name, visible_to(request))
        if found is None:
            raise NotFound(f"no batch has the id '{name[:100]}'")
        return json_response(shown_batch(found))

    async def batches(self, request: HttpRequest) -> Response:
        """``GET /v1/batches``: the newest first."""
        page = Page(request, (), _MOST)
        found = await self._store.run(batches.listed, visible_to(request), page.after, page.limit + 1)
        return page_response([shown_batch(batch) for batch in found], page.limit)

    async def cancel(self, request: HttpRequest) -> Response:
        """``POST /v1/batches/{id}/cancel``."""
        name = request.params["id"]
        found = await self._store.run(batches.cancel, name, visible_to(request), time.time())
        if found is None:
            raise NotFound(f"no batch has the id '{name[:100]}'")
        batch, running = found
        self._cancelled(batch.id, running)
        return json_response(shown_batch(batch))

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("POST", "/v1/batches", "infer", self.create),
            Route("GET", "/v1/batches", "infer", self.batches),
            Route("GET", "/v1/batches/{id}", "infer", self.batch),
            Route("POST", "/v1/batches/{id}/cancel", "infer", self.cancel),
        ]

    def _record(
        self, body: Mapping[str, Any], tenant: str, headers: Mapping[bytes, bytes], key: str, now: float
    ) -> BatchRecord:
        for name in body:
            if name not in _FIELDS:
                raise InvalidField(name, f"is not taken here; there are {', '.join(_FIELDS)}")
        for name in _FIELDS[:3]:
            if not isinstance(body.get(name), str) or not body[name]:
                raise InvalidField(name, "is missing: give a text")
        endpoint = body["endpoint"]
        if not self._serves(endpoint):
            raise InvalidField(
                "endpoint",
                f"'{endpoint[:100]}' is none that takes batches: name /v1/chat/completions, another of "
                "OpenAI's routes that is served, or /v2/models/MODEL/infer",
            )
        try:
            window = parse_duration(body["completion_window"])
        except InvalidRequest as error:
            raise InvalidField("completion_window", str(error)) from None
        if not 0 < window <= self._bounds.keep_s:
            message = (
                f"is '{body['completion_window']}'; results are kept for {self._bounds.keep_s:.0f}s here"
            )
            raise InvalidField("completion_window", message)
        kept = [pair for pair in kept_headers(headers) if pair[0].startswith("semaforo-")]
        return BatchRecord(
            id=new_name("batch"),
            tenant=tenant,
            endpoint=endpoint,
            input_file=body["input_file_id"],
            window=body["completion_window"],
            metadata=_metadata(body.get("metadata")),
            headers=(("content-type", "application/json"), *kept),
            status="validating",
            created=now,
            expires=now + window,
            key=key,
            digest=hashlib.sha256(msgspec.json.encode(body, order="sorted")).digest() if key else b"",
        )

    def _read(self, batch_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._validate(batch_id))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _validate(self, batch_id: str) -> None:
        batch = await self._store.run(batches.find, batch_id, None)
        if batch is None:
            return
        try:
            content = await whole(self._store, batch.input_file)
            lines, wrong = await asyncio.to_thread(read_lines, content, batch.endpoint, self._bounds.items)
            if not wrong:
                await self._add(batch, await asyncio.to_thread(_requests, batch, lines))
                return
        except Exception as error:
            known = (
                error if isinstance(error, SemaforoError) else SemaforoError("internal error; see the log")
            )
            if known is not error:
                logger.exception("the input of batch %s could not be read", batch_id)
            wrong = [LineError(known.code, str(known))]
        errors = [msgspec.to_builtins(found) for found in wrong]
        await self._store.run(batches.fail, batch_id, errors, time.time())

    async def _add(self, batch: BatchRecord, requests: Sequence[NewItem]) -> None:
        total = sum(size(new) for new in requests)
        await self._store.run(batches.expect, batch.id, len(requests), total, self._bounds)
        for start in range(0, len(requests), _AT_ONCE):
            some = requests[start : start + _AT_ONCE]
            if not await self._store.run(batches.add, batch.id, some, time.time()):
                return
            self._queued(batch)
        await self._store.run(batches.begin, batch.id, time.time())
        self._queued(batch)


def _requests(batch: BatchRecord, lines: Sequence[Line]) -> list[NewItem]:
    served = ""
    if batch.endpoint.startswith("/v2/models/"):
        served = unquote(batch.endpoint.split("/")[3])
    return [
        NewItem(
            id=f"{batch.id}_{line.number}",
            tenant=batch.tenant,
            path=batch.endpoint,
            headers=batch.headers,
            body=line.body,
            target=served or line.model,
            expires=batch.expires,
            batch=batch.id,
            line=line.number,
            custom_id=line.custom_id,
        )
        for line in lines
    ]


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except NOT_JSON as error:
        raise InvalidRequest(f"the body is not valid JSON: {told(error)}") from None
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object with {', '.join(_FIELDS[:3])}")
    return body


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    most, key, text = _MOST_METADATA
    good = isinstance(value, dict) and len(value) <= most
    if not good or not all(len(k) <= key and isinstance(v, str) and len(v) <= text for k, v in value.items()):
        raise InvalidField(
            "metadata", f"takes up to {most} texts of up to {text} characters, named in up to {key}"
        )
    return dict(value)


def shown_batch(batch: BatchRecord) -> dict[str, Any]:
    """Return a batch in OpenAI's form."""
    at = {f"{name}_at": int(batch.at[name]) if name in batch.at else None for name in _TIMES}
    errors = None
    if batch.errors:
        errors = {"object": "list", "data": list(batch.errors)}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status,
        "output_file_id": batch.output_file or None,
        "error_file_id": batch.error_file or None,
        "created_at": int(batch.created),
        "expires_at": int(batch.expires),
        **at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }
