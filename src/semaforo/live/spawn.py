"""Starting a worker process: its two sockets, its environment, its output and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import semaforo

log = logging.getLogger("semaforo.replica")

_LINE_BYTES = 8192
_TAIL_LINES = 12


class WorkerProcess(asyncio.SubprocessProtocol):
    """A worker as the loop sees it: what it writes goes to the log, its end is told.

    Args:
        replica: Id that stands before each of its lines.
        on_exit: Called once, when it has ended.
    """

    def __init__(self, replica: str, on_exit: Callable[[], None]) -> None:
        self._replica = replica
        self._on_exit = on_exit
        self._partial: dict[int, bytes] = {}
        self._transport: asyncio.SubprocessTransport | None = None
        self._pidfd = -1
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.exited = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id; 0 before it runs."""
        return (self._transport.get_pid() if self._transport else 0) or 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        if sys.platform == "linux":
            # It stands for this very process, even after its number was given to another one.
            with contextlib.suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(self.pid)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Log whole lines (asyncio)."""
        lines = (self._partial.pop(fd, b"") + data).split(b"\n")
        rest = lines.pop()
        if len(rest) > _LINE_BYTES:
            lines.append(rest)
            rest = b""
        self._partial[fd] = rest
        for line in lines:
            self._log(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Log what is left of a line (asyncio)."""
        self._log(self._partial.pop(fd, b""))

    def process_exited(self) -> None:
        """Tell its end (asyncio)."""
        self.exited.set()
        self._on_exit()

    def how(self) -> str:
        """Say how it ended, as what follows its name."""
        code = self._transport.get_returncode() if self._transport else None
        if code is None:
            return "closed its sockets"
        if code < 0:
            return f"was killed by signal {-code}"
        return f"exited with status {code}"

    def kill(self) -> None:
        """End it by force; nothing happens where it has ended."""
        if self._transport is None or self.exited.is_set():
            return
        # Not by the transport, which would reap the process and lose its exit status.
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "linux":
                if self._pidfd >= 0:
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close its pipes."""
        if self._transport is not None:
            self._transport.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _log(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode(errors="replace").rstrip()
        if text:
            self.tail.append(text)
            log.info("%s: %s", self._replica, text)


async def spawn(
    replica: str, interpreter: str, on_exit: Callable[[], None], memory: int = -1
) -> tuple[WorkerProcess, socket.socket, socket.socket]:
    """Start a worker and return it with this side's data and control sockets.

    Args:
        replica: Id of its replica.
        interpreter: Python that runs it, "" = this one.
        on_exit: Called once, when it has ended.
        memory: Descriptor of shared memory, -1 = none.

    Raises:
        OSError: The interpreter cannot be started.
    """
    loop = asyncio.get_running_loop()
    data, data_there = socket.socketpair()
    control, control_there = socket.socketpair()
    worker = WorkerProcess(replica, on_exit)
    try:
        with data_there, control_there:
            await loop.subprocess_exec(
                lambda: worker,
                interpreter or sys.executable, "-m", "semaforo.worker",
                "--data", str(data_there.fileno()),
                "--control", str(control_there.fileno()),
                "--parent", str(os.getpid()), "--memory", str(memory),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(data_there.fileno(), control_there.fileno(), *((memory,) if memory >= 0 else ())),
                env=_environment(interpreter),
            )  # fmt: skip
    except BaseException:
        data.close()
        control.close()
        raise
    data.setblocking(False)
    control.setblocking(False)
    return worker, data, control


def stopped(pid: int) -> bool:
    """Tell whether a process was stopped by a signal; False where the machine does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in "Tt"


def _environment(interpreter: str) -> dict[str, str]:
    """Return this environment, with the path on which a worker finds the package and the models."""
    home = Path(semaforo.__file__).resolve().parent.parent
    if not interpreter:
        # What can be imported here can be imported there.
        first = [path or os.getcwd() for path in sys.path]
    elif home.name in ("site-packages", "dist-packages"):
        # Another interpreter has its own; these would shadow them.
        first = []
    else:
        first = [str(home)]
    path = [*first, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(entry for entry in path if entry))
    return environment
