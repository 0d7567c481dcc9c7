"""A load generator in a process of its own: HTTP over kept-alive connections, open or closed loop.

Rules this module keeps:

1. Open loop: when requests are sent is drawn before the run (Poisson) and owes nothing to the answers.
2. A latency counts from the scheduled moment, so a generator that is late makes the server look worse, never
   better; how late it was is kept for each request.
3. Every request ends: with a status, or 0 when its connection broke, or -1 when nothing came.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast

import httptools
import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.processes import environment
from benchmarks.report import ROOT

LINGER_S = 5.0
_WARM_CONNECTIONS = 32


class Kind(msgspec.Struct, frozen=True):
    """One kind of request: its share of the arrivals, and what is sent (`packed` where the body is no text)."""

    name: str
    share: float
    path: str
    body: str
    headers: dict[str, str] = {}
    packed: bytes = b""


class Load(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        port: Loopback port of the server.
        kinds: What is asked.
        seconds: For how long.
        rate: Requests per second of an open loop; 0 = closed loop.
        connections: Of a closed loop; the most of an open one.
        seed: Of the schedule.
        cores: Cores to stay on; empty = any.
    """

    port: int
    kinds: tuple[Kind, ...]
    seconds: float
    rate: float = 0.0
    connections: int = 1024
    seed: int = 0
    cores: tuple[int, ...] = ()


class Outcome(msgspec.Struct):
    """What happened, one entry a request, times in seconds since `began` (monotonic).

    Attributes:
        kind: Index of its kind.
        scheduled, sent, done: When it was due, sent, answered (NaN when never).
        status: HTTP status; 0 = the connection broke, -1 = no answer.
    """

    began: float
    seconds: float
    kind: NDArray[np.int8]
    scheduled: NDArray[np.float64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    status: NDArray[np.int16]

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds from the scheduled moment to the answer."""
        return self.done - self.scheduled

    @property
    def lateness(self) -> NDArray[np.float64]:
        """Seconds from the scheduled moment to the sending."""
        return self.sent - self.scheduled


def generate(load: Load, folder: Path) -> Outcome:
    """Run a load in a process of its own and return what happened."""
    plan, result = folder / "load.json", folder / "outcome.npz"
    plan.write_bytes(msgspec.json.encode(load))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.traffic", str(plan), str(result)],
        cwd=ROOT, env=environment(), check=True, timeout=load.seconds + LINGER_S + 30,
    )  # fmt: skip
    with np.load(result) as kept:
        return Outcome(
            float(kept["began"]), load.seconds, kept["kind"], kept["scheduled"], kept["sent"], kept["done"],
            kept["status"],
        )  # fmt: skip


class _Connection(asyncio.Protocol):
    """One kept-alive connection; at most one request at a time."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.request = -1
        self.transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._run.idle(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        request, self.request = self.request, -1
        status = self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        self._run.answered(request, status)
        if keep:
            self._run.idle(self)
        elif self.transport is not None:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.lost(self)


class _Run:
    def __init__(self, load: Load) -> None:
        self.load = load
        drawn = np.random.default_rng(load.seed)
        shares = np.array([k.share for k in load.kinds])
        count = int(load.rate * load.seconds * 1.2 + 100) if load.rate else 200_000
        self.scheduled = np.cumsum(drawn.exponential(1 / load.rate, count)) if load.rate else np.zeros(count)
        if load.rate:
            self.scheduled = self.scheduled[self.scheduled < load.seconds]
            count = len(self.scheduled)
        self.kind = drawn.choice(len(shares), count, p=shares / shares.sum()).astype(np.int8)
        self.sent = np.full(count, np.nan)
        self.done = np.full(count, np.nan)
        self.status = np.full(count, -1, np.int16)
        self.wire = [_wire(kind, load.port) for kind in load.kinds]
        self.next = 0
        self.open = 0
        self.outstanding = 0
        self.free: list[_Connection] = []
        self.owed: deque[int] = deque()
        self.over = False

    async def run(self) -> float:
        loop = asyncio.get_running_loop()
        self.loop = loop
        warm = min(_WARM_CONNECTIONS, self.load.connections) if self.load.rate else self.load.connections
        self.held = True
        for _ in range(warm):
            self._connect()
        until = time.monotonic() + LINGER_S
        while len(self.free) < warm:
            if time.monotonic() > until:
                made = f"{len(self.free)} of {warm} connections"
                raise SystemExit(f"only {made} to port {self.load.port} could be made")
            await asyncio.sleep(0.005)
        self.ended = asyncio.Event()
        self.began = time.monotonic()
        self.held = False
        if self.load.rate:
            self._due()
        else:
            for connection in list(self.free):
                self.free.remove(connection)
                self.idle(connection)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), self.load.seconds + LINGER_S)
        return self.began

    def _connect(self) -> None:
        self.open += 1
        task = self.loop.create_task(
            self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.load.port)
        )
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[object]) -> None:
        if task.exception() is not None:
            self.open -= 1
            if self.owed:
                self.answered(self.owed.popleft(), 0, sent=False)

    def _due(self) -> None:
        """Send what is due now, and come back when the next is."""
        now = time.monotonic() - self.began
        total = len(self.scheduled)
        while self.next < total and self.scheduled[self.next] <= now:
            number, self.next = self.next, self.next + 1
            self.outstanding += 1
            if self.free:
                self._send(self.free.pop(), number)
            else:
                self.owed.append(number)
                if self.open < self.load.connections:
                    self._connect()
        if self.next < total:
            self.loop.call_later(
                max(0.0, self.scheduled[self.next] - (time.monotonic() - self.began)), self._due
            )
        else:
            self.over = True
            self._end_if_done()

    def _send(self, connection: _Connection, number: int) -> None:
        connection.request = number
        self.sent[number] = time.monotonic() - self.began
        assert connection.transport is not None
        connection.transport.write(self.wire[self.kind[number]])

    def idle(self, connection: _Connection) -> None:
        if self.held or self.load.rate:
            if self.owed:
                self._send(connection, self.owed.popleft())
            else:
                self.free.append(connection)
            return
        now = time.monotonic() - self.began
        if now < self.load.seconds and self.next < len(self.scheduled):
            number, self.next = self.next, self.next + 1
            self.scheduled[number] = now
            self.outstanding += 1
            self._send(connection, number)
        else:
            self.over = True
            self._end_if_done()

    def answered(self, number: int, status: int, sent: bool = True) -> None:
        if sent:
            self.done[number] = time.monotonic() - self.began
        self.status[number] = status
        self.outstanding -= 1
        self._end_if_done()

    def lost(self, connection: _Connection) -> None:
        self.open -= 1
        if connection in self.free:
            self.free.remove(connection)
        if connection.request >= 0:
            self.answered(connection.request, 0)
        if not self.load.rate and not self.over and not self.held:
            self._connect()

    def _end_if_done(self) -> None:
        if self.over and not self.outstanding:
            self.ended.set()


def _wire(kind: Kind, port: int) -> bytes:
    body = kind.packed or kind.body.encode()
    headers = {
        "host": f"127.0.0.1:{port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **kind.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {kind.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def main() -> None:
    """Run one load in this process."""
    plan, result = Path(sys.argv[1]), Path(sys.argv[2])
    load = msgspec.json.decode(plan.read_bytes(), type=Load)
    if load.cores:
        os.sched_setaffinity(0, load.cores)
    run = _Run(load)
    began = uvloop.run(run.run())
    used = slice(0, run.next)
    np.savez(
        result, began=began, kind=run.kind[used], scheduled=run.scheduled[used], sent=run.sent[used],
        done=run.done[used], status=run.status[used],
    )  # fmt: skip


if __name__ == "__main__":
    main()
