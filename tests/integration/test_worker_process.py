"""Worker processes under bad fortune: killed, stopped, hung, orphaned, from another release."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from test_handles import LOUD, python, started, text

import models
from semaforo.entities import ReplicaSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.live.handles import HandleFactory
from semaforo.wire.payload import Chat, Tensors
from sinks import Recorder, run

MODEL = "python_models:everything"


def gone(pid: int) -> bool:
    """Tell whether a process has ended and was reaped."""
    return not psutil.pid_exists(pid)


async def until(true: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.02)


def test_a_worker_that_is_killed_is_lost_at_once_and_reaped() -> None:
    async def test() -> None:
        async with started(python(MODEL, "process")) as (handle, sink, begun):
            handle.run(1, [text("sleep 20")], 1)
            await asyncio.sleep(0.1)
            at = time.perf_counter()
            os.kill(begun.pid, signal.SIGKILL)
            _, replica, reason = await sink.wait(lambda e: e[0] == "lost")
            assert time.perf_counter() - at < 4, "sooner than any ping could tell"
            assert (replica, reason) == ("r-1", "its worker was killed by signal 9")
            await until(lambda: gone(begun.pid))
        assert [entry[0] for entry in sink.seen] == ["lost"], "told once, and nothing else"

    run(test)


@pytest.mark.parametrize(
    ("word", "reason"), [("die now", "killed by signal 9"), ("exit 3", "exited with status 3")]
)
def test_a_model_that_ends_its_process_takes_only_that_along(word: str, reason: str) -> None:
    async def test() -> None:
        async with started(python(MODEL, "process")) as (handle, sink, _):
            handle.run(1, [text("hello")], 1)
            assert (await sink.end(1))[0] == "done"
            handle.run(2, [text(word)], 1)
            assert reason in (await sink.wait(lambda e: e[0] == "lost", 3.0))[2]

    run(test)


def test_a_worker_that_is_stopped_is_found_by_its_pings() -> None:
    async def test() -> None:
        spec = python(MODEL, "process", worker_ping_s=0.1, worker_hang_s=30)
        async with started(spec) as (handle, sink, begun):
            handle.run(1, [text("sleep 20")], 1)
            await asyncio.sleep(0.25)
            os.kill(begun.pid, signal.SIGSTOP)
            _, _, reason = await sink.wait(lambda e: e[0] == "lost", 2.0)
            assert "hung: its worker answered none of the last 2 pings" in reason
            await until(lambda: gone(begun.pid))
        async with started(spec) as (handle, sink, begun):
            os.kill(begun.pid, signal.SIGSTOP)
            await sink.wait(lambda e: e[0] == "lost", 3.0)

    run(test)


def test_a_model_that_hangs_is_found_by_its_progress_and_a_slow_one_is_left_alone() -> None:
    async def test() -> None:
        spec = python(MODEL, "process", worker_ping_s=0.1, worker_hang_s=0.6)
        async with started(spec) as (handle, sink, begun):
            handle.run(1, [text("sleep 0.4")], 1)
            assert (await sink.end(1))[0] == "done"
            handle.run(2, [text("sleep 20")], 1)
            _, _, reason = await sink.wait(lambda e: e[0] == "lost", 3.0)
            assert "hung: batch 2 made no progress" in reason
            await until(lambda: gone(begun.pid))

    run(test)


def test_stopping_lets_a_batch_end_and_leaves_nothing_behind() -> None:
    async def test() -> None:
        factory = HandleFactory()
        first = factory(python(MODEL, "process"), Recorder())
        await first.start()
        await first.stop(5.0)
        await asyncio.sleep(0.05)
        # What other tests have left is given back now, not while this one counts.
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        sink = Recorder()
        handle = factory(python(MODEL, "process"), sink)
        begun = await handle.start()
        handle.run(1, [text("sleep 0.3")], 1)
        await handle.stop(5.0)
        assert (await sink.end(1))[0] == "done"
        assert gone(begun.pid)
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) == before
        assert not any(entry[0] == "lost" for entry in sink.seen)
        handle.run(2, [text("x")], 1)
        await handle.stop(1.0)

    run(test)


def test_stopping_by_force_does_not_wait_for_the_model() -> None:
    async def test() -> None:
        sink = Recorder()
        handle = HandleFactory()(python(MODEL, "process"), sink)
        begun = await handle.start()
        handle.run(1, [text("sleep 20")], 1)
        await asyncio.sleep(0.1)
        at = time.perf_counter()
        await handle.stop(0.2)
        assert time.perf_counter() - at < 2
        assert gone(begun.pid)

    run(test)


def test_a_start_that_is_cancelled_or_too_long_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(30)\ndef f(text): ...\n")

    async def test() -> None:
        spec = python(f"{tmp_path / 'slow.py'}:f", "process")
        handle = HandleFactory()(spec, Recorder())
        starting = asyncio.ensure_future(handle.start())
        children = psutil.Process().children
        await until(children)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: not children())
        limited = python(f"{tmp_path / 'slow.py'}:f", "process", worker_start_s=0.5)
        with pytest.raises(RuntimeLoadError, match=r"was not loaded within 0\.5 s"):
            await HandleFactory()(limited, Recorder()).start()
        assert not children()

    run(test)


def test_a_worker_that_dies_while_loading_says_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("import os\nprint('out of luck')\nos._exit(7)\n")

    async def test() -> None:
        handle = HandleFactory()(python(f"{tmp_path / 'dies.py'}:f", "process"), Recorder())
        with pytest.raises(RuntimeLoadError, match=r"exited with status 7; its last lines: out of luck"):
            await handle.start()

    run(test)


def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        spec = ReplicaSpec("r-1", "v", "python", MODEL, "process", python="/no/such/python", outputs=(LOUD,))
        with pytest.raises(RuntimeLoadError, match="a worker cannot be started with '/no/such/python'"):
            await HandleFactory()(spec, Recorder()).start()
        empty = tmp_path / "python"
        empty.write_text(f"#!/bin/sh\nexec {sys.executable} -S -E -c 'import semaforo'\n")
        empty.chmod(0o755)
        spec = ReplicaSpec("r-1", "v", "python", MODEL, "process", python=str(empty))
        with pytest.raises(RuntimeLoadError, match="No module named 'semaforo'"):
            await HandleFactory()(spec, Recorder()).start()

    run(test)


def test_a_worker_that_speaks_another_version_is_named(tmp_path: Path) -> None:
    other = tmp_path / "python"
    code = (
        "import sys, runpy, semaforo.wire.frames as f; f.VERSION = 9; "
        "sys.argv = sys.argv[2:]; runpy.run_module('semaforo.worker', run_name='__main__')"
    )
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    other.chmod(0o755)

    async def test() -> None:
        spec = ReplicaSpec("r-1", "v", "python", MODEL, "process", python=str(other))
        with pytest.raises(
            Exception, match="speaks frames of version 9, this side 2: install the same release"
        ):
            await HandleFactory()(spec, Recorder()).start()

    run(test)


def test_what_a_model_prints_goes_to_the_log_with_its_replica(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with started(python(MODEL, "process")) as (handle, sink, _):
            handle.run(1, [text("print hello from the model")], 1)
            await sink.end(1)
            await until(lambda: caplog.text.count("r-1: hello from the model") == 2)

    with caplog.at_level(logging.INFO, logger="semaforo.replica"):
        run(test)


def test_workers_die_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "gateway.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, sys
            from sinks import Recorder
            from test_handles import python, text
            from semaforo.live.handles import HandleFactory

            async def main():
                spec = python("python_models:everything", "process")
                handles = [HandleFactory()(spec, Recorder()) for _ in range(2)]
                for handle in handles:
                    print((await handle.start()).pid, flush=True)
                handles[0].run(1, [text("sleep 30")], 1)
                await asyncio.sleep(30)

            asyncio.run(main())
            """
        )
    )
    path = os.pathsep.join(p for p in sys.path if p)
    gateway = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert gateway.stdout is not None
        pids = [int(gateway.stdout.readline()) for _ in range(2)]
        assert all(psutil.pid_exists(pid) for pid in pids)
    finally:
        gateway.kill()
        gateway.communicate()
    until_at = time.monotonic() + 5
    alive = set(pids)
    while alive and time.monotonic() < until_at:
        alive = {
            p for p in alive if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE
        }
        time.sleep(0.02)
    assert not alive


def test_large_tensors_go_there_and_back(tmp_path: Path) -> None:
    async def test() -> None:
        path = models.linear(tmp_path / "a.onnx", inputs=300_000, outputs=1)
        spec = ReplicaSpec("r-1", "v", "onnx", str(path), "process", max_rows=2)
        async with started(spec) as (handle, sink, _):
            x = np.ones((2, 300_000), "f4")
            handle.run(1, [Tensors({"x": x}), Tensors({"x": x[:1]})], 3)
            _, _, (two, one), _ = await sink.end(1)
            np.testing.assert_allclose(two.arrays["y"][0], one.arrays["y"][0], rtol=1e-3)

    run(test)


def test_what_cannot_be_sent_fails_alone() -> None:
    async def test() -> None:
        async with started(python("python_models:shout", "process")) as (handle, sink, _):
            odd, good = text(3), text("a")
            handle.run(1, [good, odd, good], 3)
            _, _, results, _ = await sink.end(1)
            assert [type(r) for r in results] == [Tensors, InvalidRequest, Tensors]
            assert "a BYTES tensor holds a int" in results[1].message
            handle.run(2, [odd], 1)
            assert isinstance((await sink.end(2))[2][0], InvalidRequest)
        async with started(python("python_models:tokens", "process", ())) as (handle, sink, _):
            handle.run(3, [Chat({"messages": [object()]})], 1)
            assert (await sink.end(3))[2].kind == "invalid"

    run(test)


def test_an_idle_worker_is_asked_rarely() -> None:
    async def test() -> None:
        async with started(python(MODEL, "process")) as (_, _, begun):
            await asyncio.sleep(0.2)
            worker = psutil.Process(begun.pid)
            before, here = sum(worker.cpu_times()[:2]), time.process_time()
            await asyncio.sleep(1.5)
            assert sum(worker.cpu_times()[:2]) - before <= 0.02
            assert time.process_time() - here < 0.05

    run(test)


def test_a_worker_needs_only_runtimes_the_wire_and_entities() -> None:
    code = (
        "import sys, semaforo.worker.process, semaforo.worker.streams\n"
        "print(*sorted({name.split('.')[1] for name in sys.modules if name.startswith('semaforo.')}))\n"
        "print(*[name for name in ('onnxruntime', 'httpx', 'uvicorn', 'yaml') if name in sys.modules])\n"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "entities errors plugins runtime wire worker\n\n"


def test_a_worker_whose_gateway_is_gone_ends_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = os.pathsep.join(p for p in sys.path if p)
    worker = subprocess.run(
        [sys.executable, "-m", "semaforo.worker", "--data", "0", "--control", "0", "--parent", str(ended.pid)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (worker.returncode, worker.stderr) == (1, "the gateway that started this worker is gone\n")
