"""Handles of every kind against real models: the same contract wherever a replica lives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from semaforo.entities import BatchProfile, ReplicaSpec
from semaforo.errors import InvalidRequest, ModelFailed, RuntimeLoadError
from semaforo.live.handle import Handle, Started
from semaforo.live.handles import HandleFactory
from semaforo.runtime.python_source import register, unregister
from semaforo.wire.payload import Chat, Tensors
from sinks import Recorder, run

TEXT = {"name": "text", "dtype": "BYTES"}
LOUD = {"name": "loud", "dtype": "BYTES"}


def text(*cells: Any, **fields: Any) -> Tensors:
    return Tensors({"text": np.array(cells, dtype=object)}, **fields)


def python(source: str, isolation: Any = "auto", outputs: Any = (LOUD,), **options: Any) -> ReplicaSpec:
    inputs = (TEXT,) if outputs else ()
    options = {name.replace("worker_", "worker."): value for name, value in options.items()}
    return ReplicaSpec(
        "r-1",
        "m/1/x",
        "python",
        source,
        isolation,
        options=options,
        inputs=inputs,
        outputs=outputs,
        max_rows=4,
    )


def onnx(path: Path, isolation: Any = "auto", **fields: Any) -> ReplicaSpec:
    return ReplicaSpec("r-1", "m/1/x", "onnx", str(path), isolation, **fields)


@asynccontextmanager
async def started(spec: ReplicaSpec) -> AsyncIterator[tuple[Handle, Recorder, Started]]:
    sink = Recorder()
    handle = HandleFactory()(spec, sink)
    try:
        yield handle, sink, await handle.start()
    finally:
        await handle.stop(5.0)


@pytest.mark.parametrize("isolation", ["inline", "thread", "process"])
def test_a_batch_comes_back_the_same_from_everywhere(isolation: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with started(onnx(models.linear(tmp_path / "a.onnx"), isolation)) as (handle, sink, begun):
            assert begun.isolation == isolation
            assert isinstance(begun.profile, BatchProfile)
            assert begun.signature is not None
            assert begun.signature.inputs[0].name == "x"
            assert begun.memory_bytes > 0
            rng = np.random.default_rng(1)
            members = [Tensors({"x": rng.standard_normal((n, 64)).astype("f4")}) for n in (1, 3, 2)]
            handle.run(1, members, 6)
            assert sink.seen == [], "run must not enter the sink"
            _, _, results, service_s = await sink.end(1)
            assert 0 < service_s < 5
            w = np.random.default_rng(3).standard_normal((64, 10)).astype("f4")
            for member, result in zip(members, results, strict=True):
                np.testing.assert_allclose(result.arrays["y"], member.arrays["x"] @ w, rtol=1e-4, atol=1e-4)

    run(test)


@pytest.mark.parametrize("isolation", ["inline", "thread", "process"])
def test_a_poison_member_fails_alone_everywhere(isolation: str) -> None:
    async def test() -> None:
        async with started(python("python_models:shout", isolation)) as (handle, sink, _):
            handle.run(1, [text("a"), text("poison"), text("bad"), text("b", b"c")], 5)
            _, _, results, _ = await sink.end(1)
            assert results[0].arrays["loud"].tolist() == ["A"]
            assert isinstance(results[1], ModelFailed)
            assert isinstance(results[2], InvalidRequest)
            assert results[3].arrays["loud"].tolist() == ["B", "C"]
            handle.run(2, [text("poison")], 1)
            _, _, event = await sink.end(2)
            assert (event.kind, event.message) == (
                "error",
                "the model raised ValueError: cannot shout poison",
            )

    run(test)


@pytest.mark.parametrize("isolation", ["inline", "thread", "process"])
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (python("python_models:shoot"), r"has no 'shoot'\. Did you mean 'shout'"),
        (
            python("python_models:shout", outputs=(LOUD,), worker_pings=1),
            r"options\.worker\.pings: unknown option",
        ),
        (python("python_models:wrong_rows"), "warming up: the model returned 1 rows"),
        (onnx(Path("/no/such.onnx")), "no such file"),
    ],
)
def test_what_cannot_be_loaded_is_told(isolation: str, spec: ReplicaSpec, words: str) -> None:
    async def test() -> None:
        import msgspec

        sink = Recorder()
        handle = HandleFactory()(msgspec.structs.replace(spec, isolation=isolation), sink)
        with pytest.raises(RuntimeLoadError, match=words):
            await handle.start()
        await handle.stop(1.0)
        assert sink.seen == []

    run(test)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_awaited_models_run_several_batches_at_once(isolation: str) -> None:
    async def test() -> None:
        spec = python("python_models:length_later", isolation, ({"name": "n", "dtype": "INT32"},))
        async with started(spec) as (handle, sink, begun):
            assert begun.slots == 8
            begun_at = time.perf_counter()
            for batch in range(6):
                handle.run(batch, [text("a" * batch, parameters={"sleep": 0.3})], 1)
            handle.cancel(3)
            for batch in range(6):
                entry = await sink.end(batch)
                if batch == 3:
                    assert entry[2].kind == "cancelled"
                else:
                    assert entry[2][0].arrays["n"].tolist() == [batch]
            assert time.perf_counter() - begun_at < 1.2

    run(test)


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("source", ["python_models:tokens", "python_models:slow_tokens"])
def test_chats_stream(isolation: str, source: str) -> None:
    async def test() -> None:
        async with started(python(source, isolation, ())) as (handle, sink, begun):
            assert begun.profile is None
            assert begun.signature is None
            handle.run(1, [Chat({"messages": [{"role": "user", "content": "one two three"}]})], 1)
            assert await sink.end(1) == ("stream_done", 1, 0, 3)
            words = [entry[2].delta.get("content", "").strip() for entry in sink.seen if entry[0] == "chunk"]
            assert words == ["one", "two", "three", ""]

    run(test)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_streams_fail_refuse_and_stop(isolation: str) -> None:
    async def test() -> None:
        async with started(python("python_models:slow_tokens", isolation, ())) as (handle, sink, _):
            handle.run(1, [Chat({"messages": [{"content": "full"}]})], 1)
            assert await sink.end(1) == ("busy", 1, 3.0)
            handle.run(2, [Chat({"prompt": "x"})], 1)
            _, _, event = await sink.end(2)
            assert (event.kind, event.message) == (
                "invalid", "the model needs the field 'messages', which the request lacks",
            )  # fmt: skip
            handle.run(3, [Chat({"messages": [{"content": "word " * 500}], "delay": 0.02})], 1)
            await sink.wait(lambda e: e[0] == "chunk" and e[1] == 3)
            handle.cancel(3)
            _, _, event = await sink.end(3)
            assert event.kind == "cancelled"
            handle.run(4, [text("x")], 1)
            assert (await sink.end(4))[2].kind == "invalid"
        async with started(python("python_models:tokens", isolation, ())) as (handle, sink, _):
            handle.run(5, [Chat({"messages": [{"content": "one raise"}]})], 1)
            _, _, event = await sink.end(5)
            assert (event.kind, event.message) == ("error", "the model raised ValueError: asked to")

    run(test)


def test_a_stream_that_stalls_is_ended() -> None:
    async def test() -> None:
        spec = python("python_models:slow_tokens", "process", (), worker_stall_s=0.2)
        async with started(spec) as (handle, sink, _):
            handle.run(1, [Chat({"messages": [{"content": "a b"}], "delay": 30})], 1)
            _, _, event = await sink.end(1, 5.0)
            assert (event.kind, event.message) == ("error", "the model gave nothing for 0.2 s")

    run(test)


def test_what_waits_can_be_cancelled(tmp_path: Path) -> None:
    async def test() -> None:
        async with started(onnx(models.linear(tmp_path / "a.onnx"), "inline")) as (handle, sink, _):
            member = Tensors({"x": np.zeros((1, 64), "f4")})
            handle.run(1, [member], 1)
            handle.run(2, [member], 1)
            handle.cancel(2)
            assert (await sink.end(1))[0] == "done"
            assert (await sink.end(2))[2].kind == "cancelled"
        for isolation in ("thread", "process"):
            async with started(python("python_models:everything", isolation)) as (handle, sink, _):
                begun = tmp_path / isolation
                handle.run(1, [text(f"touch {begun}", "sleep 0.3")], 2)
                handle.run(2, [text("x")], 1)
                async with asyncio.timeout(10):
                    while not begun.exists():
                        await asyncio.sleep(0.005)
                handle.cancel(2)
                handle.cancel(1)
                assert (await sink.end(1))[0] == "done", "a batch that blocks runs to its end"
                assert (await sink.end(2))[2].kind == "cancelled"

    run(test)


def test_a_registered_callable_runs_in_a_thread_of_this_process() -> None:
    seen: list[str] = []

    def name(text: list[str]) -> list[str]:
        seen.append(threading.current_thread().name)
        return text

    async def test() -> None:
        async with started(python(register("thread-name", name))) as (handle, sink, begun):
            assert begun.isolation == "thread"
            handle.run(1, [text("x")], 1)
            await sink.end(1)
            assert set(seen) == {"semaforo-r-1"}
        async with asyncio.timeout(5):
            while "semaforo-r-1" in {t.name for t in threading.enumerate()}:
                await asyncio.sleep(0.01)

    try:
        run(test)
    finally:
        unregister("registered:thread-name")


def test_a_thread_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def hang(text: list[str]) -> list[str]:
        if text[0] == "hang":
            release.wait(20)
        return text

    async def test() -> None:
        async with started(python(register("hang", hang), worker_hang_s=0.3)) as (handle, sink, _):
            handle.run(1, [text("hang")], 1)
            _, replica, reason = await sink.wait(lambda e: e[0] == "lost", 3.0)
            assert replica == "r-1"
            assert "hung: batch 1 made no progress" in reason
            release.set()
            await asyncio.sleep(0.1)
            assert [entry[0] for entry in sink.seen] == ["lost"], "a late answer is dropped"

    try:
        run(test)
    finally:
        release.set()
        unregister("registered:hang")


def test_auto_measures_onnx_and_puts_only_short_models_on_the_loop(tmp_path: Path) -> None:
    async def test() -> None:
        factory = HandleFactory()
        for path, isolation in (
            (models.linear(tmp_path / "short.onnx"), "inline"),
            (models.heavy(tmp_path / "long.onnx", layers=40), "process"),
            (models.heavy(tmp_path / "long.onnx", layers=40), "process"),
        ):
            sink = Recorder()
            handle = factory(onnx(path), sink)
            begun = await handle.start()
            assert begun.isolation == isolation
            assert isinstance(begun.profile, BatchProfile)
            if isolation == "inline":
                assert 1 <= begun.max_rows <= 64
            handle.run(1, [Tensors({"x": np.zeros((1, 64), "f4")})], 1)
            assert (await sink.end(1))[0] == "done"
            await handle.stop(5.0)

    run(test)


def test_python_is_inline_only_where_asked(tmp_path: Path) -> None:
    async def test() -> None:
        async with started(python("python_models:shout")) as (_, _, begun):
            assert begun.isolation == "process"
        async with started(python("python_models:shout", "inline")) as (_, _, begun):
            assert begun.isolation == "inline"
        handle = HandleFactory()(python("python_models:slow_tokens", "inline", ()), Recorder())
        with pytest.raises(RuntimeLoadError, match="set isolation to thread or process"):
            await handle.start()

    run(test)


def test_inline_batches_leave_the_loop_to_others_in_between(tmp_path: Path) -> None:
    async def test() -> None:
        async with started(onnx(models.linear(tmp_path / "a.onnx"), "inline")) as (handle, sink, _):
            order: list[str] = []
            loop = asyncio.get_running_loop()
            member = Tensors({"x": np.zeros((1, 64), "f4")})
            handle.run(1, [member], 1)
            loop.call_soon(order.append, "between")
            handle.run(2, [member], 1)
            sink.batch_done = lambda batch, results, seconds: order.append(f"batch {batch}")  # type: ignore[method-assign]
            await asyncio.sleep(0.05)
            assert order == ["batch 1", "between", "batch 2"]

    run(test)
