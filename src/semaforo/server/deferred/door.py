"""Takes requests that ask to be answered later into the queue on disk."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable

import msgspec

from semaforo.errors import InvalidRequest
from semaforo.repository.deferred import Bounds, Item, NewItem, Store, items
from semaforo.server.deferred.deferring import Deferring
from semaforo.server.deferred.names import new_name
from semaforo.server.deferred.replay import kept_headers
from semaforo.server.deferred.shown import PATH, shown_item
from semaforo.server.http import HttpRequest, HttpResponse, json_response
from semaforo.server.idempotency import REPLAYED
from semaforo.wire.not_json import NOT_JSON

_WHOLE = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/(infer|generate)|/v1/(?!files|batches).+")


class _Body(msgspec.Struct):
    model: str = ""
    stream: bool | None = None


_body = msgspec.json.Decoder(_Body)


class Door:
    """Queues requests.

    Args:
        store: The queue.
        bounds: How much it takes.
        check_webhook: Raises for a url that may not be told.
        admitted: Called with each request that was admitted.
    """

    def __init__(
        self,
        store: Store,
        bounds: Bounds,
        check_webhook: Callable[[str], None],
        admitted: Callable[[Item], None],
    ) -> None:
        self._store = store
        self._bounds = bounds
        self._check_webhook = check_webhook
        self._admitted = admitted

    async def take(self, request: HttpRequest, deferring: Deferring) -> HttpResponse:
        """Answer 202 once a sound request is on disk.

        Raises:
            InvalidRequest: What it asks for has no whole answer.
            Forbidden: Its webhook is not allowed.
            Conflict: Its idempotency key was used for another request.
            QueueFull: The queue is full.
            StorageFull: The database or the disk is.
        """
        now = time.time()
        item, replayed = await self._store.run(
            items.admit, self._item(request, deferring, now), self._bounds, now
        )
        if not replayed:
            self._admitted(item)
        where = (b"location", f"{PATH}/{item.id}".encode())
        return json_response(shown_item(item), 202, (where, REPLAYED) if replayed else (where,))

    def _item(self, request: HttpRequest, deferring: Deferring, now: float) -> NewItem:
        asked, body = deferring.asked, deferring.body
        path = request.raw_path.decode("latin-1")
        if not has_whole_answer(path.rstrip("/")):
            raise InvalidRequest(
                f"semaforo-mode: queue goes with work that has a whole answer, not with {path}"
            )
        if asked.webhook:
            self._check_webhook(asked.webhook)
        target = request.params.get("model", "")
        if not target:
            target = _openai_target(path, body)
        deadline = asked.contract.deadline_s
        keep = self._bounds.keep_s
        digest = b""
        if asked.idempotency_key:
            declared = request.headers.get(b"inference-header-content-length", b"")
            digest = hashlib.sha256(b"\0".join((request.raw_path, declared, body))).digest()
        return NewItem(
            id=new_name("deferred"),
            tenant=asked.contract.tenant,
            path=path,
            headers=kept_headers(request.headers),
            body=body,
            target=target,
            expires=now + (keep if deadline is None else min(deadline, keep)),
            key=asked.idempotency_key,
            digest=digest,
            webhook=asked.webhook,
        )


def has_whole_answer(path: str) -> bool:
    """Tell whether a path is one of inference whose answers are whole, not streams."""
    return _WHOLE.fullmatch(path) is not None


def _openai_target(path: str, body: bytes) -> str:
    try:
        read = _body.decode(body)
    except NOT_JSON:
        # A form, which its route has found sound: its like is what has the same path.
        return path
    if read.stream:
        raise InvalidRequest(
            "semaforo-mode: queue keeps whole answers: leave it out, or set 'stream' to false"
        )
    return read.model or path
