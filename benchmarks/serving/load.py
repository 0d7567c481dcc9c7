"""Closed-loop load on a server: wrk over HTTP and h2load over gRPC where they are installed, else our own.

Rules this module keeps:

1. One generator for all servers of a run; which one is noted.
2. Every answer's status is counted. h2load does not read a call's own status, which comes after the body, so there
   the bytes of all answers must add up to as many as the checked answer has: a failed call has none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.processes import environment
from benchmarks.report import ROOT, percentile
from benchmarks.serving.calls import Calls
from benchmarks.serving.forms import GRPC_METHOD
from benchmarks.traffic import Kind, Load, generate

_LUA = """
wrk.method = 'POST'
%s
wrk.body = "%s"
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format('RESULT requests=%%d seconds=%%f p50=%%f p99=%%f broken=%%d refused=%%d',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
"""


class Flow(msgspec.Struct, frozen=True):
    """What came of a load: answers per second, latencies in ms, answers in all, and what went wrong."""

    rate: float
    p50: float
    p99: float
    answers: int
    errors: int


class Generator:
    """Sends load from processes of their own; `folder` is for their scripts."""

    def __init__(self, folder: Path) -> None:
        self.wrk = shutil.which("wrk")
        self.h2load = shutil.which("h2load")
        self._folder = folder

    @property
    def names(self) -> str:
        """Say which generators are used."""
        http = "wrk" if self.wrk else "benchmarks.traffic (wrk is not installed)"
        grpc = "h2load" if self.h2load else "benchmarks.serving.calls (h2load is not installed)"
        return f"HTTP by {http}, gRPC by {grpc}"

    def http(
        self,
        port: int,
        path: str,
        asked: tuple[bytes, dict[str, str]],
        connections: int,
        seconds: float,
        core: int | None = None,
    ) -> Flow:
        """Ask over HTTP on kept-alive connections."""
        if not self.wrk:
            return self._own_http(port, path, asked, connections, seconds, core)
        body, headers = asked
        lines = "\n".join(f"wrk.headers['{name}'] = '{value}'" for name, value in headers.items())
        script = self._folder / "ask.lua"
        script.write_text(_LUA % (lines, "".join(f"\\{byte:03d}" for byte in body)))
        whole = max(1, round(seconds))
        command = [
            *_on(core), self.wrk, "-t1", f"-c{connections}", f"-d{whole}", "--timeout", "10s", "-s", str(script),
            f"http://127.0.0.1:{port}{path}",
        ]  # fmt: skip
        said = _output(command, whole)
        found = re.search(r"RESULT (.*)", said)
        if found is None:
            raise RuntimeError(f"wrk failed: {said}")
        values = {k: float(v) for k, v in (pair.split("=") for pair in found[1].split())}
        requests, errors = int(values["requests"]), int(values["broken"] + values["refused"])
        return Flow(requests / values["seconds"], values["p50"], values["p99"], requests, errors)

    def _own_http(
        self,
        port: int,
        path: str,
        asked: tuple[bytes, dict[str, str]],
        connections: int,
        seconds: float,
        core: int | None,
    ) -> Flow:
        body, headers = asked
        kind = Kind("one", 1.0, path, "", headers, packed=body)
        cores = () if core is None else (core,)
        outcome = generate(Load(port, (kind,), seconds, connections=connections, cores=cores), self._folder)
        good = outcome.status == 200
        latency = (outcome.latency[good] * 1e3).tolist()
        answers = int(good.sum())
        return Flow(
            answers / seconds,
            percentile(latency, 0.5),
            percentile(latency, 0.99),
            answers,
            int((~good).sum()),
        )

    def grpc(
        self,
        port: int,
        body: bytes,
        answer_bytes: int,
        calls: int,
        seconds: float,
        core: int | None = None,
    ) -> Flow:
        """Ask over gRPC, with `calls` at once.

        Args:
            port: Of the server.
            body: The message.
            answer_bytes: Length of the right answer's message.
            calls: Calls at once, over an eighth as many connections.
            seconds: For how long.
            core: Core of the generator; None = any.
        """
        channels = max(1, calls // 8)
        if not self.h2load:
            plan = Calls(port, body, calls, seconds, channels, cores=() if core is None else (core,))
            return msgspec.convert(_run_calls(plan, self._folder), Flow)
        framed = self._folder / "message.bin"
        framed.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
        log = self._folder / "h2load.log"
        log.unlink(missing_ok=True)
        whole = max(1, round(seconds))
        command = [
            *_on(core), self.h2load, "-p", "h2c", "-t1", f"-c{channels}", f"-m{calls // channels}",
            f"--duration={whole}", "-d", str(framed), f"--log-file={log}",
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://127.0.0.1:{port}{GRPC_METHOD}",
        ]  # fmt: skip
        said = _output(command, whole)
        counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", said)
        data = re.search(r"\((\d+)\) data", said)
        if counts is None or data is None:
            raise RuntimeError(f"h2load failed: {said}")
        done, failed, errored = (int(counts[k]) for k in (1, 3, 4))
        whole_answers = int(data[1]) // (answer_bytes + 5)
        errors = failed + errored + max(0, done - whole_answers)
        times = np.loadtxt(log, usecols=2, ndmin=1) / 1e3
        return Flow(
            done / whole, float(np.percentile(times, 50)), float(np.percentile(times, 99)), done, errors
        )


def _on(core: int | None) -> list[str]:
    taskset = shutil.which("taskset")
    return [] if core is None or taskset is None else [taskset, "-c", str(core)]


def _output(command: list[str], seconds: float) -> str:
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 40, check=False)
    return run.stdout + run.stderr


def _run_calls(plan: Calls, folder: Path) -> object:
    file = folder / "calls.json"
    file.write_bytes(msgspec.json.encode(plan))
    command = [sys.executable, "-m", "benchmarks.serving.calls", str(file)]
    run = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, timeout=plan.seconds + 60, check=False
    )
    if run.returncode:
        raise RuntimeError(f"the gRPC generator failed: {run.stderr.decode(errors='replace')[-2000:]}")
    return msgspec.json.decode(run.stdout)
