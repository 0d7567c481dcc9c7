"""Starting and ending HTTP and gRPC together: the command line, signals, grace, ports that are taken."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from test_grpc import SERVICE, asked_of, sleep, unary

from semaforo.wire.inference_messages import message

FLEET = """
tasks:
  wait: {inputs: {seconds: fp32}, outputs: {slept: fp32}}
  fill: {inputs: {seconds: fp32}, outputs: {full: "fp32[25000000]"}}
models:
  sleeper: {task: wait, python: "naps.py:sleep", isolation: ISOLATION, max_batch: 1}
  filler: {task: fill, python: "naps.py:fill", isolation: thread, max_batch: 1}
server: {http_port: 0, grpc_port: 0, grace: GRACE}
"""
NAPS = """
import time

import numpy as np

def sleep(seconds):
    time.sleep(float(seconds.sum()))
    return seconds

def fill(seconds):
    time.sleep(float(seconds.sum()))
    return np.ones((1, 25_000_000), np.float32)
"""
SOURCE = Path(__file__).parents[2] / "src"


class Process:
    """``semaforo serve`` in a process of its own."""

    def __init__(
        self, folder: Path, *options: str, grace: str = "5s", path: str = "", isolation: str = "thread"
    ) -> None:
        text = FLEET.replace("GRACE", grace).replace("ISOLATION", isolation)
        (folder / "fleet.yaml").write_text(text)
        (folder / "naps.py").write_text(NAPS)
        self.child = subprocess.Popen(
            [sys.executable, "-m", "semaforo", "serve", str(folder / "fleet.yaml"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in (path, str(SOURCE)) if p)},
        )
        assert self.child.stdout is not None
        self.said = self.child.stdout.readline()
        found = re.search(r"at (http://\S+) and grpc://(\S+) ", self.said)
        self.http, self.grpc = found.groups() if found else ("", "")

    def stop(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what was said on stderr."""
        _, err = self.child.communicate(timeout=20)
        return self.child.returncode, err


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    found = Process(tmp_path)
    yield found
    found.child.kill()
    found.child.communicate()


def working(process: Process) -> None:
    """Wait until a replica works."""
    until = time.monotonic() + 10
    while '"in_flight_rows":1' not in httpx.get(f"{process.http}/semaforo/v1/fleet").text:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_work_finish_ends_idle_streams_and_watches(
    process: Process, number: signal.Signals
) -> None:
    with grpc.insecure_channel(process.grpc) as channel:
        silent = threading.Event()

        def nothing() -> Iterator[bytes]:
            silent.wait(20)
            yield from ()

        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(nothing())
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="wait"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        asked = unary(channel, "ModelInfer").future(sleep(1.0, id="last"))
        working(process)
        process.child.send_signal(number)
        assert stream.code() == grpc.StatusCode.UNAVAILABLE
        assert stream.details() == "the server is stopping"
        silent.set()
        assert watch.code() == grpc.StatusCode.UNAVAILABLE
        assert asked.result(timeout=5).id == "last"
    status, err = process.stop()
    assert (status, err) == (0, "")


def test_a_long_answer_reaches_its_client_before_the_server_ends(process: Process) -> None:
    """100 MB are on their way for longer than the server has anything to do."""
    with grpc.insecure_channel(process.grpc, [("grpc.max_receive_message_length", -1)]) as channel:
        asked = unary(channel, "ModelInfer").future(asked_of("fill", "seconds", np.array([0.5])))
        working(process)
        process.child.send_signal(signal.SIGTERM)
        assert len(asked.result(timeout=15).raw_output_contents[0]) == 100_000_000
    assert process.stop() == (0, "")


def test_work_that_outlasts_the_grace_is_told_so(tmp_path: Path) -> None:
    process = Process(tmp_path, grace="300ms")
    try:
        with grpc.insecure_channel(process.grpc) as channel:
            asked = unary(channel, "ModelInfer").future(sleep(3.0))
            working(process)
            process.child.send_signal(signal.SIGTERM)
            assert asked.code() == grpc.StatusCode.UNAVAILABLE
            assert asked.details() == "the server is stopping"
            assert dict(asked.trailing_metadata())["semaforo-retry-after-ms"] == "1000"
    finally:
        process.child.kill()
        process.child.communicate()


def test_a_second_signal_ends_at_once(process: Process) -> None:
    with grpc.insecure_channel(process.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        next(watch)
        asked = unary(channel, "ModelInfer").future(sleep(4.0))
        working(process)
        started = time.monotonic()
        process.child.send_signal(signal.SIGINT)
        # The first signal has been heard once the watch has ended.
        assert watch.code() == grpc.StatusCode.UNAVAILABLE
        process.child.send_signal(signal.SIGINT)
        assert asked.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert time.monotonic() - started < 2


def test_options_win_over_the_file_and_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(tmp_path, "--grpc-port", str(port))
        status, err = process.stop()
    assert process.said == ""
    assert status == 1
    assert err.strip().splitlines()[-1] == (
        f"127.0.0.1:{port} is already in use: choose another port with --grpc-port or stop the other process"
    )
    assert "Traceback" not in err


def test_others_are_served_only_with_keys(tmp_path: Path) -> None:
    process = Process(tmp_path, "--host", "0.0.0.0")
    status, err = process.stop()
    assert status == 1
    assert "no API keys are configured" in err


def test_without_grpc_an_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/grpc.py").write_text("raise ModuleNotFoundError(name='grpc')")
    process = Process(tmp_path, path=str(tmp_path / "without"))
    status, err = process.stop()
    assert status == 1
    assert "needs grpc: pip install 'semaforo[grpc]'" in err
    assert "Traceback" not in err


def test_a_server_without_the_port_does_not_load_grpc(tmp_path: Path) -> None:
    text = (
        "import sys, semaforo.server.run, semaforo.build, semaforo.cli.serve\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('grpc', 'google')]"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env=os.environ | {"PYTHONPATH": str(SOURCE)}, timeout=30
    )
    assert done.returncode == 0


def test_replicas_in_processes_come_and_go_beside_grpc(tmp_path: Path) -> None:
    """Loading a model starts a process from one in which gRPC has threads."""
    process = Process(tmp_path, isolation="process")
    sleeper = {"model_name": "sleeper"}
    try:
        with grpc.insecure_channel(process.grpc) as channel:
            for _ in range(2):
                assert unary(channel, "ModelInfer")(sleep(0.01)).model_name == "sleeper"
                for verb in ("Unload", "Load"):
                    asked = message(f"RepositoryModel{verb}Request")(**sleeper)
                    unary(channel, f"RepositoryModel{verb}")(asked)
        process.child.send_signal(signal.SIGINT)
        assert process.stop() == (0, "")
    finally:
        process.child.kill()
        process.child.communicate()
