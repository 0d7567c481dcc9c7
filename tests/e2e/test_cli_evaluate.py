"""`semaforo evaluate` as a user types it, on a fleet whose qualities are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import semaforo

from semaforo.build import blueprint
from tiny_fleet import write_fleet

FLEET = """\
tasks:
  sign:
    inputs:  {x: fp32}
    outputs: {label: int64}
    prefer:  {maximise: quality}
    deadline: 1us
    evaluate: rows.csv
  twice:
    inputs:  {x: fp32}
    outputs: {"y": fp32}
  chat: {kind: chat}
models:
  right: {task: sign, source: models/right, isolation: inline}
  often:
    task: sign
    source: models/often
    variants: {a: model.onnx, b: other.onnx}
    isolation: inline
  rule: {task: sign, python: "rules.py:rule", isolation: thread, sees: [public]}
  doubler: {task: twice, python: "rules.py:double", isolation: thread}
  parrot: {task: chat, python: "rules.py:parrot", isolation: thread}
"""

RULES = """\
import numpy as np

def rule(x):
    return (x > 0.5).astype(np.int64)

def double(x):
    return 2 * x + 1

def parrot(messages):
    for word in messages[-1]["content"].split():
        yield word + " "
"""


def threshold(path: Path, at: float) -> None:
    """Write a model that says whether its input is greater than `at`."""
    graph = helper.make_graph(
        [
            helper.make_node("Greater", ["x", "at"], ["more"]),
            helper.make_node("Cast", ["more"], ["label"], to=7),
        ],
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])],
        [numpy_helper.from_array(np.float32(at), "at")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    threshold(tmp_path / "models/right/1/model.onnx", 0.0)
    threshold(tmp_path / "models/often/1/model.onnx", 0.25)
    threshold(tmp_path / "models/often/1/other.onnx", 10.0)
    (tmp_path / "rules.py").write_text(RULES)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    values = np.linspace(-1, 1, 200)
    rows = "".join(f"{x},{int(x > 0)}\n" for x in values)
    (tmp_path / "rows.csv").write_text("x,label\n" + rows)
    return tmp_path


def test_every_variant_is_measured_and_noted_for_serve(folder: Path) -> None:
    ran = semaforo("evaluate", "sign", "--json", folder=folder)
    assert ran.returncode == 0, ran.stderr
    found = {f"{line['model']}/{line['variant']}": line for line in json.loads(ran.stdout)}
    truth = {"right/default": 1.0, "often/a": 0.875, "often/b": 0.5, "rule/default": 0.75}
    assert {name: line["quality"] for name, line in found.items()} == truth
    line = found["often/a"]
    assert line["interval"][0] < 0.875 < line["interval"][1]
    assert 0 < line["p50_s"] <= line["p99_s"]
    assert (line["rows"], line["metric"]) == (200, "accuracy")
    assert not list(folder.rglob("quality.json"))

    ran = semaforo("evaluate", "sign", "--write", folder=folder)
    assert ran.returncode == 0, ran.stderr
    assert "Noted in quality.json" in ran.stdout
    assert "rule/default has no file to note it beside: write `quality: 0.75` under models.rule" in ran.stderr
    variants = blueprint(folder / "fleet.yaml").catalog.variants
    assert [variants[name].quality for name in ("right/1/default", "often/1/a", "often/1/b")] == [
        1.0,
        0.875,
        0.5,
    ]
    profiles = blueprint(folder / "fleet.yaml").sources.profiles
    assert set(profiles) == {"right/1/default", "often/1/a", "often/1/b"}
    column = profiles["often/1/b"].columns["x.mean"]
    assert profiles["often/1/b"].rows == 200
    assert (column.low, column.high) == pytest.approx((-1.0, 1.0), abs=0.03)
    # What another file was measured on says nothing of this one, nor does a note that is broken.
    (folder / "models/right/1/features.json").write_text(
        (folder / "models/often/1/features.json").read_text()
    )
    (folder / "models/often/1/features.json").write_text("[]")
    assert blueprint(folder / "fleet.yaml").sources.profiles == {}


def test_a_model_that_has_changed_is_measured_again(folder: Path) -> None:
    assert semaforo("evaluate", "sign", "--model", "right", "--write", folder=folder).returncode == 0
    threshold(folder / "models/right/1/model.onnx", 0.5)
    assert "it was changed or damaged" in semaforo("check", folder=folder).stderr
    assert semaforo("evaluate", "right", "--write", folder=folder).returncode == 0
    assert blueprint(folder / "fleet.yaml").catalog.variants["right/1/default"].quality == 0.75


def test_what_fails_is_told_and_the_others_are_measured(folder: Path) -> None:
    (folder / "models/right/1/model.onnx").write_bytes(b"no model")
    (folder / "rules.py").write_text("def rule(x):\n    raise ValueError('no answer')\n")
    ran = semaforo("evaluate", "sign", folder=folder)
    assert ran.returncode == 1
    assert "often/a" in ran.stdout
    assert "0.8750" in ran.stdout
    assert "right/default: " in ran.stderr
    assert "onnxruntime cannot load it" in ran.stderr
    assert "rule/default: " in ran.stderr
    assert "no answer" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_private_rows_go_only_to_who_may_see_them(folder: Path) -> None:
    ran = semaforo("evaluate", "sign", "--privacy", "site", folder=folder)
    assert ran.returncode == 1
    assert (
        ran.stderr == "rule: sees public data only\n" or "rule/default: sees public data only" in ran.stderr
    )
    assert "0.8750" in ran.stdout


def test_numbers_and_chats(folder: Path) -> None:
    (folder / "numbers.jsonl").write_text("".join(f'{{"x": {x}, "y": {2 * x}}}\n' for x in range(10)))
    ran = semaforo("evaluate", "twice", "--data", "numbers.jsonl", "--json", folder=folder)
    (line,) = json.loads(ran.stdout)
    assert line["quality"] == pytest.approx(1 - 10 / (4 * 82.5))
    assert line["beside"] == {"MAE": 1.0, "RMSE": 1.0}
    (folder / "chats.csv").write_text("prompt,answer\nis it blue,Blue\none two,one two\n")
    for metric, quality in (("exact", 0.5), ("contains", 1.0)):
        ran = semaforo("evaluate", "chat", "--data", "chats.csv", "--metric", metric, "--json", folder=folder)
        assert [line["quality"] for line in json.loads(ran.stdout)] == [quality], ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sing"], "Did you mean 'sign'"),
        (["sign", "--data", "none.csv"], "none.csv: No such file or directory"),
        (["twice"], "give --data FILE, or write `evaluate: FILE` under the task in fleet.yaml"),
        (["sign", "--metric", "acuracy"], "Did you mean 'accuracy'"),
        (["sign", "--metric", "top-k"], "gives no scores of classes"),
        (["sign", "--output", "lable"], "Did you mean 'label'"),
        (["sign", "--model", "wright"], "Did you mean 'right'"),
        (["sign", "--privacy", "secret"], "none of public, internal, site"),
        (["twice", "--data", "rows.csv"], "the truth"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_on_stderr(folder: Path, words: list[str], said: str) -> None:
    if words[0] == "twice" and len(words) > 1:
        (folder / "rows.csv").write_text("x,y\n1,2\n1,2\n")
    ran = semaforo("evaluate", *words, folder=folder)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.stderr


def test_a_stated_quality_wins_and_that_is_said(tmp_path: Path) -> None:
    write_fleet(tmp_path)
    rows = [{"x": [a, 0, 1], "y": [2 * a, 0, 2]} for a in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ran = semaforo("evaluate", "double", "--data", "rows.jsonl", "--write", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "states quality 0.5 for rough/default, which wins over what is noted" in ran.stderr
