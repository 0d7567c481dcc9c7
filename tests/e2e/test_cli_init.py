"""`semaforo init` as a user types it: what it writes is checked, and serves, as it stands."""

from __future__ import annotations

import json
from pathlib import Path

from test_cli import semaforo

import models

FUNCTIONS = """\
import semaforo

@semaforo.model(task="length")
def count(text: list[str]) -> list[int]:
    return [len(one) for one in text]
"""


def test_what_it_writes_is_checked_and_served_as_it_stands(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / "models/digits-net" / version).mkdir(parents=True)
        models.linear(tmp_path / "models/digits-net" / version / "model.onnx")
    models.linear(tmp_path / "models/digits-net/2/model.int8.onnx")
    models.linear(tmp_path / "models/digits-plain.onnx")
    (tmp_path / "models/functions.py").write_text(FUNCTIONS)
    (tmp_path / "models/broken.onnx").write_bytes(b"no model")
    ran = semaforo("init", "models", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "length: count",
        "digits: digits-net (fp32, int8), digits-plain",
        "wrote fleet.yaml. Next: semaforo check fleet.yaml, then semaforo serve fleet.yaml",
    ]
    assert ran.stderr.startswith("left out: models/broken.onnx: onnxruntime cannot load it")
    check = semaforo("check", folder=tmp_path)
    assert check.returncode == 0, check.stderr
    assert check.stdout.rstrip().endswith("fleet.yaml is good: 4 variants load")
    asked = semaforo(
        "infer", "length", "--data", '{"text": "four"}', "--fleet", "fleet.yaml", folder=tmp_path
    )
    assert json.loads(asked.stdout) == {"output": 4}

    written = (tmp_path / "fleet.yaml").read_text()
    again = semaforo("init", "models", folder=tmp_path)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "fleet.yaml exists: --force writes over it, --output names another file\n"
    (tmp_path / "fleet.yaml").write_text("mine")
    assert semaforo("init", "models", "--force", folder=tmp_path).returncode == 0
    assert (tmp_path / "fleet.yaml").read_text() == written


def test_a_folder_without_models_is_told_what_is_understood(tmp_path: Path) -> None:
    ran = semaforo("init", folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("no model is in '.'. Understood are\n  .onnx (onnx)\n")
    assert ".py with functions under @semaforo.model" in ran.stderr
    (tmp_path / "model.onnx").write_bytes(b"no model")
    ran = semaforo("init", folder=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith(
        "no model in . can be served as it is:\n  model.onnx: onnxruntime cannot load it"
    )
    assert not (tmp_path / "fleet.yaml").exists()
    assert "is a folder: name the file" in semaforo("init", "--output", ".", folder=tmp_path).stderr
