"""``semaforo bench`` as a user types it, against servers whose faults are known."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semaforo.cli import app
from semaforo.errors import SemaforoError
from served_fleet import Served, serving, small_fleet
from stalling import Stalling
from upstream import Fault, Upstream

STALL_S = 0.5


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "semaforo", "bench", *map(str, words)]


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=40, check=False, env=environment
    )


def figures(*words: str | Path) -> dict[str, Any]:
    ran = bench(*words, "--json", "-")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(small_fleet(tmp_path_factory.mktemp("fleet"))) as fleet:
        yield fleet


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides() -> None:
    """The server stands still for half of two seconds; of 200 requests a closed loop of one meets that once."""
    with Stalling(after=100, seconds=STALL_S) as server:
        opened = figures(
            server.url, "--model", "m", "--rate", "100/s", "--arrivals", "uniform", "--duration", "2s"
        )
    with Stalling(after=100, seconds=STALL_S) as server:
        closed = figures(server.url, "--model", "m", "--concurrency", "1", "--duration", "2s")
    assert (opened["requests"], opened["answered"]) == (200, 200)
    # About 50 of 200 were due while it stood still: each waited for what was left of that.
    assert 0.7 * STALL_S < opened["latency"]["p99"] <= opened["latency"]["max"]
    assert opened["latency"]["p90"] > 0.3 * STALL_S
    assert closed["latency"]["max"] >= STALL_S
    assert closed["latency"]["p99"] < 0.1 * STALL_S


def test_what_is_measured_of_a_fleet(served: Served, tmp_path: Path) -> None:
    kept, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    before = served.call(lambda: served.engine.metrics.outcomes["done"])
    ran = bench(
        served.url, "--task", "digits", "--rate", "150/s", "--duration", "1s", "--deadline", "2s", "--binary",
        "--processes", "2", "--json", kept, "--plot", plot,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(kept.read_bytes())
    # The server saw the very same number, and the one that was asked before.
    assert served.call(lambda: served.engine.metrics.outcomes["done"]) - before == found["answered"] + 1
    assert found["requests"] == found["answered"] == found["in_time"] > 100
    assert found["status"] == {"200": found["requests"]}
    assert {who["name"] for who in found["served"]} <= {"net/int8", "linear/fp32"}
    assert sum(who["count"] for who in found["served"]) == found["answered"]
    assert found["lateness"]["count"] == found["requests"]
    assert "100.00% within 2s" in ran.stdout
    assert all(len(line) <= 80 for line in ran.stdout.splitlines())
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_refusals_are_counted_with_their_reasons(served: Served, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"seconds": 0.02}\n{"seconds": [0.02]}\n')
    found = figures(
        served.url,
        "--task",
        "wait",
        "--data",
        data,
        "--rate",
        "200/s",
        "--duration",
        "1s",
        "--deadline",
        "100ms",
    )
    assert found["answered"] + sum(count for *_, count in found["reasons"]) == found["requests"]
    assert found["in_time"] <= found["answered"] < found["requests"]
    assert found["goodput"] <= 50
    assert {status for status, *_ in found["reasons"]} <= {"503", "504"}
    assert any("deadline" in text for _, text, _ in found["reasons"])


def test_a_trace_is_played_with_its_contracts(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("at,priority,deadline\n5,high,80ms\n5.2,,\n5.4,low,1s\n")
    with Stalling(after=0, seconds=0) as server:
        found = figures(server.url, "--model", "m", "--arrivals", trace, "--speed", "2")
        sent = server.headers[1:]
    assert found["requests"] == 3
    assert [(h.get("semaforo-priority"), h.get("semaforo-deadline-ms")) for h in sent] == [
        ("high", "80"), (None, None), ("low", "1000"),
    ]  # fmt: skip
    assert found["seconds"] == pytest.approx(0.2, abs=0.05)


def test_a_chat_is_timed_by_its_tokens() -> None:
    with Upstream(word_s=0.004) as upstream:
        upstream.faults.extend([Fault("status", status=429), Fault("cut", after=2), Fault("error", after=1)])
        found = figures(
            upstream.url, "--model", "bigram", "--stream", "--rate", "30/s", "--arrivals", "uniform",
            "--duration", "1s", "--max-tokens", "12", "--prompt", "a fast train",
        )  # fmt: skip
        assert upstream.seen[-1]["max_tokens"] == 12
    assert found["requests"] == 30
    # One of the faults met the question before the load.
    assert found["answered"] == 28
    assert sorted(status for status, *_ in found["reasons"]) == ["broken", "cut short"]
    assert found["first_token"]["count"] == 28
    assert 0.004 <= found["first_token"]["p50"] < found["latency"]["p50"]
    assert found["per_token"]["p50"] >= 0.003
    assert found["tokens_per_s"] > 28


def test_a_server_that_goes_away_is_reported_not_waited_for() -> None:
    with Stalling(after=0, seconds=0) as server:
        running = subprocess.Popen(
            command(server.url, "--model", "m", "--rate", "100/s", "--duration", "1500ms", "--json", "-"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while server.served < 20:
            time.sleep(0.01)
    out, errors = running.communicate(timeout=20)
    assert running.returncode == 0, errors
    found = json.loads(out)
    assert found["status"]["broken"] > 20
    assert found["unanswered"] == 0
    assert any("no connection" in text for _, text, _ in found["reasons"])


def test_ctrl_c_reports_what_ran_so_far() -> None:
    with Stalling(after=0, seconds=0) as server:
        running = subprocess.Popen(
            command(server.url, "--model", "m", "--rate", "100/s", "--duration", "60s"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        while server.served < 20:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        out, errors = running.communicate(timeout=20)
    assert running.returncode == 0, errors
    assert "ended early, after" in out
    assert "100.00%" in out


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --task or --model"),
        (["--task", "diggits"], "no model, task type or alias is named 'diggits'"),
        (["--task", "digits", "--rate", "fast"], "--rate 'fast' takes requests per second"),
        (["--task", "digits", "--concurrency", "2", "--rate", "5/s"], "leave --rate and --arrivals out"),
        (["--task", "digits", "--rate", "2000000/s"], "more than --max-requests"),
        (["--task", "echo-bytes"], "give --data FILE"),
        (["--task", "echo-fp32"], "give its sizes, as --shape x=8"),
        (["--task", "digits", "--data", "nowhere.json"], "--data nowhere.json: No such file"),
        (["--task", "digits", "--arrivals", "burst"], "neither poisson nor uniform nor a file"),
        (["--task", "digits", "--plot", "plot.docx"], "ends with .png"),
        (["--task", "digits", "--json", "no/such/folder.json"], "there is no folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(served: Served, words: list[str], said: str) -> None:
    before = served.call(lambda: served.engine.metrics.arrived)
    ran = CliRunner().invoke(app, ["bench", served.url, "--duration", "1s", *words])
    assert (isinstance(ran.exception, SemaforoError), ran.stdout) == (True, "")
    assert said in str(ran.exception)
    assert served.call(lambda: served.engine.metrics.arrived) == before


def test_another_machine_is_loaded_only_with_consent() -> None:
    ran = CliRunner().invoke(app, ["bench", "http://192.0.2.7:8080", "--task", "digits"])
    assert isinstance(ran.exception, SemaforoError)
    assert "add --allow-remote if its operator agrees" in str(ran.exception)


def test_no_server_is_said_at_once() -> None:
    ran = bench(f"http://127.0.0.1:{_free_port()}", "--task", "digits")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("no server at")
    assert len(ran.stderr.splitlines()) == 1
