"""Every `curl` of the README, run as it stands there, against a fleet like the quickstart's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import curl_blocks
from semaforo.build import blueprint
from served_fleet import Served, serving

README = Path(__file__).parents[2] / "README.md"
FLEET = """
tasks:
  digits:
    inputs:  {image: fp32[64]}
    outputs: {label: int64, probabilities: fp32[10]}
  chat: {kind: chat}
models:
  digits-linear: {task: digits, source: linear.onnx}
  writer: {task: chat, python: readme_writer:write, isolation: thread, capabilities: [completion]}
"""
WRITER = """
def write(messages):
    yield from ("so ", "it ", "is")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fleet")
    digits = load_digits()
    model = LogisticRegression(max_iter=300, C=0.01).fit(digits.data / 16, digits.target)
    model.coef_ /= 16  # as trained on pixels from 0 to 16
    onnx = to_onnx(
        model,
        initial_types=[("image", FloatTensorType([None, 64]))],
        options={"zipmap": False},
        target_opset=17,
    )
    (folder / "linear.onnx").write_bytes(onnx.SerializeToString())
    (folder / "readme_writer.py").write_text(WRITER)
    (folder / "fleet.yaml").write_text(FLEET)
    plan = blueprint(folder / "fleet.yaml")
    with serving(plan.catalog, secrets=plan.secrets) as running:
        yield running


def test_curl_is_here_and_the_readme_uses_it() -> None:
    assert shutil.which("curl"), "curl is missing: apt-get install curl"
    assert curl_blocks.curl_commands(README)


@pytest.mark.parametrize("command", curl_blocks.curl_commands(README), ids=lambda command: command.split()[1])
def test_the_readme_s_curl_is_answered(served: Served, command: str) -> None:
    printed = curl_blocks.run(command, served.url)
    if "/digits/infer" in command:
        outputs = {one["name"]: one["data"] for one in json.loads(printed)["outputs"]}
        assert outputs["label"] == [0]
        assert np.argmax(outputs["probabilities"]) == 0
        assert sum(outputs["probabilities"]) == pytest.approx(1, abs=1e-4)
    elif "/v1/" in command and '"stream": true' in command:
        assert printed.rstrip().endswith("data: [DONE]")
    else:
        assert "error" not in json.loads(printed)


def test_a_curl_that_fails_is_noticed(served: Served) -> None:
    with pytest.raises(AssertionError, match="404"):
        curl_blocks.run("curl localhost:8080/v2/models/nobody", served.url)
    with pytest.raises(AssertionError, match="asks no server"):
        curl_blocks.run("curl localhost:9090/v2", served.url)
