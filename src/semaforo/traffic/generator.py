"""The generator: sends one load from one event loop and notes what becomes of every request.

An open loop takes each request when it is due, whatever has become of those before: it goes out on a free
connection, else on a new one, else on the first that becomes free. A closed loop has as many requests on their
way as it has connections, and takes the next one of each when its answer has come.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from array import array
from collections import deque
from typing import Any

import msgspec
import numpy as np

from semaforo.errors import NotReady
from semaforo.traffic.connection import Answered, Connection
from semaforo.traffic.load import Load, on_the_wire
from semaforo.traffic.outcome import BROKEN, CUT_SHORT, UNANSWERED, Outcome, Reasons
from semaforo.traffic.pacer import Pacer

_NEVER = float("nan")
_WARM = 32
_CONNECT_S = 5.0
_AGAIN_S = 0.1
_MOST_NAMES = 4096


class Generator:
    """Runs one load.

    Attributes:
        taken, ended, bad: Requests that were due so far, that have ended, and that have ended badly.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self.ended = self.bad = 0
        self._open_loop = load.moments is not None
        self._moments: list[float] = [] if load.moments is None else load.moments.tolist()
        self._wire = [on_the_wire(kind, load.server) for kind in load.kinds]
        self._chat = [kind.chat for kind in load.kinds]
        self._kind = array("h")
        self._scheduled, self._taken, self._sent, self._done = (array("d") for _ in range(4))
        self._first, self._last = array("d"), array("d")
        self._status, self._who, self._tokens = array("h"), array("h"), array("l")
        self._names = {"": 0}
        self._reasons = Reasons()
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._owed: deque[int] = deque()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._most_open = self._full = self._sent_bytes = self._received_bytes = 0
        self._held = True
        self._over = False
        self._tls = ssl.create_default_context() if load.server.secure else None

    @property
    def taken(self) -> int:
        """Requests that were due so far."""
        return len(self._kind)

    async def connect(self) -> None:
        """Open the connections that the run begins with.

        Raises:
            NotReady: They cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        wanted = self.load.connections
        if self._open_loop:
            wanted = min(wanted, _WARM, max(1, len(self._moments)))
        for _ in range(wanted):
            self._connect()
        until = time.monotonic() + _CONNECT_S
        while len(self._free) < wanted:
            if time.monotonic() > until or (not self._connecting and len(self._all) < wanted):
                server = self.load.server
                raise NotReady(
                    f"only {len(self._free)} of {wanted} connections to {server.host}:{server.port} "
                    f"could be opened{self._why()}"
                )
            await asyncio.sleep(0.002)

    async def run(self, at: float) -> Outcome:
        """Send everything, the run beginning at `at` (monotonic), and return what became of it."""
        self._began = at
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        cpu, begun = time.process_time(), time.monotonic()
        self._held = False
        pacer = None
        if self._open_loop:
            self._due()
            pacer = Pacer(self._moments, at, self._loop, self._due)
        else:
            waiting, self._free = self._free, []
            for connection in waiting:
                self.ready(connection)
        ending = self._loop.create_task(self._end_in_time())
        try:
            await self._ended.wait()
        finally:
            ending.cancel()
            if pacer is not None:
                pacer.close()
            self._over = True
        cpu = (time.process_time() - cpu) / max(1e-9, time.monotonic() - begun)
        outcome = self._outcome(cpu)
        for connecting in self._connecting:
            connecting.cancel()
        for connection in list(self._all):
            connection.close()
        return outcome

    async def _end_in_time(self) -> None:
        until = self._began + self.load.seconds
        # A loop's timers count from when it last looked at the clock, and may come early.
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(left)
        self.end()

    def end(self) -> None:
        """Take no more requests, and wait for the answers of those that were sent."""
        if self._over:
            return
        if self._open_loop:
            self._due()
        self._over = True
        self._seconds = max(0.0, min(self.load.seconds, time.monotonic() - self._began))
        self._loop.call_later(self.load.wait_s, self._ended.set)
        self._check()

    def stop(self) -> None:
        """Take no more requests, and leave those unanswered that are."""
        self.end()
        self._ended.set()

    # --- requests ----------------------------------------------------------------------------------------

    def _due(self) -> None:
        if self._over or self._held:
            return
        now = time.monotonic() - self._began
        moments, number = self._moments, len(self._kind)
        which = self.load.which
        while number < len(moments) and moments[number] <= now:
            self._take(which[number] if which else 0, moments[number], now)
            if self._free:
                self._send(self._free.pop(), number)
            else:
                self._owed.append(number)
                if len(self._all) + len(self._connecting) < self.load.connections:
                    self._connect()
                else:
                    self._full += 1
            number += 1

    def _take(self, kind: int, scheduled: float, now: float) -> None:
        self._kind.append(kind)
        self._scheduled.append(scheduled)
        self._taken.append(now)
        self._sent.append(_NEVER)
        self._done.append(_NEVER)
        self._status.append(UNANSWERED)
        self._who.append(0)
        self._first.append(_NEVER)
        self._last.append(_NEVER)
        self._tokens.append(0)

    def _send(self, connection: Connection, number: int) -> None:
        kind = self._kind[number]
        wire = self._wire[kind]
        self._sent[number] = time.monotonic() - self._began
        connection.send(number, wire[number % len(wire)], self._chat[kind])

    def ready(self, connection: Connection) -> None:
        """See `Owner`."""
        if connection not in self._all:
            self._all.add(connection)
            self._most_open = max(self._most_open, len(self._all))
        if self._owed:
            self._send(connection, self._owed.popleft())
        elif self._open_loop or self._held or self._over:
            self._free.append(connection)
        elif self.taken < self.load.most:
            now = time.monotonic() - self._began
            which = self.load.which
            self._take(which[self.taken % len(which)] if which else 0, now, now)
            self._send(connection, self.taken - 1)
        else:
            self.end()
        if self._open_loop:
            self._due()

    def answered(self, number: int, answer: Answered) -> None:
        """See `Owner`."""
        now = time.monotonic() - self._began
        status = answer.status
        self._done[number] = now
        if answer.who:
            found = self._names.get(answer.who)
            if found is None:
                found = len(self._names) if len(self._names) < _MOST_NAMES else 0
                self._names.setdefault(answer.who, found)
            self._who[number] = found
        chat = answer.chat
        if chat is not None:
            if chat.fault:
                status, answer.said = CUT_SHORT, chat.fault.encode()
            if chat.first_at:
                self._first[number] = chat.first_at - self._began
                self._last[number] = chat.last_at - self._began
            self._tokens[number] = chat.tokens
        self._status[number] = status
        if not 200 <= status < 300:
            self.bad += 1
            self._reasons.add(status, _reason(answer.said))
        self.ended += 1
        self._check()

    def _check(self) -> None:
        if self._over and self.ended == self.taken:
            self._ended.set()

    # --- connections -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        server = self.load.server
        connecting = self._loop.create_task(
            self._loop.create_connection(lambda: Connection(self), server.host, server.port, ssl=self._tls)
        )
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Task[Any]) -> None:
        self._connecting.discard(connecting)
        if connecting.cancelled():
            return
        error = connecting.exception()
        if error is None:
            return
        reason = f"no connection: {getattr(error, 'strerror', None) or error}"
        if self._owed:
            self.answered(self._owed.popleft(), Answered(BROKEN, said=reason.encode()))
            self._replace()
        else:
            self._reasons.add(BROKEN, reason, 0)
            if not self._held:
                # A closed loop asks again in a while: its server may be starting anew.
                self._loop.call_later(_AGAIN_S, self._replace)

    def lost(self, connection: Connection) -> None:
        """See `Owner`."""
        self._all.discard(connection)
        self._sent_bytes += connection.sent_bytes
        self._received_bytes += connection.received_bytes
        if connection in self._free:
            self._free.remove(connection)
        self._replace()

    def _replace(self) -> None:
        """Open a connection in place of one that is gone, where one is needed."""
        if self._over and not self._owed:
            return
        wanted = len(self._owed) if self._open_loop else self.load.connections - len(self._all)
        if len(self._connecting) < wanted and len(self._all) + len(self._connecting) < self.load.connections:
            self._connect()

    def _why(self) -> str:
        return next((f": {text}" for _, text in self._reasons.counts), "")

    def _outcome(self, cpu: float) -> Outcome:
        return Outcome(
            began=self._began,
            seconds=self._seconds,
            ended=time.monotonic() - self._began,
            kind=np.array(self._kind, np.int16),
            scheduled=np.array(self._scheduled),
            taken=np.array(self._taken),
            sent=np.array(self._sent),
            done=np.array(self._done),
            status=np.array(self._status, np.int16),
            who=np.array(self._who, np.int16),
            first=np.array(self._first),
            last=np.array(self._last),
            tokens=np.array(self._tokens, np.int32),
            names=tuple(self._names),
            reasons={key: count for key, count in self._reasons.counts.items() if count},
            cpu=cpu,
            connections=self._most_open,
            sent_bytes=self._sent_bytes + sum(c.sent_bytes for c in self._all),
            received_bytes=self._received_bytes + sum(c.received_bytes for c in self._all),
            full=self._full,
        )


def _reason(said: bytes) -> str:
    """Return what an error's body says, in V2's form, OpenAI's, or as it is."""
    try:
        body = msgspec.json.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    found = body.get("error") if isinstance(body, dict) else None
    text = found.get("message") if isinstance(found, dict) else found
    return str(text or said[:200].decode("utf-8", "replace").strip() or "without a reason")
