"""``/semaforo/v1/deferred``: how queued requests stand, their results, and calling them off."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from semaforo.errors import Conflict, Expired, InvalidRequest, NotFound, SemaforoError, nearest
from semaforo.repository.deferred import Item, Store, items
from semaforo.repository.deferred.records import STATUSES, Header, Status
from semaforo.server.deferred.owner import visible_to
from semaforo.server.deferred.paging import Page, page_response
from semaforo.server.deferred.shown import PATH, shown_item
from semaforo.server.http import HttpRequest, HttpResponse, Response, Route, json_response

_MOST = 1000
_SMALL = 65_536


class Queue:
    """The routes of single requests.

    Args:
        store: Where they are.
        error: Gives an error the form of the protocol that a request speaks.
        cancelled: Called with each request that was called off, and whether it was running.
    """

    def __init__(
        self,
        store: Store,
        error: Callable[[HttpRequest, SemaforoError], HttpResponse],
        cancelled: Callable[[Item, bool], None],
    ) -> None:
        self._store = store
        self._error = error
        self._cancelled = cancelled

    async def status(self, request: HttpRequest) -> Response:
        """``GET /semaforo/v1/deferred/{id}``."""
        name = request.params["id"]
        item = await self._store.run(items.find, name, visible_to(request))
        if item is None:
            raise _unknown(name)
        return json_response(shown_item(item), headers=_retry(item))

    async def result(self, request: HttpRequest) -> Response:
        """``GET /semaforo/v1/deferred/{id}/result``: what the direct call would have got; 202 until it is there."""
        name = request.params["id"]
        found = await self._store.run(items.result, name, visible_to(request))
        if found is None:
            raise _unknown(name)
        item, response = found
        if item.ended is None:
            return json_response(shown_item(item), 202, _retry(item))
        if response is not None:
            return _sent(response)
        # It ended without being run, so there is nothing that it was answered with.
        message = item.error[1] if item.error else ""
        asked = HttpRequest("POST", item.path.encode("latin-1"), b"", {}, request.exchange, request.id)
        if item.status == "expired":
            return self._error(asked, Expired(f"request {name} expired: {message}"))
        return self._error(asked, Conflict(f"request {name} has no result: {message}"))

    async def cancel(self, request: HttpRequest) -> Response:
        """``DELETE /semaforo/v1/deferred/{id}``: calls it off where it has not ended; what has ended stays."""
        name = request.params["id"]
        found = await self._store.run(items.cancel, name, visible_to(request), time.time())
        if found is None:
            raise _unknown(name)
        item, running = found
        if item.status == "cancelled":
            self._cancelled(item, running)
        return json_response(shown_item(item))

    async def requests(self, request: HttpRequest) -> Response:
        """``GET /semaforo/v1/deferred?status=…&after=…&limit=…``: the newest first."""
        page = Page(request, ("status",), _MOST)
        statuses = _statuses(page.fields.get("status", ""))
        tenant = visible_to(request)
        found = await self._store.run(items.listed, tenant, statuses, page.after, page.limit + 1)
        return page_response([shown_item(item) for item in found], page.limit)

    async def message(self, item: Item) -> bytes:
        """Return what a webhook is told: the status, and the result where it is JSON and small."""
        found = await self._store.run(items.result, item.id, None)
        data = shown_item(item)
        if found is not None and found[1] is not None:
            _, headers, body = found[1]
            kind = dict(headers).get("content-type", "")
            if kind.startswith("application/json") and len(body) <= _SMALL:
                data["result"] = {**data.get("result", {}), "body": msgspec.Raw(body)}
        ended = int(item.ended or 0)
        return msgspec.json.encode({"type": f"deferred.{item.status}", "created_at": ended, "data": data})

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", PATH, "infer", self.requests),
            Route("GET", PATH + "/{id}", "infer", self.status),
            Route("DELETE", PATH + "/{id}", "infer", self.cancel),
            Route("GET", PATH + "/{id}/result", "infer", self.result),
        ]


def _sent(response: tuple[int, tuple[Header, ...], bytes]) -> HttpResponse:
    status, headers, body = response
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return HttpResponse(status, pairs, body)


def _retry(item: Item) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", b"1"),) if item.ended is None else ()


def _statuses(text: str) -> tuple[Status, ...]:
    found: list[Status] = []
    for word in filter(None, text.split(",")):
        known = next((status for status in STATUSES if status == word), None)
        if known is None:
            hint = nearest(word, STATUSES)
            raise InvalidRequest(f"query: status '{word[:40]}' is none of {', '.join(STATUSES)}.{hint}")
        found.append(known)
    return tuple(found)


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"no deferred request has the id '{name[:100]}': it never had one, another tenant's has it, "
        "or its result was kept long enough"
    )
