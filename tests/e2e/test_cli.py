"""The command line as a user types it: real processes, real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny_fleet import FLEET, scaling_model, write_fleet

Ran = subprocess.CompletedProcess[str]


def semaforo(*words: str | Path, stdin: str = "", folder: Path | None = None, columns: int = 100) -> Ran:
    command = [sys.executable, "-m", "semaforo", *map(str, words)]
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=40,
        check=False,
        cwd=folder,
        env=environment,
    )


class Server:
    """A served fleet."""

    def __init__(self, fleet: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "semaforo", "serve", str(fleet), "--http-port", "0", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.announced = self.process.stdout.readline()
        self.url = next((word for word in self.announced.split() if word.startswith("http")), "")

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(write_fleet(tmp_path_factory.mktemp("served")))
    assert server.url, server.process.communicate()[1]
    yield server
    if server.process.poll() is None:
        server.stop()


def test_serve_announces_what_it_serves(served: Server) -> None:
    assert served.announced.startswith(
        "semaforo serves double, shout, chat with 4 replicas at http://127.0.0.1:"
    )


def test_infer_asks_a_server(served: Server) -> None:
    ran = semaforo("infer", "double", "--data", '{"x": [1, 2, 3]}', "--url", served.url)
    assert json.loads(ran.stdout) == {"y": [2, 4, 6]}
    assert ran.stderr.startswith("exact/default on exact")


def test_infer_reads_a_file_or_stdin_and_carries_the_contract(served: Server, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"x": [[1, 2, 3], [4, 5, 6]]}')
    ran = semaforo(
        "infer", "double", "--data", f"@{tmp_path}/x.json", "--privacy", "site", "--why", "--url", served.url
    )
    first, second = json.loads(ran.stdout)["y"]
    assert first + second == pytest.approx([1.9, 3.8, 5.7, 7.6, 9.5, 11.4])
    assert "ruled out by privacy" in ran.stderr
    ran = semaforo("infer", "shout", "--data", "-", "--url", served.url, stdin='{"text": "hello"}')
    assert json.loads(ran.stdout) == {"loud": "HELLO"}
    whole = '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
    ran = semaforo("infer", "double", "--data", whole, "--url", served.url)
    assert json.loads(ran.stdout) == {"y": [[2, 4, 6]]}


def test_infer_says_a_chat_as_it_comes(served: Server) -> None:
    ran = semaforo("infer", "chat", "--text", "one two", "--url", served.url)
    assert ran.stdout.split() == ["one", "two"]
    assert "parrot/default" in ran.stderr


def test_explain_finds_a_request_by_the_beginning_of_its_id(served: Server) -> None:
    asked = semaforo(
        "infer", "double", "--data", '{"x": [1, 2, 3]}', "--min-quality", "0.8", "--url", served.url
    )
    request = asked.stderr.split()[-1]
    told = semaforo("explain", request[:10], "--url", served.url)
    assert told.stdout.startswith("double · min quality 0.8")
    assert "rough/default" in told.stdout
    assert "ruled out by quality" in told.stdout
    assert semaforo("explain", "--url", served.url).stdout == told.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["infer", "dubble", "--data", '{"x": [1]}'], "Did you mean 'double'"),
        (["infer", "double", "--data", '{"x": [1, 2]}'], "input 'x' has shape [2]"),
        (["infer", "double", "--data", '{"x": [1,'], "--data is no JSON"),
        (["infer", "double", "--data", "@none.json"], "No such file"),
        (["infer", "double"], "give --data for tensors, or --text for a chat"),
        (["infer", "double", "--data", '{"x": [1, 2, 3]}', "--min-quality", "0.99"], "0.9 < 0.99"),
        (["infer", "double", "--data", '{"x": [1, 2, 3]}', "--deadline", "20"], "write it with a unit"),
        (["infer", "chat", "--data", '{"x": 1}'], "chat"),
        (["explain", "zzzz"], "no decision is kept under 'zzzz'"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(served: Server, words: list[str], said: str) -> None:
    ran = semaforo(*words, "--url", served.url)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_nobody_at_the_address() -> None:
    ran = semaforo("explain", "7f3a", "--url", "http://127.0.0.1:9")
    assert ran.returncode == 1
    assert ran.stderr == (
        "no server at http://127.0.0.1:9: start one with `semaforo serve`, "
        "or give another url (`--url`, in Python `url`)\n"
    )


def test_infer_runs_a_fleet_file_without_a_server(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    ran = semaforo("infer", "double", "--data", '{"x": [1, 2, 3]}', "--fleet", fleet, "--why")
    assert json.loads(ran.stdout) == {"y": [2, 4, 6]}
    assert "▸ exact/default" in ran.stderr
    assert semaforo("infer", "chat", "--text", "a b", "--fleet", fleet).stdout.split() == ["a", "b"]
    assert not (tmp_path / "journal.bin").exists()  # a single answer does not push the server's journal aside


def test_ctrl_c_stops_quietly_and_the_journal_replays(tmp_path: Path) -> None:
    server = Server(write_fleet(tmp_path))
    for _ in range(3):
        semaforo("infer", "double", "--data", '{"x": [1, 2, 3]}', "--url", server.url)
    code, errors = server.stop()
    assert (code, errors) == (0, "")
    ran = semaforo("replay", tmp_path / "journal.bin")
    assert ran.returncode == 0
    assert "answers: done 3" in ran.stdout
    assert ran.stdout.endswith("identical: every decision is the same\n")


def test_replay_refuses_what_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("nothing")
    for name in ("notes", "none"):
        ran = semaforo("replay", tmp_path / name)
        assert ran.returncode == 1
        assert "journal" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


def test_a_port_in_use_is_named(served: Server, tmp_path: Path) -> None:
    port, fleet = served.url.rpartition(":")[2], write_fleet(tmp_path)
    marked = "from pathlib import Path\nPath(__file__).with_name('loaded').touch()\n"
    (tmp_path / "words.py").write_text(marked + (tmp_path / "words.py").read_text())
    ran = semaforo("serve", fleet, "--http-port", port)
    assert ran.returncode == 1
    assert f"127.0.0.1:{port} is already in use" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "loaded").exists(), "no model is loaded for nothing"


def test_serve_without_one_good_model_ends(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    for model in ("rough", "exact"):
        (tmp_path / f"models/{model}/1/model.onnx").write_bytes(b"no model")
    (tmp_path / "words.py").write_text("1 / 0\n")
    ran = semaforo("serve", fleet, "--http-port", "0", "--log-level", "error")
    assert ran.returncode == 1
    assert "no model could be loaded" in ran.stderr


def test_check_shows_every_variant(tmp_path: Path) -> None:
    ran = semaforo("check", write_fleet(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.rstrip().endswith("is good: 4 variants load")
    for word in ("x: fp32[3]", "rough/default", "shouter/default", "thread", "0.9", "messages"):
        assert word in ran.stdout


def test_check_keeps_names_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    text = FLEET.replace("shouter:", "a-very-loud-shouter:")
    ran = semaforo("check", write_fleet(tmp_path, text), columns=80)
    assert "a-very-loud-shouter/default" in ran.stdout
    assert max(map(len, ran.stdout.splitlines()[:-1])) <= 80


def test_a_journal_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path, FLEET.replace("journal: journal.bin", "journal: models"))
    ran = semaforo("serve", fleet, "--http-port", "0")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"cannot write the journal {tmp_path}/models: Is a directory\n"


@pytest.mark.parametrize(
    ("number", "before"),
    [
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_IGN),  # as a script's shell starts what is to run in the background
    ],
)
def test_a_signal_while_loading_ends_it_quietly(
    tmp_path: Path, number: signal.Signals, before: signal.Handlers
) -> None:
    fleet = write_fleet(tmp_path, FLEET.replace("isolation: inline", "isolation: process"))
    (tmp_path / "words.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('loading').touch()\ntime.sleep(60)\n"
    )
    fleet.write_text(fleet.read_text().replace("isolation: thread", "isolation: process"))
    server = subprocess.Popen(
        [sys.executable, "-m", "semaforo", "serve", str(fleet), "--http-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )  # fmt: skip
    until = time.monotonic() + 20
    while not (tmp_path / "loading").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    server.send_signal(number)
    assert server.communicate(timeout=20) == ("", "")
    assert server.returncode == 130


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is a folder: name the file in it. Did you mean '{folder}/fleet.yaml'?"),
        ("models", "is a folder: name the file in it."),
        ("fleet.yml", "no such file. `semaforo init FOLDER` writes one, or name another"),
        ("models/rough/1/model.onnx", "is not text: byte"),
    ],
)
def test_what_is_no_fleet_file_is_said(tmp_path: Path, name: str, said: str) -> None:
    write_fleet(tmp_path)
    (tmp_path / "models/rough/1/model.onnx").write_bytes(b"\xff\x00")
    ran = semaforo("serve", tmp_path / name)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said.format(folder=tmp_path) in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_check_lists_all_problems_with_their_lines(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    scaling_model(tmp_path / "models/exact/1/model.onnx", 2.0, width=4)
    (tmp_path / "words.py").write_text("def shout(text: list[str]) -> list[str]: ...\n")
    text = fleet.read_text()
    fleet.write_text(text.replace("    quality: 0.5\n", "    quality: 0.5\n    options: {thread: 1}\n"))
    ran = semaforo("check", fleet)
    assert ran.returncode == 1
    lines = ran.stderr.strip().splitlines()
    assert lines[0].startswith(f"{fleet}:15: models.rough.options.thread: ")
    assert "Did you mean 'threads'" in lines[0]
    for line, side in zip(lines[1:3], ("inputs.x", "outputs.y"), strict=True):
        assert line.startswith(f"{fleet}:17: models.exact.adapter.{side}: shape mismatch")
    assert lines[3].startswith(f"{fleet}:27: models.parrot")
    assert len(lines) == 4


def test_check_names_each_mismatch_between_task_and_model(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    text = fleet.read_text().replace("{x: fp32[3]}", "{x: int64[3]}")
    adapter = "    adapter:\n      inputs:\n        x: {from: x, dtype: fp32}\n"
    adapter += "      outputs:\n        y: {from: z}\n"
    fleet.write_text(text.replace("    quality: 0.9\n", "    quality: 0.9\n" + adapter))
    ran = semaforo("check", "fleet.yaml", folder=tmp_path)
    assert ran.returncode == 1
    first, second = ran.stderr.strip().splitlines()
    assert first.startswith(
        "fleet.yaml:11: models.rough.adapter.inputs.x: dtype mismatch: the task gives x: int64[3]"
    )
    assert second == (
        "fleet.yaml:24: models.exact.adapter.outputs.y: unknown source: the model has no output 'z'. It has y"
    )


def test_a_wrong_key_names_line_key_and_the_nearest(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    fleet.write_text(fleet.read_text().replace("    quality: 0.5", "    replica: 2"))
    for command in ("check", "serve"):
        ran = semaforo(command, "fleet.yaml", folder=tmp_path)
        assert ran.returncode == 1
        assert ran.stderr == "fleet.yaml:14: models.rough.replica: unknown key. Did you mean 'replicas'?\n"


def test_version_and_help() -> None:
    assert semaforo("version").stdout == "0.1.0\n"
    assert "semaforo explain 7f3a" in semaforo("explain", "--help").stdout
    assert semaforo("serv").returncode == 2
