"""A router that looks at embeddings: trained with a model of the fleet, and asking it for each request."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from semaforo import Fleet
from semaforo.cli.router import router
from semaforo.config.fleet import FleetFileError
from semaforo.routing.router import Router

FLEET = """\
tasks:
  meaning: {kind: embedding}
  answer:
    inputs: {text: bytes}
    outputs: {label: int64}
    prefer: {minimise: cost, keep_quality: 0.97}
    router: {file: answer.router, embedding: meaning, wait: 10s}
devices: {cpu: {price: 1/h}}
models:
  sides: {task: meaning, python: "both.py:embed", isolation: thread}
  small: {task: answer, python: "both.py:small", quality: 0.80, isolation: thread}
  large: {task: answer, python: "both.py:large", quality: 0.9, isolation: thread}
"""
BOTH = """\
import time
import zlib

import numpy as np


def embed(input: list[str]) -> np.ndarray:
    # What it knows of a word, no word of training tells: whether its checksum is even.
    found = np.zeros((len(input), 3), np.float32)
    for row, text in enumerate(input):
        side = zlib.crc32(text.encode()) % 2
        found[row] = [1.0, 0.1 * side, 1.0 - 2.0 * side]
    return found


def small(text: list[str]) -> np.ndarray:
    return np.zeros(len(text), np.int64)


def large(text: list[str]) -> np.ndarray:
    time.sleep(0.002)
    return np.ones(len(text), np.int64)
"""


def side(text: str) -> int:
    return zlib.crc32(text.encode()) % 2


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "both.py").write_text(BOTH)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    rng = np.random.default_rng(0)
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["task", "prompt", "model", "score"])
        for _ in range(110):
            prompt = " ".join(rng.choice(["red", "blue", "green", "house", "tree", "car", "sea", "sky"], 7))
            rows.writerow(["answer", prompt, "small", 1 - side(prompt)])
            rows.writerow(["answer", prompt, "large", 1])
    return tmp_path / "fleet.yaml"


def train(fleet_file: Path, *options: str) -> Result:
    folder = fleet_file.parent
    words = ["train", str(folder / "scores.csv"), "-o", str(folder / "answer.router"), "--folds", "2"]
    return CliRunner().invoke(router, [*words, *options])


def test_what_only_an_embedding_tells_chooses_the_model(fleet_file: Path) -> None:
    done = train(fleet_file, "--embed", f"{fleet_file}:sides")
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(router, ["explain", str(fleet_file.parent / "answer.router")])
    assert "where a request has an embedding: without" in shown.output
    rng = np.random.default_rng(7)
    with Fleet.open(fleet_file) as fleet:
        for _ in range(12):
            text = " ".join(rng.choice(["red", "blue", "green", "house", "tree", "car", "sea", "sky"], 7))
            answer = fleet.infer("answer", text=text)
            assert answer.model == ("large" if side(text) else "small"), text
            assert "step embedding: sides/default" in answer.why
    # Without its embedding a request goes where the other levels send it.
    text = fleet_file.read_text()
    fleet_file.write_text(text.replace('both.py:embed"', 'both.py:embed", sees: [public]'))
    with Fleet.open(fleet_file) as fleet:
        answers = [fleet.infer("answer", text=f"red sea {n}", privacy="site") for n in range(6)]
        assert {answer.model for answer in answers} == {"large"}
    file = fleet_file.parent / "answer.router"
    found = Router.decode(file.read_bytes())
    blind = msgspec.structs.replace(found.predictor, embedded=None)
    file.write_bytes(msgspec.structs.replace(found, predictor=blind).encode())
    with pytest.raises(FleetFileError, match="was trained without embeddings"):
        Fleet.open(fleet_file)


@pytest.mark.parametrize(
    ("embed", "message"),
    [("sides", "takes a fleet file and a model"), ("{}:small", "no embeddings"), ("{}:nothing", "'nothing'")],
)
def test_what_cannot_embed_is_said(fleet_file: Path, embed: str, message: str) -> None:
    done = train(fleet_file, "--embed", embed.format(fleet_file))
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output
