"""Generators in processes of their own, so that neither who watches nor another generator makes them late.

What goes over the pipe of each: the load; then ``ready`` or an error; then the moment to begin; then progress,
twice in a while; then the outcome. ``end`` from the parent ends the sending, ``stop`` the waiting for answers too.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import msgspec
import uvloop

from semaforo.errors import SemaforoError, error_from
from semaforo.traffic.generator import Generator
from semaforo.traffic.load import Load
from semaforo.traffic.outcome import Outcome, joined

_PROGRESS_S = 0.1
_HEAD_START_S = 0.05
_START_S = 30.0
_SPARE_S = 30.0
_SWITCH_S = 0.0005


class Progress(msgspec.Struct, frozen=True):
    """How far a run is.

    Attributes:
        taken, ended, bad: Requests that were due so far, have ended, and have ended badly.
    """

    taken: int = 0
    ended: int = 0
    bad: int = 0


def generate(load: Load, processes: int = 1, watch: Callable[[Progress], None] | None = None) -> Outcome:
    """Run a load and return what became of it; Ctrl-C ends it early, a second one at once.

    Args:
        load: What is sent.
        processes: Generators that share it.
        watch: Called some times a second.

    Raises:
        NotReady: The server cannot be reached.
        SemaforoError: A generator died.
    """
    context = multiprocessing.get_context("spawn")
    children: list[tuple[BaseProcess, Connection]] = []
    with _interrupts() as interrupts:
        try:
            for part in load.parts(processes):
                ours, theirs = context.Pipe()
                child: BaseProcess = context.Process(target=_child, args=(theirs,), daemon=True)
                child.start()
                theirs.close()
                children.append((child, ours))
                ours.send(part)
            for child, pipe in children:
                _hear(child, pipe, _START_S)
            at = time.monotonic() + _HEAD_START_S
            for _, pipe in children:
                pipe.send(at)
            return _collect(load, children, interrupts, watch)
        finally:
            for child, pipe in children:
                pipe.close()
                child.join(1.0)
                if child.is_alive():
                    child.kill()
                    child.join()


def _collect(
    load: Load,
    children: Sequence[tuple[BaseProcess, Connection]],
    interrupts: list[int],
    watch: Callable[[Progress], None] | None,
) -> Outcome:
    pipes = {pipe: child for child, pipe in children}
    latest = dict.fromkeys(pipes, Progress())
    outcomes: list[Outcome] = []
    told = 0
    until = time.monotonic() + load.seconds + load.wait_s + _SPARE_S
    while pipes:
        while told < len(interrupts):
            told += 1
            for pipe in pipes:
                pipe.send("end" if told == 1 else "stop")
        told_by = wait(list(pipes), _PROGRESS_S)
        for pipe in [pipe for pipe in pipes if pipe in told_by]:
            said = _hear(pipes[pipe], pipe, 0.0)
            if isinstance(said, Outcome):
                outcomes.append(said)
                del pipes[pipe]
            else:
                latest[pipe] = said
        if watch is not None:
            found = latest.values()
            watch(
                Progress(sum(p.taken for p in found), sum(p.ended for p in found), sum(p.bad for p in found))
            )
        if time.monotonic() > until:
            raise SemaforoError(
                "a generator did not end in time: the machine is overloaded, or it was suspended"
            )
    return joined(outcomes)


def _hear(child: BaseProcess, pipe: Connection, timeout_s: float) -> Any:
    try:
        if timeout_s and not pipe.poll(timeout_s):
            raise SemaforoError(f"a generator did not start within {timeout_s:.0f} s")
        said = pipe.recv()
    except (EOFError, OSError):
        child.join(5.0)
        raise SemaforoError(f"a generator died (exit code {child.exitcode})") from None
    if isinstance(said, tuple):
        raise error_from(*said)
    return said


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C instead of raising it; where this is not the main thread, nothing comes."""
    heard: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    except ValueError:
        yield heard
        return
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


def _child(pipe: Connection) -> None:
    # Ctrl-C reaches the whole group; the parent says what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        load: Load = pipe.recv()
        if load.cores:
            os.sched_setaffinity(0, load.cores)
        outcome = uvloop.run(_run(load, pipe))
        pipe.send(outcome)
    except SemaforoError as error:
        pipe.send((error.code, error.message))
    except (asyncio.CancelledError, EOFError, BrokenPipeError, ConnectionResetError):
        # The parent is gone, and with it whoever wants to know.
        return


async def _run(load: Load, pipe: Connection) -> Outcome:
    generator = Generator(load)
    await generator.connect()
    pipe.send("ready")
    loop = asyncio.get_running_loop()
    at: asyncio.Future[float] = loop.create_future()

    def hear() -> None:
        try:
            said = pipe.recv()
        except (EOFError, ConnectionResetError):
            loop.remove_reader(pipe.fileno())
            running.cancel()
            return
        if isinstance(said, float):
            at.set_result(said)
        elif said == "end":
            generator.end()
        else:
            generator.stop()

    running = loop.create_task(_when(generator, at))
    # Let the pacer have the interpreter soon after it wakes.
    sys.setswitchinterval(_SWITCH_S)
    loop.add_reader(pipe.fileno(), hear)
    # The loop made it non-blocking; an outcome is larger than what a socket takes at once.
    os.set_blocking(pipe.fileno(), True)
    telling = loop.create_task(_tell(generator, pipe))
    try:
        return await running
    finally:
        loop.remove_reader(pipe.fileno())
        telling.cancel()


async def _when(generator: Generator, at: asyncio.Future[float]) -> Outcome:
    return await generator.run(await at)


async def _tell(generator: Generator, pipe: Connection) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        pipe.send(Progress(generator.taken, generator.ended, generator.bad))
