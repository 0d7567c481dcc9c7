"""What the container and the service files name exists, and does what they rely on."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semaforo.cli import app
from semaforo.cli.supervisor import tell_supervisor
from semaforo.config.server import ServerSettings
from served_fleet import serving, small_fleet

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
UNIT = ROOT / "deploy" / "semaforo.service"


def instructions(name: str) -> list[str]:
    return re.findall(rf"^(?:    )?{name}\s+(.*)$", DOCKERFILE, re.MULTILINE)


def accepts(words: list[str]) -> None:
    """Fail unless the command line takes these words, by asking the command for its options."""
    shown = CliRunner().invoke(app, [words[0], "--help"]).output
    for word in words[1:]:
        assert not word.startswith("--") or word in shown, word


def unit() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return {key: value for section in parser.sections() for key, value in parser[section].items()}


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    sources = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert "pyproject.toml" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == name or fnmatch(source, name) for name in allowed), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "src", "pyproject.toml"} <= set(sources)


def test_the_extras_that_are_named_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [DOCKERFILE, (ROOT / "deploy" / "README.md").read_text()]
    named = [
        e for text in texts for found in re.findall(r"EXTRAS=([\w,]+)|\.\[([\w,]+)\]", text) for e in found
    ]
    extras = {extra for group in named if group for extra in group.split(",")}
    assert "grpc" in extras
    assert extras <= project["optional-dependencies"].keys()


def test_the_commands_exist() -> None:
    entry, command = (re.findall(r'"([^"]*)"', instructions(name)[-1]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["semaforo"]
    accepts(command)
    words = shlex.split(unit()["ExecStart"])
    assert words[0] == "semaforo"
    accepts(words[1:])
    readme = (ROOT / "deploy" / "README.md").read_text()
    for told in re.findall(r"^docker run .*? semaforo ?(\S.*)?$", readme, re.MULTILINE):
        if told:
            accepts(told.split())


def test_the_image_runs_without_rights_and_binds_as_it_says() -> None:
    assert instructions("USER")[-1].isdigit()
    assert instructions("EXPOSE") == ["8080"]
    words = re.findall(r'"([^"]*)"', instructions("CMD")[-1])
    assert words[words.index("--http-port") + 1] == "8080"
    assert "http://127.0.0.1:8080/v2/health/ready" in DOCKERFILE


def test_the_health_check_tells_a_server_from_none(tmp_path: Path) -> None:
    check = instructions("HEALTHCHECK")[0]
    code = re.findall(r'"([^"]*)"', check)[-1]
    with serving(small_fleet(tmp_path)) as served:
        here = code.replace("127.0.0.1:8080", f"127.0.0.1:{served.port}")
        assert subprocess.run([sys.executable, "-c", here], timeout=20, check=False).returncode == 0
    gone = subprocess.run([sys.executable, "-c", here], timeout=20, check=False, capture_output=True)
    assert gone.returncode != 0


def test_the_unit_gives_work_in_flight_its_time() -> None:
    said = unit()
    assert said["KillSignal"] == "SIGTERM"
    assert int(said["TimeoutStopSec"].removesuffix("s")) > 2 * ServerSettings().grace
    assert said["DynamicUser"] == said["NoNewPrivileges"] == "yes"
    assert said["Type"] == "notify"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # A command that exists here stands for the installed one, which does not.
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("ExecStart=semaforo ", f"ExecStart={sys.executable} "))
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stderr.strip()) == (0, "")


def test_the_service_manager_hears_when_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        tell_supervisor("READY=1")
        assert manager.recv(64) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@semaforo-{os.getpid()}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0semaforo-{os.getpid()}")
        manager.settimeout(5)
        tell_supervisor("STOPPING=1")
        assert manager.recv(64) == b"STOPPING=1"
    tell_supervisor("READY=1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_supervisor("READY=1")
