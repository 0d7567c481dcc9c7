"""Folders of versions, digests, and what was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from semaforo.errors import ArtefactError
from semaforo.repository import Measured, ModelFolder, measured, natural, note, runtime_of, sha256_of, verify


def folder(path: Path, *files: str) -> ModelFolder:
    path.mkdir(parents=True, exist_ok=True)
    for file in files:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(file.encode())
    return ModelFolder(path)


def test_versions_are_strings_in_natural_order(tmp_path: Path) -> None:
    made = folder(
        tmp_path / "m", "v10/model.onnx", "v2/model.onnx", "v1/model.onnx", ".git/model.onnx", "config.pbtxt"
    )
    assert made.versions() == ["v1", "v2", "v10"]
    assert max(["1.9", "1.10", "1.2"], key=natural) == "1.10"


def test_a_file_is_found_by_name_by_default_or_because_it_is_alone(tmp_path: Path) -> None:
    made = folder(tmp_path / "m", "1/model.onnx", "1/model.int8.onnx", "2/other.onnx", "2/quality.json")
    assert made.file("1") == tmp_path / "m/1/model.onnx"
    assert made.file("1", "model.int8.onnx").name == "model.int8.onnx"
    assert made.file("2").name == "other.onnx"


def test_a_file_that_a_runtime_reads_is_found_among_what_lies_beside_it(tmp_path: Path) -> None:
    made = folder(
        tmp_path / "m",
        "1/model.safetensors", "1/net.py", "1/quality.json",
        "2/model.pt2", "2/other.pt2",
        "3/weights.skops", "3/README.md",
        "4/big.onnx", "4/big.onnx.data",
        "5/own.format", "5/labels.txt",
    )  # fmt: skip
    names = [made.file(version).name for version in made.versions()]
    assert names == ["model.safetensors", "model.pt2", "weights.skops", "big.onnx", "own.format"]


@pytest.mark.parametrize(
    ("name", "content", "runtime"),
    [
        ("a.ONNX", b"", "onnx"),
        ("a.pt2", b"", "torch"),
        ("a.safetensors", b"", "torch"),
        ("a.skops", b"", "sklearn"),
        ("a.pkl", b"", "sklearn"),
        ("a.ubj", b"", "xgboost"),
        ("a.txt", b"tree\nversion=v4\n", "lightgbm"),
        ("a.txt", b"a tree, version=1", None),
        ("a.json", b'{"learner":{"attributes":{}}}', "xgboost"),
        ("a.json", b'{"version":[3,0,0],"learner":{}}', "xgboost"),
        ("quality.json", b'{"model.onnx": {"quality": 0.9}}', None),
        ("a.npz", b"", None),
        ("a", b"", None),
    ],
)
def test_the_runtime_of_a_file(name: str, content: bytes, runtime: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert runtime_of(tmp_path / name) == runtime


def test_a_note_that_is_not_there_is_no_model(tmp_path: Path) -> None:
    assert runtime_of(tmp_path / "none.json") is None


def test_one_file_is_version_one(tmp_path: Path) -> None:
    file = tmp_path / "one.onnx"
    file.write_bytes(b"x")
    assert (ModelFolder(file).versions(), ModelFolder(file).file("1")) == (["1"], file)


@pytest.mark.parametrize(
    ("files", "version", "name", "message"),
    [
        ((), "1", "", "m is empty: put the model into a folder named by its version, as 1/model.onnx"),
        (("model.onnx",), "1", "", "holds model.onnx and no version"),
        (("1/model.onnx",), "2", "", "has no version '2'; it has 1"),
        (("1/model.onnx",), "1", "model.int8.onnx", "has no file 'model.int8.onnx'; it holds model.onnx. "
                                                      "Did you mean 'model.onnx'?"),
        (("1/a.onnx", "1/b.onnx"), "1", "", "holds a.onnx, b.onnx: name the file under `variants`"),
        (("1/notes.txt",), "1", "", "is empty: name the file under `variants`, or call it model.onnx"),
        (("1/model.onnx",), "1", "../../secret", "leaves the model's folder"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    tmp_path: Path, files: tuple[str, ...], version: str, name: str, message: str
) -> None:
    with pytest.raises(ArtefactError) as caught:
        folder(tmp_path / "m", *files).file(version, name)
    assert message in str(caught.value)


def test_a_folder_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    folder(tmp_path / "digits-linear", "1/model.onnx")
    with pytest.raises(ArtefactError, match="Did you mean 'digits-linear'"):
        ModelFolder(tmp_path / "digits-liner")


def test_a_digest_is_that_of_the_bytes_and_a_change_is_seen(tmp_path: Path) -> None:
    made = folder(tmp_path / "m", "1/model.onnx", "1/weights")
    file = made.file("1")
    digest = hashlib.sha256(b"1/model.onnx").hexdigest()
    assert verify(file, digest) == sha256_of(file) == digest
    whole = sha256_of(tmp_path / "m")
    file.write_bytes(b"1/model.onny")
    assert sha256_of(tmp_path / "m") != whole
    with pytest.raises(ArtefactError, match="changed or damaged"):
        verify(file, digest)


def test_what_was_measured_is_read_beside_the_file(tmp_path: Path) -> None:
    file = folder(tmp_path / "m", "1/model.onnx", "1/model.int8.onnx").file("1")
    assert measured(file) is None
    note(file, Measured(0.97, "accuracy", 450))
    note(file.with_name("model.int8.onnx"), Measured(0.96))
    found = measured(file)
    assert found is not None
    assert (found.quality, found.rows) == (0.97, 450)


@pytest.mark.parametrize("text", ["{", '{"model.onnx": {"quality": 97}}', '{"model.onnx": {"qualty": 0.9}}'])
def test_a_note_that_is_wrong_is_an_error(tmp_path: Path, text: str) -> None:
    file = folder(tmp_path / "m", "1/model.onnx").file("1")
    file.with_name("quality.json").write_text(text)
    with pytest.raises(ArtefactError, match="is no note of quality"):
        measured(file)
