"""How soon all work stops when clients go away: four levels of graphs above a streaming model in worker processes.

Each client asks for a stream, reads until it flows (or waits in the queue), and closes its socket at a moment. The
model notes when it is stopped; the clock is the machine's, so both ends compare. Who never began must never begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from benchmarks.processes import Server
from benchmarks.report import Report, bootstrap, percentile

CLIENTS = 64
SLOTS = 24
REPLICAS = 2
_SETTLE_S = 0.5

MODEL = """\
import time
from pathlib import Path

LOG = Path(__file__).with_name("log")


def note(*words):
    with open(LOG, "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def talk(messages):
    name = messages[-1]["content"]
    note("begun", name, time.monotonic())
    try:
        for _ in range(20000):
            time.sleep(0.002)
            yield "on "
        note("whole", name, time.monotonic())
    except GeneratorExit:
        note("stopped", name, time.monotonic())
        raise
"""


def _fleet(folder: Path) -> Path:
    (folder / "talk.py").write_text(MODEL)
    levels = (
        f"  level{n}: {{task: chat, graph: {{steps: {{a: {f'level{n - 1}' if n > 1 else 'leaf'}}}}}}}"
        for n in (1, 2, 3, 4)
    )
    leaf = (
        f'  leaf: {{task: chat, python: "talk.py:talk", isolation: process, replicas: {REPLICAS}, '
        f"stream: {{slots: {SLOTS}}}}}"
    )
    path = folder / "fleet.yaml"
    path.write_text("\n".join(("tasks:", "  chat: {kind: chat}", "models:", leaf, *levels)) + "\n")
    return path


def measure(report: Report, quick: bool) -> None:
    """Add how long it takes until everything that a client has caused is stopped."""
    rounds = 1 if quick else 8
    clients = 16 if quick else CLIENTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        closed: dict[str, float] = {}
        with (
            Server.semaforo(_fleet(folder)) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            for number in range(rounds):
                closed |= runner.run(_round(server.port, number, clients))
            time.sleep(_SETTLE_S)
        said = [line.split() for line in (folder / "log").read_text().splitlines()]
    begun = {name: float(at) for kind, name, at in said if kind == "begun"}
    stopped = {name: float(at) for kind, name, at in said if kind == "stopped"}
    late = [name for name, at in begun.items() if at > closed[name] + 0.05]
    forgotten = [name for name in begun if name not in stopped]
    took = [1e3 * (at - closed[name]) for name, at in stopped.items()]
    report.add("cancel_ms_p50", bootstrap(took), "ms")
    report.add("cancel_ms_p99", bootstrap(took, lambda values: percentile(values, 0.99)), "ms", aim=50.0)
    report.count("cancelled_that_went_on", len(forgotten) + len(late), aim=0)
    report.note(
        f"cancel: {len(closed)} clients, {clients} at once, four levels of graphs; {len(begun)} had begun to be "
        f"answered, {len(closed) - len(begun)} waited and never began"
    )


async def _round(port: int, number: int, clients: int) -> dict[str, float]:
    rng = np.random.default_rng(number)
    waits = rng.uniform(0.2, 0.6, clients)
    found = await asyncio.gather(
        *(_client(port, f"{number}.{n}", float(wait)) for n, wait in enumerate(waits))
    )
    return dict(found)


async def _client(port: int, name: str, wait: float) -> tuple[str, float]:
    body = msgspec.json.encode(
        {"model": "level4", "stream": True, "messages": [{"role": "user", "content": name}]}
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            while await reader.read(65536):
                pass
    at = time.monotonic()
    writer.transport.abort()
    return name, at
