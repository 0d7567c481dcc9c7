"""Answers kept by ``semaforo-idempotency-key``, so that a retry is answered once.

Rules this module keeps:

1. A key belongs to a tenant. The same key with another request is a conflict.
2. While the first request runs, others join it; it is cancelled only when nobody waits for it any more.
3. Only good answers are kept, for a while, within bounds of number and bytes, least recently used first out;
   after an error the same key runs again.

In memory: the answers of a gateway that ends are forgotten.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from semaforo.errors import Conflict
from semaforo.server.http import HttpResponse

REPLAYED = (b"idempotent-replayed", b"true")
"""Header of an answer that was made for an earlier request."""


class Asker(Protocol):
    """What `KeptAnswers` needs of whoever asks."""

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back once its client has gone away."""
        ...


class _Entry:
    __slots__ = ("bytes", "digest", "task", "until", "waiters")

    def __init__(self, digest: bytes, task: asyncio.Task[HttpResponse]) -> None:
        self.digest = digest
        self.task = task
        self.waiters = 0
        self.bytes = 0
        self.until = 0.0


class KeptAnswers:
    """Answers by (tenant, key)."""

    def __init__(self, entries: int, ttl_s: float, most_bytes: int = 64_000_000) -> None:
        self._most = entries
        self._ttl_s = ttl_s
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def run(
        self,
        request: Asker,
        key: tuple[str, str],
        digest: bytes,
        compute: Callable[[], Awaitable[HttpResponse]],
    ) -> HttpResponse:
        """Return the key's answer: kept, being made by another request, or made now.

        Args:
            request: Who asks; when its client goes away it no longer waits.
            key: Tenant and key.
            digest: Stands for all of the request that makes its answer.
            compute: Makes the answer.

        Raises:
            Conflict: The key was used for another request.
        """
        entry = self._find(key)
        replayed = entry is not None
        if entry is None:
            entry = _Entry(digest, asyncio.ensure_future(_await(compute)))
            self._entries[key] = entry
            entry.task.add_done_callback(lambda task: self._settle(key, entry, task))
        elif entry.digest != digest:
            raise Conflict(f"the idempotency key '{key[1]}' was used for another request; use a new one")
        entry.waiters += 1
        waiting = asyncio.shield(entry.task)
        request.when_gone(waiting.cancel)
        try:
            response = await waiting
        finally:
            entry.waiters -= 1
            if entry.waiters == 0 and not entry.task.done():
                entry.task.cancel()
                self._drop(key, entry)
        if not replayed:
            return response
        return HttpResponse(response.status, (*response.headers, REPLAYED), response.body)

    def _find(self, key: tuple[str, str]) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.task.done() and entry.until < asyncio.get_running_loop().time():
            self._drop(key, entry)
            return None
        self._entries.move_to_end(key)
        return entry

    def _settle(self, key: tuple[str, str], entry: _Entry, task: asyncio.Task[HttpResponse]) -> None:
        if task.cancelled() or task.exception() is not None or self._entries.get(key) is not entry:
            self._drop(key, entry)
            return
        entry.until = asyncio.get_running_loop().time() + self._ttl_s
        entry.bytes = len(task.result().body)
        self._bytes += entry.bytes
        while len(self._entries) > self._most or self._bytes > self._most_bytes:
            oldest = next((k for k, e in self._entries.items() if e.task.done()), None)
            if oldest is None:
                return
            self._drop(oldest, self._entries[oldest])

    def _drop(self, key: tuple[str, str], entry: _Entry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]
            self._bytes -= entry.bytes


async def _await(compute: Callable[[], Awaitable[HttpResponse]]) -> HttpResponse:
    return await compute()
