"""CPU per request through the whole path, against the least that could serve the same model.

Three servers run side by side, each measured in turn, several rounds over: the bare app (`benchmarks.peers.bare`),
Semaforo with the model inline, and Semaforo with it in a worker process. The same V2 JSON request for a model of a
few microseconds goes over 32 kept-alive connections in a closed loop. CPU is user and system time of the server's
whole process tree; compare ratios within a round, never absolute figures between machines.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import models
from benchmarks.processes import Server, free_port
from benchmarks.report import Report, bootstrap, options, percentile, table
from benchmarks.traffic import Kind, Load, generate

CONNECTIONS = 32
WARM_S = 1.0

FLEET = """
tasks:
  digits:
    inputs: {{x: fp32[64]}}
    outputs: {{probabilities: fp32[10]}}
models:
  net: {{task: digits, source: net.onnx, isolation: {isolation}, max_batch: 32}}
"""

LUA = """
wrk.method = 'POST'
wrk.headers['Content-Type'] = 'application/json'
wrk.body = [[%s]]
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format('RESULT requests=%%d seconds=%%f p50=%%f p99=%%f broken=%%d refused=%%d',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
"""


class Round(msgspec.Struct, frozen=True):
    """One server in one round: latencies in ms, CPU in µs per request."""

    cpu: float
    rate: float
    p50: float
    p99: float
    errors: int


class Asker:
    """Sends the load: wrk where it is installed, else this repository's own generator."""

    def __init__(self, folder: Path, seconds: float) -> None:
        drawn = np.random.default_rng(0)
        data = [round(float(v), 4) for v in drawn.random(models.FEATURES)]
        tensor = {"name": "x", "shape": [1, models.FEATURES], "datatype": "FP32", "data": data}
        self.body = msgspec.json.encode({"inputs": [tensor]}).decode()
        self.wrk = shutil.which("wrk")
        self._folder = folder
        self._seconds = max(1, round(seconds))
        self._script = folder / "post.lua"
        self._script.write_text(LUA % self.body)

    def ask(self, server: Server, path: str, seconds: float | None = None) -> Round:
        """Load a server for a while."""
        before = server.cpu_s()
        whole = max(1, round(seconds or self._seconds))
        if self.wrk:
            requests, took, p50, p99, errors = self._by_wrk(server, path, whole)
        else:
            requests, took, p50, p99, errors = self._by_own(server, path, whole)
        cpu = server.cpu_s() - before
        if not requests:
            raise RuntimeError(f"{path} answered nothing:\n{server.tail()}")
        return Round(cpu / requests * 1e6, requests / took, p50, p99, errors)

    def _by_wrk(self, server: Server, path: str, seconds: int) -> tuple[int, float, float, float, int]:
        command = [
            str(self.wrk), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", str(self._script),
            f"http://127.0.0.1:{server.port}{path}",
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
        found = re.search(r"RESULT (.*)", run.stdout)
        if found is None:
            raise RuntimeError(f"wrk failed: {run.stdout}{run.stderr}")
        said = {k: float(v) for k, v in (pair.split("=") for pair in found[1].split())}
        errors = int(said["broken"] + said["refused"])
        return int(said["requests"]), said["seconds"], said["p50"], said["p99"], errors

    def _by_own(self, server: Server, path: str, seconds: int) -> tuple[int, float, float, float, int]:
        load = Load(server.port, (Kind("one", 1.0, path, self.body),), seconds, connections=CONNECTIONS)
        outcome = generate(load, self._folder)
        good = outcome.status == 200
        latency = (outcome.latency[good] * 1e3).tolist()
        errors = int((~good).sum())
        return int(good.sum()), seconds, percentile(latency, 0.5), percentile(latency, 0.99), errors


def bare(model: Path) -> Server:
    """Return the bare app on uvicorn."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "benchmarks.peers.bare:app", "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off",
    ]  # fmt: skip
    return Server(command, port, "/", model.parent, {"MODEL": str(model)})


def main() -> None:
    """Measure all three, interleaved."""
    asked = options("path", __doc__)
    rounds, seconds = (1, 1.0) if asked.quick else (9, 4.0)
    report = Report("path", "The whole path: CPU per request against the bare app", asked)
    with tempfile.TemporaryDirectory(prefix="semaforo-bench-") as name, ExitStack() as running:
        folder = Path(name)
        models.classifier(folder / "net.onnx")
        servers = {"bare": running.enter_context(bare(folder / "net.onnx"))}
        for isolation in ("inline", "process"):
            fleet = folder / f"{isolation}.yaml"
            fleet.write_text(FLEET.format(isolation=isolation))
            servers[isolation] = running.enter_context(Server.semaforo(fleet))
        asker = Asker(folder, seconds)
        path = "/v2/models/net/infer"
        found: dict[str, list[Round]] = {name: [] for name in servers}
        for server in servers.values() if not asked.quick else ():
            asker.ask(server, path, WARM_S)
        for number in range(rounds):
            report.progress(f"round {number + 1} of {rounds}")
            names = list(servers)
            for name in names[number % 3 :] + names[: number % 3]:
                found[name].append(asker.ask(servers[name], path))
        memory = {name: server.tree_mb() for name, server in servers.items()}
    _figures(report, found, memory)
    report.note(
        f"{rounds} interleaved rounds of {seconds:g} s each, {CONNECTIONS} connections, closed loop by "
        f"{'wrk' if asker.wrk else 'benchmarks.traffic (wrk is not installed)'}; "
        f"{len(asker.body)} bytes of JSON; a perceptron 64 → 64 → 10"
    )
    if report.keeping:
        _plot(report, found)
    report.finish()


def _figures(report: Report, found: dict[str, list[Round]], memory: dict[str, float]) -> None:
    def ratios(name: str) -> list[float]:
        return [mine.cpu / theirs.cpu for mine, theirs in zip(found[name], found["bare"], strict=True)]

    report.add("cpu_vs_bare", bootstrap(ratios("inline")), "×", aim=1.6)
    report.add("cpu_process_vs_bare", bootstrap(ratios("process")), "×", aim=2.2)
    for name, said in found.items():
        report.add(f"cpu_us_{name}", bootstrap([r.cpu for r in said]), "µs")
    report.count("errors", sum(r.errors for said in found.values() for r in said), aim=0)
    shown = table("Medians over the rounds", "server", "CPU µs", "requests/s", "p50 ms", "p99 ms", "RSS MB")
    for name, said in found.items():
        shown.add_row(
            {"bare": "bare app", "inline": "semaforo, inline", "process": "semaforo, worker process"}[name],
            f"{statistics.median(r.cpu for r in said):.1f}",
            f"{statistics.median(r.rate for r in said):,.0f}",
            f"{statistics.median(r.p50 for r in said):.2f}",
            f"{statistics.median(r.p99 for r in said):.2f}",
            f"{memory[name]:.0f}",
        )
    report.tables.append(shown)


def _plot(report: Report, found: dict[str, list[Round]]) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("round", "CPU µs per request")
    for name, said in found.items():
        axes.plot(range(1, len(said) + 1), [r.cpu for r in said], "o-", label=name)
    axes.set_ylim(bottom=0)
    axes.legend()
    save(plot, report.plot_path("cpu"))


if __name__ == "__main__":
    main()
