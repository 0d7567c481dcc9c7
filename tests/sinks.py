"""A sink that keeps what handles report, for tests that drive handles without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from semaforo.core.events import BatchFailed, Limits, Report
from semaforo.errors import SemaforoError
from semaforo.wire.payload import ChatChunk, Tensors


class Recorder:
    """Every report in order, as (name, batch or replica, the rest)."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self._news = asyncio.Event()

    def _note(self, *entry: Any) -> None:
        self.seen.append(entry)
        self._news.set()

    def batch_done(self, batch: int, results: Sequence[Tensors | SemaforoError], service_s: float) -> None:
        self._note("done", batch, list(results), service_s)

    def chunk(self, batch: int, chunk: ChatChunk) -> None:
        self._note("chunk", batch, chunk)

    def stream_done(self, batch: int, service_s: float, prompt_tokens: int, output_tokens: int) -> None:
        self._note("stream_done", batch, prompt_tokens, output_tokens)

    def batch_failed(self, event: BatchFailed) -> None:
        self._note("failed", event.batch, event)

    def busy(self, batch: int, retry_after_s: float) -> None:
        self._note("busy", batch, retry_after_s)

    def report(self, event: Report | Limits) -> None:
        self._note("report", event.replica, event)

    def lost(self, replica: str, reason: str) -> None:
        self._note("lost", replica, reason)

    async def wait(
        self, found: Callable[[tuple[Any, ...]], bool], timeout_s: float = 10.0
    ) -> tuple[Any, ...]:
        """Return the first report that is wanted, waiting for it."""
        async with asyncio.timeout(timeout_s):
            while True:
                for entry in self.seen:
                    if found(entry):
                        return entry
                self._news.clear()
                await self._news.wait()

    async def end(self, batch: int, timeout_s: float = 10.0) -> tuple[Any, ...]:
        """Return how a batch ended."""
        return await self.wait(
            lambda e: e[0] in ("done", "stream_done", "failed", "busy") and e[1] == batch, timeout_s
        )


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(50):
            await test()

    asyncio.run(bounded())
