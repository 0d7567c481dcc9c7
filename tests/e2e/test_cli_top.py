"""``semaforo top``: once, as JSON, and live in a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import httpx
import pytest

from served_fleet import Served, serving, small_fleet

ASK = {"inputs": [{"name": "image", "shape": [2, 4], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6, 7, 8]}]}


def top(*words: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "semaforo", "top", *words],
        capture_output=True, text=True, timeout=30, check=False, env=environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(small_fleet(tmp_path_factory.mktemp("fleet"))) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def asked(served: Served) -> Iterator[None]:
    """Keep asking, good questions and ones that are refused, while the tests look."""
    over = threading.Event()
    refused = {"semaforo-min-quality": "0.999"}

    def ask() -> None:
        with httpx.Client(base_url=served.url) as client:
            while not over.is_set():
                assert client.post("/v2/models/digits/infer", json=ASK).status_code == 200
                assert client.post("/v2/models/digits/infer", json=ASK, headers=refused).status_code == 422
                over.wait(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_figures_hold_every_counter(served: Served) -> None:
    before = httpx.get(f"{served.url}/semaforo/v1/figures").json()
    fails = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}
    assert httpx.post(f"{served.url}/v2/models/fail/infer", json=fails).status_code == 500
    for _ in range(3):
        httpx.post(f"{served.url}/v2/models/digits/infer", json=ASK).raise_for_status()
    after = httpx.get(f"{served.url}/semaforo/v1/figures").json()

    def total(found: dict[str, object], list_: str, field: str) -> float:
        return sum(entry[field] for entry in found[list_])  # type: ignore[attr-defined]

    assert after["outcomes"]["failed"] - before["outcomes"]["failed"] == 1
    assert total(after, "variants", "failed") - total(before, "variants", "failed") == 1
    assert after["outcomes"]["done"] - before["outcomes"]["done"] == 3
    assert total(after, "variants", "answered") - total(before, "variants", "answered") == 3
    assert total(after, "variants", "rows") - total(before, "variants", "rows") == 6
    assert total(after, "replicas", "served_rows") - total(before, "replicas", "served_rows") == 6
    assert {task["name"] for task in after["tasks"]} >= {"digits", "fail"}
    assert after["now_s"] > before["now_s"]
    assert after["process"]["rss_bytes"] > 1_000_000


def test_once_prints_a_table_of_80_columns(served: Served, asked: None) -> None:
    ran = top(served.url, "--once", "--interval", "500ms")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert lines[0].startswith(f"semaforo top · {served.url} · up ")
    assert re.search(r"[1-9][\d.]* arrive/s · [1-9][\d.]* done/s · [1-9][\d.]* refused/s", lines[1])
    assert re.search(r"^digits +0 +[1-9]", ran.stdout, re.MULTILINE)
    assert re.search(r"^sleeper-x-1 +ready", ran.stdout, re.MULTILINE)
    wide = top(served.url, "--once", "--interval", "200ms", columns=160)
    assert {"errors", "memory"} <= set(wide.stdout.split())
    assert "…" not in wide.stdout


def test_json_holds_what_the_table_shows(served: Served, asked: None) -> None:
    ran = top(served.url, "--json", "--interval", "500ms")
    found = json.loads(ran.stdout)
    lines = {line["name"]: line for line in found["lines"]}
    assert lines["digits"]["answered"] == pytest.approx(found["outcomes"]["done"], rel=0.01)
    assert found["outcomes"]["refused"] == pytest.approx(found["outcomes"]["done"], rel=0.1)
    assert 0 < lines["digits"]["p50_s"] <= lines["digits"]["p99_s"]
    rows = sum(replica["rows"] for replica in found["replicas"])
    assert rows == pytest.approx(2 * found["outcomes"]["done"], rel=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{url}", "--interval", "soon"], "'soon' is not a duration"),
        (["{url}", "--interval", "1ms"], "--interval '1ms' takes 100ms to 1h"),
        (["http://127.0.0.1:{free}"], "no server at"),
        (["ftp://somewhere"], "is no url"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(served: Served, words: list[str], said: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        free = str(listener.getsockname()[1])
    ran = top(*(word.format(url=served.url, free=free) for word in words))
    assert ran.returncode == 1
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


class Terminal:
    """`top` in a terminal of 80 columns."""

    def __init__(self, url: str) -> None:
        self.main, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "semaforo", "top", url, "--interval", "200ms"],
            stdin=other, stdout=other, stderr=other, close_fds=True, start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"},
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(other)
        self.seen = b""

    def until(self, text: str) -> None:
        """Read until something is shown that was not shown before."""
        until = time.monotonic() + 20
        start = len(self.seen)
        while text.encode() not in self.seen[start:]:
            assert time.monotonic() < until, self.seen[start:].decode(errors="replace")
            if select.select([self.main], [], [], 0.1)[0]:
                self.seen += os.read(self.main, 65_536)

    def press(self, key: bytes) -> int:
        """Press a key and return the exit code; what is still shown is read."""
        os.write(self.main, key)
        until = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < until
            if select.select([self.main], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.main, 65_536)
                except OSError:
                    break
        code = self.process.wait(10)
        os.close(self.main)
        return code


def test_a_terminal_is_kept_current_until_q(served: Served, asked: None) -> None:
    shown = Terminal(served.url)
    shown.until("replicas ready")
    shown.until("replicas ready")
    assert shown.press(b"q") == 0
    assert b"Traceback" not in shown.seen


def test_a_server_may_go_and_come_back(tmp_path: Path) -> None:
    from tiny_fleet import write_fleet

    fleet = write_fleet(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def serve() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "semaforo", "serve", str(fleet), "--http-port", str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert "semaforo serves" in process.stdout.readline()
        return process

    first = serve()
    try:
        shown = Terminal(f"http://127.0.0.1:{port}")
        shown.until("4 of 4 replicas ready")
        first.send_signal(signal.SIGINT)
        shown.until("waiting for")
    finally:
        first.kill()
        first.communicate(timeout=20)
    second = serve()
    try:
        shown.until("4 of 4 replicas ready")
        assert shown.press(b"\x03") == 0
        assert b"Traceback" not in shown.seen
    finally:
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=20)
