"""Models behind urls, hosted on the loop: streams, limits, refusals and ends, against a real server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_handles import started

from semaforo.entities import ReplicaSpec
from semaforo.errors import RuntimeLoadError
from semaforo.live.handles import HandleFactory
from semaforo.live.replica_process import ProcessReplica
from semaforo.live.replica_remote import RemoteReplica
from semaforo.live.replica_thread import ThreadReplica
from semaforo.wire.payload import Chat
from sinks import Recorder, run
from upstream import Fault, Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(word_s=0.002) as server:
        yield server


def spec(upstream: Upstream, **options: object) -> ReplicaSpec:
    return ReplicaSpec(
        "big-1", "big/1/x", "openai", upstream.url, options={"model": "bigram", "slots": 3, **options}
    )


def chat(words: int = 8) -> Chat:
    return Chat({"messages": [{"role": "user", "content": "where does the train wait"}], "max_tokens": words})


def test_streams_share_the_loop(upstream: Upstream) -> None:
    async def test() -> None:
        async with started(spec(upstream)) as (handle, sink, begun):
            assert (begun.isolation, begun.slots, begun.pid) == ("remote", 3, os.getpid())
            assert begun.profile is None
            for batch in range(3):
                handle.run(batch, [chat()], 1)
            assert sink.seen == []
            for batch in range(3):
                name, _, prompt_tokens, output_tokens = await sink.end(batch)
                assert name == "stream_done"
                assert prompt_tokens > 0
                assert 0 < output_tokens <= 8
            words = {
                batch: "".join(
                    e[2].delta.get("content") or "" for e in sink.seen if e[:2] == ("chunk", batch)
                )
                for batch in range(3)
            }
            assert words[0]
            assert words[0] == words[1] == words[2], "one prompt, one answer"

    run(test)


@pytest.mark.parametrize("kind", [RemoteReplica, ThreadReplica, ProcessReplica])
def test_limits_and_refusals_are_told_from_wherever_it_is_driven(kind: Any, upstream: Upstream) -> None:
    async def test() -> None:
        sink = Recorder()
        handle = kind(spec(upstream), sink)
        try:
            assert (await handle.start()).slots == 3
            left = {"x-ratelimit-remaining-requests": "0", "retry-after": "2"}
            upstream.faults.append(Fault(status=429, headers=left))
            handle.run(1, [chat()], 1)
            assert await sink.end(1) == ("busy", 1, 2.0)
            _, _, limits = await sink.wait(lambda e: e[0] == "report")
            assert (limits.replica, limits.requests_left, limits.retry_after_s) == ("big-1", 0, 2.0)
            handle.run(2, [chat()], 1)
            assert (await sink.end(2))[0] == "stream_done"
        finally:
            await handle.stop(1.0)

    run(test)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault(status=500), "upstream"), (Fault("cut", after=2), "upstream"), (Fault(status=400), "invalid")],
)
def test_failures_are_told_by_kind(fault: Fault, kind: str, upstream: Upstream) -> None:
    async def test() -> None:
        async with started(spec(upstream)) as (handle, sink, _):
            upstream.faults.append(fault)
            handle.run(1, [chat()], 1)
            entry = await sink.end(1)
            assert (entry[0], entry[2].kind) == ("failed", kind)
            handle.run(2, [chat()], 1)
            assert (await sink.end(2))[0] == "stream_done"

    run(test)


def test_cancelling_and_stopping_close_the_streams(upstream: Upstream) -> None:
    async def test() -> None:
        upstream.word_s = 0.05
        sink = Recorder()
        handle = HandleFactory()(spec(upstream), sink)
        await handle.start()
        handle.run(1, [chat(200)], 1)
        handle.run(2, [chat(200)], 1)
        await sink.wait(lambda e: e[:2] == ("chunk", 1))
        await sink.wait(lambda e: e[:2] == ("chunk", 2))
        handle.cancel(1)
        handle.cancel(99)
        assert (await sink.end(1))[2].kind == "cancelled"
        at = time.perf_counter()
        await handle.stop(0.05)
        assert time.perf_counter() - at < 2
        assert (await sink.end(2))[2].kind == "cancelled"
        async with asyncio.timeout(5):
            while upstream.running:
                await asyncio.sleep(0.01)

    run(test)


def test_an_upstream_that_cannot_be_reached_is_named() -> None:
    async def test() -> None:
        nobody = ReplicaSpec("r", "v", "openai", "http://127.0.0.1:9/v1", options={"model": "m"})
        handle = HandleFactory()(nobody, Recorder())
        with pytest.raises(RuntimeLoadError, match="cannot be reached"):
            await handle.start()
        await handle.stop(0.0)

    run(test)
