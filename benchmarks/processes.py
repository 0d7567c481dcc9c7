"""Servers under test as processes of their own: started, pinned, weighed and stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil

from benchmarks.report import ROOT

START_S = 90.0
STOP_S = 15.0


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment for child processes: they find this repository's modules and use one thread."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "OMP_NUM_THREADS": "1",
        **(extra or {}),
    }


class Server:
    """A process that serves HTTP on a loopback port; use it with ``with``.

    Attributes:
        port: Its port.
        log: What it wrote, for when it fails.
    """

    def __init__(
        self, command: Sequence[str], port: int, ready: str, folder: Path, extra: dict[str, str] | None = None
    ) -> None:
        self.port = port
        self._command = list(command)
        self._ready = ready
        self.log = folder / f"server-{port}.log"
        self._extra = extra

    @classmethod
    def semaforo(cls, fleet: Path, extra: dict[str, str] | None = None) -> Self:
        """Return the server of a fleet file, started by the command that users type."""
        port = free_port()
        command = [
            sys.executable, "-m", "semaforo", "serve", str(fleet), "--http-port", str(port),
            "--log-level", "warning",
        ]  # fmt: skip
        return cls(command, port, "/v2/health/ready", fleet.parent, extra)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=log, stderr=log, env=environment(self._extra)
            )
        self.root = psutil.Process(self._process.pid)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command} ended with {self._process.returncode}:\n{self.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(self._ready)[0] == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self._command} was not ready within {START_S:.0f} s:\n{self.tail()}")

    def tail(self) -> str:
        """Return the end of what it wrote."""
        return self.log.read_text(errors="replace")[-2000:]

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask it something."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get_json(self, path: str) -> Any:
        """Ask it something that it answers with JSON."""
        status, body = self.get(path)
        if status != 200:
            raise RuntimeError(f"GET {path}: {status} {body[:200]!r}")
        return msgspec.json.decode(body)

    def workers(self) -> list[psutil.Process]:
        """Return the processes it has started that still run."""
        with contextlib.suppress(psutil.Error):
            return list(self.root.children(recursive=True))
        return []

    def cpu_s(self) -> float:
        """Return the CPU seconds, user and system, of the whole tree, ended children included."""
        total = 0.0
        for process in (self.root, *self.workers()):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def rss_mb(self) -> float:
        """Return the resident memory of the serving process itself, in MB."""
        return float(self.root.memory_info().rss) / 1e6

    def tree_mb(self) -> float:
        """Return the resident memory of the server and its workers, in MB."""
        return self.rss_mb() + sum(float(worker.memory_info().rss) for worker in self.workers()) / 1e6

    def pin(self, own: Sequence[int], workers: Sequence[int]) -> None:
        """Keep the serving process on some cores and its workers on others."""
        pin(self.root.pid, own)
        for worker in self.workers():
            pin(worker.pid, workers)

    def stop(self) -> None:
        """Stop it and everything it has started."""
        workers = self.workers()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                worker.kill()
        psutil.wait_procs(workers, timeout=3)


def pin(pid: int, cores: Sequence[int]) -> None:
    """Keep every thread of a process on these cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task.name), set(cores))


def two_sides() -> tuple[list[int], list[int]] | None:
    """Return a core for serving and asking and one for the models, or None where there is one core only."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    return cores[:1], cores[1:2]


@contextlib.contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Keep this process, and the children it starts meanwhile, on these cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
