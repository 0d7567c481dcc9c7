"""Starting and ending the server: signals, grace, addresses that cannot be had."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
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

import httpx
import pytest

from semaforo.errors import ConfigError
from semaforo.server.listener import check_exposure, listen
from semaforo.server.settings import KeySettings, ServerSettings

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = """
import asyncio, sys
from pathlib import Path
from served_fleet import only, small_fleet
from semaforo.errors import ConfigError
from semaforo.live.engine import Engine
from semaforo.live.handles import HandleFactory
from semaforo.server.run import serve
from semaforo.server.settings import ServerSettings

async def main():
    engine = Engine(HandleFactory())
    await engine.start(only(small_fleet(Path(sys.argv[1])), "wait"))
    settings = ServerSettings(port=int(sys.argv[2]), grace_s=float(sys.argv[3]))
    try:
        await serve(engine, settings, ready=lambda url: print(url, flush=True))
    except ConfigError as error:
        sys.exit(str(error))
    print("ended", flush=True)

asyncio.run(main())
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, port: int = 0, grace_s: float = 5.0) -> None:
        path = os.pathsep.join([str(TESTS), str(TESTS / "integration"), *sys.path])
        self.child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(port), str(grace_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()

    def stop(self) -> tuple[int, str, str]:
        """Wait for the end; return the exit status and what was written."""
        out, err = self.child.communicate(timeout=20)
        return self.child.returncode, out, err


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    found = Process(tmp_path)
    yield found
    found.child.kill()
    found.child.communicate()


def ask(url: str, seconds: float) -> Any:
    tensor = {"name": "seconds", "shape": [1], "datatype": "FP32", "data": [seconds]}
    return httpx.post(f"{url}/v2/models/wait/infer", json={"inputs": [tensor]}, timeout=20)


async def in_flight(url: str) -> None:
    """Wait until a replica works."""
    async with asyncio.timeout(10):
        while (
            '"in_flight_rows":1' not in (await asyncio.to_thread(httpx.get, f"{url}/semaforo/v1/fleet")).text
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_work_finish_and_ends_cleanly(process: Process, number: signal.Signals) -> None:
    async def during() -> httpx.Response:
        asked = asyncio.create_task(asyncio.to_thread(ask, process.url, 1.0))
        await in_flight(process.url)
        process.child.send_signal(number)
        await asyncio.to_thread(wait_refused, process.url)
        assert not asked.done()
        return await asked

    answer = asyncio.run(during())
    assert answer.status_code == 200
    status, out, err = process.stop()
    assert (status, out) == (0, "ended\n"), err
    assert "Traceback" not in err


def test_a_request_that_crosses_with_the_end_is_answered(process: Process) -> None:
    connection = http.client.HTTPConnection(process.url.removeprefix("http://"), timeout=10)
    body = json.dumps({"inputs": [{"name": "seconds", "shape": [1], "datatype": "FP32", "data": [0.01]}]})
    for last in (False, True):
        if last:
            process.child.send_signal(signal.SIGINT)
            wait_refused(process.url)
        connection.request("POST", "/v2/models/wait/infer", body)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read()
        assert answer.will_close == last
    status, out, err = process.stop()
    assert (status, out) == (0, "ended\n"), err


def wait_refused(url: str) -> None:
    """Wait until the server takes no new connections."""
    host, _, port = url.removeprefix("http://").partition(":")
    until = time.monotonic() + 10
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < until:
            # One that nobody has taken yet when the server stops listening is reset.
            with contextlib.suppress(ConnectionResetError):
                socket.create_connection((host, int(port))).close()
            time.sleep(0.002)


def test_a_second_signal_ends_at_once(process: Process) -> None:
    async def during() -> float:
        asked = asyncio.create_task(asyncio.to_thread(ask, process.url, 4.0))
        await in_flight(process.url)
        started = time.monotonic()
        process.child.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        process.child.send_signal(signal.SIGINT)
        assert process.child.stdout is not None
        assert await asyncio.to_thread(process.child.stdout.readline) == "ended\n"
        took = time.monotonic() - started
        process.child.kill()
        # It was told 503, or cut off with the process; it never waits for its four seconds.
        results = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(results[0], httpx.HTTPError) or results[0].status_code == 503
        return took

    assert asyncio.run(during()) < 2


def test_work_that_outlasts_the_grace_is_told_so(tmp_path: Path) -> None:
    process = Process(tmp_path, grace_s=1.0)

    async def during() -> httpx.Response:
        asked = asyncio.create_task(asyncio.to_thread(ask, process.url, 3.0))
        await in_flight(process.url)
        process.child.send_signal(signal.SIGTERM)
        return await asked

    try:
        answer = asyncio.run(during())
        assert answer.status_code == 503
        assert json.loads(answer.content) == {"error": "the server is stopping"}
    finally:
        process.child.kill()
        process.child.communicate()


def test_a_port_that_is_taken_is_said_in_one_line(process: Process, tmp_path: Path) -> None:
    port = int(process.url.rsplit(":", 1)[1])
    second = Process(tmp_path, port)
    assert second.url == ""
    status, _, err = second.stop()
    assert status == 1
    assert f"127.0.0.1:{port} is already in use: choose another port with --http-port" in err
    assert "Traceback" not in err


def test_an_address_of_somebody_else_is_said() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0: .*check --host"):
        listen("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen("no-such-host.invalid", 0)


def test_others_are_served_only_with_keys_or_when_told_so() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(ServerSettings(host=host))
    check_exposure(ServerSettings(host="0.0.0.0", keys={"k": KeySettings()}))
    check_exposure(ServerSettings(host="0.0.0.0", allow_anonymous=True))
    for host in ("0.0.0.0", "::", "example.org", "192.168.0.1"):
        with pytest.raises(ConfigError, match="no API keys are configured"):
            check_exposure(ServerSettings(host=host))


def test_the_same_port_can_be_had_again_at_once() -> None:
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        first.close()
    listen("127.0.0.1", port).close()
