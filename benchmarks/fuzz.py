"""What a server does with inputs that no client should send: it refuses them, and is as before.

A fleet with a classifier, texts, an embedding model and a chat is served over HTTP and gRPC in a process of its
own. Then come valid requests with something wrong in them: JSON values and bytes, header lengths, shapes and
types, protocol buffers, request lines and headers.

1. `server_errors`: answers that blame the server (500; 503 and 504 where nobody asked for a deadline; INTERNAL,
   UNKNOWN, UNAVAILABLE), connections closed without an answer, and tracebacks in the log.
2. `hangs`: inputs without an answer within 15 s.
3. `leaks`: of requests that never ended, rows still waiting or running, files left open, threads left over, and
   memory that grows beyond 16 MB per 100,000 inputs after a first fifth, how many there are.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from random import Random

import psutil
import uvloop

from benchmarks import models
from benchmarks.fuzzing import inputs
from benchmarks.fuzzing.mutate import scrambled, text
from benchmarks.fuzzing.senders import Outcome, send_grpc, send_heads, send_http
from benchmarks.processes import Server, free_port
from benchmarks.report import Report, arguments, chosen

CONNECTIONS = 16
GROWTH_MB = 16.0
FLEET = """\
tasks:
  digits: {{inputs: {{image: "fp32[64]"}}, outputs: {{scores: "fp32[10]"}}}}
  text: {{inputs: {{text: bytes}}, outputs: {{length: int64}}}}
  embed: {{kind: embedding}}
  chat: {{kind: chat}}
  hear: {{kind: transcription}}
  judge: {{kind: moderation, outputs: {{scores: {{type: "fp32[2]", labels: [rude, spam]}}}}}}
models:
  net:
    task: digits
    source: net.onnx
    isolation: inline
    quality: 0.9
    adapter: {{inputs: {{x: {{from: image}}}}, outputs: {{scores: {{from: probabilities}}}}}}
  lengths: {{task: text, python: "fuzzed.py:lengths", isolation: thread}}
  letters: {{task: embed, python: "fuzzed.py:letters", isolation: thread}}
  parrot: {{task: chat, python: "fuzzed.py:parrot", isolation: thread}}
  ears: {{task: hear, python: "fuzzed.py:ears", isolation: thread}}
  censor: {{task: judge, python: "fuzzed.py:censor", isolation: thread}}
deferred: {{path: deferred.db}}
server:
  grpc_port: {grpc}
  limits: {{body: 4MB, header_time: 1s, body_time: 1s, keep_alive: 1s}}
"""
FUNCTIONS = """\
import asyncio


def lengths(text: list[bytes]) -> list[int]:
    return [len(one) for one in text]


def letters(input: list[str]) -> list[list[float]]:
    return [[float(one.count(letter)) for letter in "abcdefgh"] for one in input]


def ears(audio: list[bytes]) -> list[str]:
    return [f"{len(one)} bytes" for one in audio]


def censor(input: list[str]) -> list[list[float]]:
    return [[float("idiot" in one), float(len(one) > 1000)] for one in input]


async def parrot(messages: list[dict]):
    for word in str(messages[-1].get("content")).split()[:20]:
        await asyncio.sleep(0)
        yield word
"""


def main() -> None:
    """Send everything, then look whether the server is as before."""
    parser = arguments("fuzz", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--inputs", type=int, help="how many (default 150,000; 3,000 with --quick)")
    given = parser.parse_args()
    asked = chosen(parser, given)
    total = given.inputs or (3_000 if asked.quick else 150_000)
    report = Report("fuzz", "Inputs that no client should send", asked)
    with tempfile.TemporaryDirectory(prefix="semaforo-bench-") as name:
        folder = Path(name)
        models.classifier(folder / "net.onnx")
        (folder / "fuzzed.py").write_text(FUNCTIONS)
        grpc_port = free_port()
        (folder / "fleet.yaml").write_text(FLEET.format(grpc=grpc_port))
        with Server.semaforo(folder / "fleet.yaml") as server:
            outcomes = uvloop.run(_send(server, grpc_port, total, given.seed, report))
            leaks = _leaks(server, report, outcomes.pop("memory"))
            tracebacks = server.log.read_text(errors="replace").count("Traceback")
            if tracebacks:
                report.note(f"the log has {tracebacks} tracebacks: {server.tail()}")
    found = [outcome for outcome in outcomes.values() if isinstance(outcome, Outcome)]
    report.count("inputs", sum(outcome.sent for outcome in found))
    report.count("server_errors", sum(outcome.faults for outcome in found) + tracebacks, aim=0)
    report.count("hangs", sum(outcome.hangs for outcome in found), aim=0)
    report.count("leaks", leaks, aim=0)
    for kind, outcome in outcomes.items():
        assert isinstance(outcome, Outcome)
        report.note(
            f"{kind}: " + ", ".join(f"{status} × {n}" for status, n in outcome.statuses.most_common())
        )
        for sent, status, body in outcome.wrong:
            report.note(f"{kind}: {status} {body[:200]!r} for {str(sent)[:300]}")
    report.finish()


async def _send(
    server: Server, grpc_port: int, total: int, seed: int, report: Report
) -> dict[str, Outcome | tuple[float, float, int, int, int]]:
    draw = Random(seed)
    requests, calls = inputs.http(draw), inputs.grpc(draw)
    outcomes = {"http": Outcome(), "heads": Outcome(), "grpc": Outcome()}
    shares = (total // 5, total - total // 5)
    before = (0.0, 0, 0)
    for share in shares:
        report.progress(f"{share} inputs")
        await send_http(server.port, requests, share * 4 // 5, CONNECTIONS, outcomes["http"])
        await send_heads(server.port, list(_heads(draw, max(10, share // 500))), outcomes["heads"])
        await send_grpc(grpc_port, calls, share // 5, CONNECTIONS, outcomes["grpc"])
        if share is shares[0]:
            await asyncio.sleep(0.5)
            before = (server.rss_mb(), _files(server.root), server.root.num_threads())
    await _valid(server, outcomes["http"])
    return {**outcomes, "memory": (before[0], float(shares[1]), before[1], before[2], total)}


async def _valid(server: Server, outcome: Outcome) -> None:
    """Ask properly once more: whatever came before, the answer is right."""
    count = len(inputs.VALID)
    proper = iter([inputs.Input(method, path, {}, text(value)) for method, path, value in inputs.VALID])
    good = outcome.statuses["200"]
    await send_http(server.port, proper, count, 1, outcome)
    if outcome.statuses["200"] != good + count:
        outcome.fault("valid requests after all others", f"{outcome.statuses['200'] - good} of {count}", b"")


def _heads(draw: Random, count: int) -> list[bytes]:
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n{}"
    found = []
    for _ in range(count):
        found.append(scrambled(head % draw.choice((2, 2, 100, 0, 10**12)), draw))
    return found


def _leaks(server: Server, report: Report, memory: object) -> int:
    assert isinstance(memory, tuple)
    before_mb, sent, files, threads, _ = memory
    until = time.monotonic() + 20
    while True:
        figures = server.get_json("/semaforo/v1/figures")
        open_requests = figures["arrived"] - sum(figures["outcomes"].values())
        rows = sum(t["waiting_rows"] for t in figures["tasks"])
        rows += sum(r["in_flight_rows"] for r in figures["replicas"])
        extra_files = _files(server.root) - files
        extra_threads = server.root.num_threads() - threads
        if not (open_requests or rows or extra_files > 2) or time.monotonic() > until:
            break
        time.sleep(0.1)
    growth = (server.rss_mb() - before_mb) / sent * 1e5
    found = {
        "requests without an end": open_requests,
        "rows left": rows,
        # The pool that files and names are looked up in may have grown by a thread or two since.
        "files left open": max(0, extra_files - 2),
        "threads left over": max(0, extra_threads - 2),
        "megabytes": int(sent >= 50_000 and growth > GROWTH_MB),
    }
    report.note(f"memory grows by {growth:.2f} MB per 100,000 inputs; left over: {found}")
    return sum(1 for count in found.values() if count)


def _files(process: psutil.Process) -> int:
    return int(process.num_fds())


if __name__ == "__main__":
    main()
