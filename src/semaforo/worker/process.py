"""The life of a worker process: say hello, load, warm up, serve, end.

It has two sockets from its gateway. Batches travel on *data*, which the thread that runs them reads itself;
pings and cancellations travel on *control*, which a second thread serves (`semaforo.worker.control`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import Sequence

import semaforo
from semaforo.entities import ReplicaSpec
from semaforo.errors import ProtocolError, SemaforoError
from semaforo.runtime.host import Hosted, load, warm, warm_awaited
from semaforo.wire.messages import Hello, Load, Loaded, LoadFailed
from semaforo.worker.arena import Window
from semaforo.worker.batches import serve_batches
from semaforo.worker.control import Control, Progress
from semaforo.worker.link import BlockingLink
from semaforo.worker.options import WorkerOptions, worker_options
from semaforo.worker.parent import die_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker; returns its exit status."""
    parser = argparse.ArgumentParser(
        "semaforo.worker", description="Hosts one replica; started by a gateway."
    )
    parser.add_argument("--data", type=int, required=True, help="file descriptor of the data socket")
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the control socket")
    parser.add_argument("--parent", type=int, required=True, help="process id of the gateway")
    parser.add_argument("--memory", type=int, default=-1, help="file descriptor of shared memory, -1 = none")
    given = parser.parse_args(arguments)
    die_with(given.parent)
    # Ctrl-C in a terminal reaches every process; the gateway decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return _serve(_socket(given.data), _socket(given.control), given.memory)


def _socket(descriptor: int) -> socket.socket:
    # What a model starts must not hold the sockets open after this process.
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _serve(data: socket.socket, control_socket: socket.socket, memory: int) -> int:
    window = Window(memory) if memory >= 0 else None
    link = BlockingLink(data, window)
    progress = Progress()
    control = Control(BlockingLink(control_socket), progress)
    control.start()
    link.send(Hello(semaforo.__version__, platform.python_version(), os.getpid()))
    spec = _await_load(link)
    if spec is None:
        return 0
    with asyncio.Runner() as runner:
        try:
            options = worker_options(spec)
            hosted = load(spec)
            if hosted.executor is not None:
                warm(spec, hosted)
            else:
                runner.run(warm_awaited(spec, hosted))
        except SemaforoError as error:
            link.send(LoadFailed(error.code, error.message))
            return 1
        with contextlib.suppress(BrokenPipeError):
            link.send(
                Loaded(
                    hosted.profile,
                    hosted.signature,
                    max(hosted.memory_bytes, _resident()),
                    hosted.slots,
                    shares=window is not None and hosted.executor is not None,
                )
            )
            _run(link, data, hosted, control, progress, options, runner, window)
        hosted.close()
    return 0


def _await_load(link: BlockingLink) -> ReplicaSpec | None:
    for message in link.messages():
        if not isinstance(message, Load):
            raise ProtocolError(f"a worker waits for a Load, not for a {type(message).__name__}")
        return message.spec
    return None


def _run(
    link: BlockingLink,
    data: socket.socket,
    hosted: Hosted,
    control: Control,
    progress: Progress,
    options: WorkerOptions,
    runner: asyncio.Runner,
    window: Window | None,
) -> None:
    if hosted.executor is not None:
        serve_batches(link, hosted.executor, control, progress, window)
        return
    from semaforo.worker.streams import serve_streams

    runner.run(serve_streams(data, hosted, control, progress, options.stall_s))


def _resident() -> int:
    """Return the bytes this process holds in memory; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
