"""What `semaforo init` finds in a folder, and the fleet it makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

import models
from semaforo.config.fleet import FleetFile, parse_fleet
from semaforo.entities import TensorSpec
from semaforo.errors import ArtefactError, InvalidRequest
from semaforo.jobs.draft import Draft, draft
from semaforo.jobs.fleet_text import WIDTH, fleet_text
from semaforo.jobs.naming import variant_names
from semaforo.repository.functions import functions_of
from semaforo.repository.scan import scan
from semaforo.repository.triton import read_config

FUNCTIONS = """\
import semaforo

@semaforo.model(task="length", quality=0.9)
def count(text: list[str], most: list[list[int]]) -> list[int]:
    return [len(one) for one in text]

@semaforo.model("square", name="squarer", inputs={"a": "fp32[2]"}, outputs={"b": "fp32[2]"}, max_batch=8)
def arrays(a):
    return {"b": a * a}

raise SystemExit("reading this file must not run it")
"""


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def drafted(folder: Path, beside: Path | None = None) -> tuple[Draft, FleetFile]:
    made = draft(scan(folder), folder, beside or folder)
    text = fleet_text(made, beside or folder)
    assert max(map(len, text.splitlines())) <= WIDTH
    return made, parse_fleet(text, folder=beside or folder)


def test_a_triton_repository(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    models.nchw_fp32(place(folder / "2/model.onnx"))
    models.nchw_fp32(place(folder / "10/model.onnx"))
    (folder / "labels").mkdir()  # by name alone, this would be the newest version
    (folder / "names.txt").write_text("circle\ncross\ndots\nstripes\n")
    (folder / "config.pbtxt").write_text(
        'name: "shapes" platform: "onnxruntime_onnx" max_batch_size: 8\n'
        'input [{ name: "pixels", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [1, 8, 8] }]\n'
        'output { name: "probabilities" data_type: TYPE_FP32 dims: 4 label_filename: "names.txt" }\n'
        "instance_group [{ count: 2 kind: KIND_CPU }]  dynamic_batching { }\n"
    )
    _, file = drafted(tmp_path)
    task, model = file.settings.tasks["shapes"], file.settings.models["shapes-onnx"]
    assert task.inputs["pixels"].type == TensorSpec("", "FP32", (1, 8, 8))
    assert task.outputs["probabilities"].labels == ("circle", "cross", "dots", "stripes")
    assert (model.source, model.version, model.max_batch, model.replicas) == ("shapes", "10", 8, (2, 2))


def test_variants_of_one_signature_are_one_model_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "score/1"
    models.linear(place(folder / "model.onnx"))
    models.linear(folder / "model.int8.onnx")
    models.linear(folder / "model_wide.onnx", inputs=32)
    _, file = drafted(tmp_path)
    found = file.settings.models
    assert {name: v.file for name, v in found["score-onnx"].variants.items()} == {
        "fp32": "model.onnx",
        "int8": "model.int8.onnx",
    }
    assert found["score-wide-onnx"].variants["wide"].file == "model_wide.onnx"
    assert file.settings.tasks["score-wide"].inputs["x"].type.shape == (32,)


def test_equal_tensors_are_one_task_and_other_names_a_proposal(tmp_path: Path) -> None:
    for name in ("digits-small", "digits-large"):
        models.linear(tmp_path / f"{name}.onnx")
    weights = np.zeros((64, 10), np.float32)
    models.save(
        tmp_path / "other.onnx",
        [h.make_node("MatMul", ["picture", "w"], ["scores"])],
        [("picture", T.FLOAT, ["N", 64])],
        [("scores", T.FLOAT, ["N", 10])],
        {"w": weights},
    )
    made, file = drafted(tmp_path)
    assert {name: model.task for name, model in file.settings.models.items()} == {
        "digits-large": "digits",
        "digits-small": "digits",
        "other-onnx": "other",
    }
    text = fleet_text(made, tmp_path)
    assert "    #   task: digits\n" in text
    assert '    #   adapter: {inputs: {picture: x}, outputs: {"y": scores}}\n' in text


def test_names_that_cannot_stand_in_a_file_are_bridged(tmp_path: Path) -> None:
    models.save(
        tmp_path / "my net.onnx",
        [h.make_node("Identity", ["serving:0"], ["Identity:0"])],
        [("serving:0", T.FLOAT, ["N", 2])],
        [("Identity:0", T.FLOAT, ["N", 2])],
    )
    _, file = drafted(tmp_path)
    model = file.settings.models["my-net-onnx"]
    assert model.source == "my net.onnx"
    assert model.adapter == {"inputs": {"serving:0": "serving_0"}, "outputs": {"Identity_0": "Identity:0"}}
    assert list(file.settings.tasks["my-net"].inputs) == ["serving_0"]


def test_functions_are_read_and_never_run(tmp_path: Path) -> None:
    path = place(tmp_path / "code/functions.py")
    path.write_text(FUNCTIONS)
    (tmp_path / "code/plain.py").write_text("1 / 0  # semaforo model()\n")
    _, file = drafted(tmp_path)
    length, square = file.settings.models["count"], file.settings.models["squarer"]
    assert (length.task, length.python, length.quality) == ("length", "code/functions.py:count", 0.9)
    assert file.settings.tasks["length"].inputs["most"].type == TensorSpec("", "INT64", (-1,))
    assert (square.task, square.max_batch) == ("square", 8)
    path.write_text("import semaforo\n@semaforo.model(task='t')\ndef f(x):\n    return x\n")
    with pytest.raises(ArtefactError, match="f: the annotation that is missing of 'x'"):
        functions_of(path)
    path.write_text("import semaforo\n@semaforo.model(task=TASK)\ndef f(x: list[str]) -> list[str]: ...\n")
    assert functions_of(path) == ([], ["f: what it gives as `task` is known only when the file runs"])


def test_what_cannot_be_served_stays_with_its_reason(tmp_path: Path) -> None:
    models.texts(tmp_path / "echo.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    place(tmp_path / "engine/1/model.plan").write_bytes(b"x")
    (tmp_path / "engine/config.pbtxt").write_text('platform: "tensorrt_plan"')
    (tmp_path / "chat.gguf").write_bytes(b"GGUF")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "kept.json").write_text('{"a": 1}')
    place(tmp_path / ".hidden/model.onnx").write_bytes(b"x")
    place(tmp_path / "venv9/pyvenv.cfg").touch()
    (tmp_path / "venv9/model.onnx").write_bytes(b"x")
    models.save(
        tmp_path / "scaled.onnx",
        [h.make_node("Mul", ["x", "k"], ["y"])],
        [("x", T.FLOAT, ["N", 4]), ("k", T.FLOAT, [])],
        [("y", T.FLOAT, ["N", 4])],
    )
    made, file = drafted(tmp_path)
    assert list(file.settings.models) == ["echo-onnx"]
    reasons = {path.name: reason for path, reason in made.left}
    assert reasons.keys() == {"broken.onnx", "engine", "chat.gguf", "scaled.onnx"}
    assert "onnxruntime cannot load it" in reasons["broken.onnx"]
    assert "its platform is tensorrt_plan" in reasons["engine"]
    assert "it takes 'k' once for a whole batch" in reasons["scaled.onnx"]
    text = fleet_text(made, tmp_path)
    assert all(f"#   {name}: " in text for name in reasons)


def test_what_a_model_leaves_open_is_seen_from_what_it_gives(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    rows = np.arange(12.0).reshape(6, 2)
    skops.dump(LogisticRegression().fit(rows, [0, 1, 2, 0, 1, 2]), tmp_path / "kinds.skops")
    _, file = drafted(tmp_path)
    task = file.settings.tasks["kinds"]
    assert next(iter(task.inputs.values())).type.shape == (2,)
    assert task.outputs["label"].type == TensorSpec("", "INT64")
    assert task.outputs["probabilities"].type == TensorSpec("", "FP64", (3,))
    assert file.settings.models["kinds-sklearn"].runtime == "sklearn"


def test_paths_are_seen_from_the_fleet_file(tmp_path: Path) -> None:
    models.linear(place(tmp_path / "models/net/model.onnx"))
    beside = tmp_path / "etc"
    beside.mkdir()
    _, file = drafted(tmp_path / "models", beside)
    assert file.settings.models["net-onnx"].source == "../models/net/model.onnx"


def test_a_damaged_config_is_told_and_the_model_is_served(tmp_path: Path) -> None:
    models.linear(place(tmp_path / "net/1/model.onnx"))
    (tmp_path / "net/config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_config(tmp_path / "net")
    made, file = drafted(tmp_path)
    assert list(file.settings.models) == ["net-onnx"]
    assert [path.name for path, _ in made.left] == ["config.pbtxt"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["model.onnx", "model.int8.onnx"], ["fp32", "int8"]),
        (["model.onnx", "model_large.onnx"], ["base", "large"]),
        (["net-fp16.onnx", "net-fp32.onnx"], ["fp16", "fp32"]),
        (["a.onnx", "b.onnx"], ["a", "b"]),
    ],
)
def test_names_of_variants(files: list[str], names: list[str]) -> None:
    assert variant_names(files) == names


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is no folder"):
        scan(tmp_path / "none")
