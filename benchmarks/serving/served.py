"""One server of the comparison while it runs: started until its first right answer, weighed, pinned, ended whole.

Rules this module keeps:

1. A server is everything that carries its mark in the environment, wherever it moved in the process tree; CPU and
   memory are sums over that, and when it ends all of that ends.
2. It counts as started when an answer has been compared with onnxruntime's.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from benchmarks.processes import START_S, STOP_S, environment, free_port, pin
from benchmarks.report import ROOT
from benchmarks.serving.forms import GRPC, GRPC_METHOD, JSON, Case, Form
from benchmarks.serving.peers import ECHO, Peer, Place

_MARK = "SEMAFORO_BENCHMARK_MARK"


class Failed(Exception):
    """A server did not start, answered wrongly, or ended; says which and shows its log."""


class Served:
    """A peer with a model, as a context.

    Attributes:
        start_s: Seconds from the command to the first right answer.
    """

    def __init__(self, peer: Peer, python: str, case: Case, form: Form = JSON) -> None:
        self.peer = peer
        self.start_s = float("nan")
        self._case, self._form = case, form
        self._mark = secrets.token_hex(8)
        self._scratch = tempfile.TemporaryDirectory(prefix="semaforo-peer-")
        scratch = Path(self._scratch.name)
        self._log = scratch / "log"
        self.place = Place(python, case.model, form, scratch, free_port(), free_port(), free_port())

    def __enter__(self) -> Self:
        began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.peer.command(self.place), cwd=self.place.scratch, stdout=log, stderr=log,
                env=self._environment(), start_new_session=True,
            )  # fmt: skip
        try:
            self._wait()
            self.start_s = time.monotonic() - began
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _environment(self) -> dict[str, str]:
        place = self.place
        said = {
            _MARK: self._mark,
            "MODEL": str(place.model.resolve()),
            "FORM": self._form.name,
            "PORT": str(place.port),
            "GRPC_PORT": str(place.grpc_port),
            "METRICS_PORT": str(place.metrics_port),
            "SCRATCH": str(place.scratch),
            **self.peer.environment,
        }
        given = environment(said)
        if self.peer.own:
            # Nothing of this environment reaches the peer's but the benchmark's own modules.
            given = {k: v for k, v in given.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME")}
            given["PYTHONPATH"] = str(ROOT)
            given["PATH"] = os.pathsep.join([str(Path(place.python).parent), given.get("PATH", "")])
        return given

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        last: object = "no connection"
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise Failed(f"{self.peer.title} ended with {self._process.returncode}:\n{self.tail()}")
            try:
                self.check(self._form)
                return
            except ValueError as error:
                raise Failed(f"{self.peer.title}: {error}\n{self.tail()}") from None
            except (OSError, http.client.HTTPException, ConnectionError) as error:
                last = error
            time.sleep(0.02)
        raise Failed(
            f"{self.peer.title} gave no right answer within {START_S:.0f} s ({last}):\n{self.tail()}"
        )

    def check(self, form: Form) -> None:
        """Ask once and compare.

        Raises:
            ConnectionError: It is not ready yet.
            ValueError: The answer is wrong, or it does not understand the question.
        """
        body, headers = form.write(self._case.rows)
        if form is GRPC:
            answer = self._call(body)
            if self.peer is ECHO and answer != body:
                raise ValueError("the echo is not what was sent")
            if self.peer is not ECHO:
                self._case.check(GRPC.read(answer, {}))
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=5)
        try:
            connection.request("POST", self.path(form), body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status in (400, 422):
                raise ValueError(f"status {response.status}: {answer[:200]!r}")
            if response.status != 200:
                raise ConnectionError(f"status {response.status}: {answer[:200]!r}")
            self._case.check(form.read(answer, {k.lower(): v for k, v in response.getheaders()}))
        finally:
            connection.close()

    def _call(self, body: bytes) -> bytes:
        import grpc

        with grpc.insecure_channel(f"127.0.0.1:{self.place.grpc_port}") as channel:
            try:
                answer: bytes = channel.unary_unary(GRPC_METHOD)(body, timeout=5)
            except grpc.RpcError as error:
                raise ConnectionError(str(error)) from None
            return answer

    def answer_bytes(self) -> int:
        """Return the length of the right answer's message over gRPC."""
        return len(self._call(GRPC.write(self._case.rows)[0]))

    def path(self, form: Form) -> str:
        """Return where a form is sent."""
        return self.peer.path if form is JSON else self.peer.heavy_path

    def tail(self) -> str:
        """Return the end of what it wrote."""
        return self._log.read_text(errors="replace")[-3000:]

    def members(self) -> list[psutil.Process]:
        """Return every process of it that runs."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self._mark:
                    found.append(process)
        return found

    def cpu_s(self) -> float:
        """Return its CPU seconds so far, user and system, ended children included."""
        total = 0.0
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def rss_mb(self) -> float:
        """Return the sum of its processes' resident memory in MB; pages they share count for each."""
        total = 0.0
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss / 1e6
        return total

    def split(self, model_core: int, other_core: int) -> bool:
        """Keep the model's process on one core and the rest on the other; False where one process does both."""
        if self.peer.runs_model is None:
            return False
        for process in self.members():
            with contextlib.suppress(psutil.Error, OSError):
                runs = self.peer.runs_model(process, process.pid == self._process.pid)
                pin(process.pid, [model_core if runs else other_core])
        return True

    def _stop(self) -> None:
        members = self.members()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for process in {*members, *self.members()}:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        psutil.wait_procs(members, timeout=5)
        self._scratch.cleanup()


def best_rows_per_s(case: Case, seconds: float, core: int | None) -> tuple[float, int]:
    """Return onnxruntime's own rows per second at its best batch, and that batch; on one core, in this process."""
    from benchmarks import models
    from benchmarks.processes import pinned

    with pinned(None if core is None else [core]):
        loaded = models.session(case.model)
        best = (0.0, 0)
        batches = (1, 2, 4, 8, 16, 32)
        for batch in batches:
            given: dict[str, Any] = {"x": np.repeat(case.rows, batch, axis=0)}
            loaded.run(None, given)
            began, count = time.perf_counter(), 0
            while (took := time.perf_counter() - began) < seconds / len(batches):
                loaded.run(None, given)
                count += batch
            best = max(best, (count / took, batch))
    return best
