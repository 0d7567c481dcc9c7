"""What is measured in a round: each server started, checked, loaded, weighed and stopped, one after another.

Rules this module keeps:

1. Only one server runs at a time: an idle one of a framework with many processes costs the others.
2. Every answer's status counts; answers are compared with onnxruntime's before each load and after it.
3. A peer that fails is left out of the rounds that follow, and reported; the yardsticks and Semaforo must not fail.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.processes import environment, two_sides
from benchmarks.report import ROOT
from benchmarks.serving import peers as known
from benchmarks.serving.environments import python_of
from benchmarks.serving.forms import GRPC, JSON, Case, Form
from benchmarks.serving.held import Held
from benchmarks.serving.load import Flow, Generator
from benchmarks.serving.peers import BARE, ECHO, Peer
from benchmarks.serving.served import Failed, Served, best_rows_per_s

CONNECTIONS = (32, 128)


class Loaded(msgspec.Struct, frozen=True):
    """One load on one server: what came of it, and its CPU in µs per answer."""

    flow: Flow
    cpu: float


class Sample(msgspec.Struct):
    """One server in one round.

    Attributes:
        start_s: Seconds until the first right answer.
        rss_mb: Resident memory of its processes after the load.
        loads: By ``c32``, ``c128`` (JSON), ``grpc``, ``heavy``, ``heavy-json``.
    """

    start_s: float
    rss_mb: float
    loads: dict[str, Loaded]


class Kept(msgspec.Struct, frozen=True):
    """Open connections: kB each, and the p99 in ms of a trickle over them; errors of all."""

    kb: float
    p99: float
    errors: int


class Round(msgspec.Struct):
    """All that one round found, by the names of the servers; `raw` = onnxruntime's (rows/s, batch)."""

    light: dict[str, Sample] = {}
    heavy: dict[str, Sample] = {}
    raw: tuple[float, int] | None = None
    kept: dict[str, Kept] = {}


class Bench:
    """Measures rounds.

    Args:
        servers: The yardsticks, Semaforo and the peers, in the order of the first round.
        light, heavy: The two models.
        folder: For the generators' files.
        seconds: Of each load.
        progress: Told what runs now.

    Attributes:
        left_out: Servers that failed, and how.
    """

    def __init__(
        self,
        servers: list[Peer],
        light: Case,
        heavy: Case,
        folder: Path,
        seconds: float,
        progress: Callable[[str], None],
    ) -> None:
        self.left_out: dict[str, str] = {}
        self.generator = Generator(folder)
        self._servers = servers
        self._light, self._heavy = light, heavy
        self._folder = folder
        self._seconds = seconds
        self._progress = progress

    def _turn(self, number: int) -> Iterator[Peer]:
        at = number % len(self._servers)
        for peer in self._servers[at:] + self._servers[:at]:
            if peer.name not in self.left_out:
                yield peer

    @contextlib.contextmanager
    def _served(self, peer: Peer, case: Case, form: Form) -> Iterator[Served | None]:
        self._progress(f"  {peer.title}")
        python = python_of(peer)
        assert python is not None, f"{peer.name} is not installed"
        started = False
        try:
            with Served(peer, python, case, form) as served:
                started = True
                yield served
        except (Failed, RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            if not peer.own:
                raise
            self.left_out[peer.name] = str(error).splitlines()[0]
            self._progress(f"  {peer.title} is left out: {error}")
        if not started:
            yield None

    def light(self, number: int, found: Round, warm_s: float) -> None:
        """Load each server with the short model, over JSON and, where it speaks it, gRPC."""
        for peer in self._turn(number):
            first = GRPC if peer is ECHO else JSON
            with self._served(peer, self._light, first) as served:
                if served is None:
                    continue
                sample = Sample(served.start_s, 0.0, {})
                if peer is not ECHO:
                    if warm_s:
                        self._ask(served, self._light, JSON, CONNECTIONS[0], warm_s)
                    for connections in CONNECTIONS:
                        sample.loads[f"c{connections}"] = self._ask(served, self._light, JSON, connections)
                sample.rss_mb = served.rss_mb()
                if known.speaks_grpc(peer):
                    if warm_s:
                        self._ask(served, self._light, GRPC, CONNECTIONS[0], warm_s)
                    sample.loads["grpc"] = self._ask(served, self._light, GRPC, CONNECTIONS[0])
                found.light[peer.name] = sample

    def heavy(self, number: int, found: Round, warm_s: float) -> None:
        """Load each server with the convolution, its model on one core and all else on the other."""
        sides = two_sides()
        model_core, other = (sides[1][0], sides[0][0]) if sides else (None, None)
        self._progress("  onnxruntime alone")
        found.raw = best_rows_per_s(self._heavy, max(1.0, self._seconds), model_core)
        for peer in self._turn(number):
            form = peer.heavy
            if form is JSON or (form is GRPC and not known.GRPC_THERE):
                continue
            with self._served(peer, self._heavy, form) as served:
                if served is None:
                    continue
                if model_core is not None and other is not None:
                    served.split(model_core, other)
                sample = Sample(served.start_s, 0.0, {})
                if warm_s:
                    self._ask(served, self._heavy, form, CONNECTIONS[0], warm_s, other)
                sample.loads["heavy"] = self._ask(served, self._heavy, form, CONNECTIONS[0], None, other)
                if not peer.own:
                    again = self._ask(served, self._heavy, JSON, CONNECTIONS[0], None, other)
                    sample.loads["heavy-json"] = again
                sample.rss_mb = served.rss_mb()
                found.heavy[peer.name] = sample

    def _ask(
        self,
        served: Served,
        case: Case,
        form: Form,
        connections: int,
        seconds: float | None = None,
        core: int | None = None,
    ) -> Loaded:
        served.check(form)
        asked = form.write(case.rows)
        length = seconds or self._seconds
        before = served.cpu_s()
        if form is GRPC:
            answer = served.answer_bytes()
            flow = self.generator.grpc(served.place.grpc_port, asked[0], answer, connections, length, core)
        else:
            place = served.place
            flow = self.generator.http(place.port, served.path(form), asked, connections, length, core)
        cpu = served.cpu_s() - before
        served.check(form)
        if not flow.answers:
            raise Failed(f"{served.peer.title} answered nothing under load:\n{served.tail()}")
        return Loaded(flow, cpu / flow.answers * 1e6)

    def kept(self, found: Round, counts: dict[str, int], seconds: float) -> None:
        """Hold connections, and streams (named ``streams``), open at Semaforo and weigh them."""
        for name, count in counts.items():
            streams = name == "streams"
            if streams and not known.speaks_grpc(known.INLINE):
                continue
            self._progress(f"  {count:,} {'streams of gRPC' if streams else 'connections'}")
            with self._served(known.INLINE, self._light, JSON) as served:
                if served is not None:
                    self._ask(served, self._light, GRPC if streams else JSON, CONNECTIONS[0], 1)
                    found.kept[name] = self._hold(served, count, streams, seconds)

    def _hold(self, served: Served, count: int, streams: bool, seconds: float) -> Kept:
        body = self._message(served, streams)
        place = served.place
        port = place.grpc_port if streams else place.port
        plan = self._folder / "held.json"
        plan.write_bytes(msgspec.json.encode(Held(port, count, body, streams, seconds=seconds)))
        before = served.rss_mb()
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.held", str(plan)],
            cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as holder:  # fmt: skip
            assert holder.stdin is not None
            assert holder.stdout is not None
            try:
                opened = msgspec.json.decode(holder.stdout.readline() or b'{"errors": -1}')
                if opened["errors"] < 0:
                    raise RuntimeError(f"{count} connections could not be opened")
                after = served.rss_mb()
                holder.stdin.write(b"trickle\n")
                holder.stdin.flush()
                said = msgspec.json.decode(holder.stdout.readline())
            finally:
                holder.stdin.close()
                try:
                    holder.wait(10)
                except subprocess.TimeoutExpired:
                    holder.kill()
        return Kept((after - before) * 1e3 / count, said["p99"], opened["errors"] + said["errors"])

    def _message(self, served: Served, streams: bool) -> bytes:
        if streams:
            return GRPC.write(self._light.rows)[0]
        body, headers = JSON.write(self._light.rows)
        lines = {"host": f"127.0.0.1:{served.place.port}", "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {served.path(JSON)} HTTP/1.1\r\n{head}\r\n".encode() + body


def standing() -> list[Peer]:
    """Return the yardsticks and Semaforo, which every run measures."""
    always = [BARE, known.INLINE, known.PROCESS]
    return [*always, ECHO] if known.speaks_grpc(known.INLINE) else always
