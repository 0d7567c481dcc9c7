"""Labelled rows from every kind of file, and what is said where one does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from semaforo.entities import TaskType, TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.jobs.exam import read_exam
from semaforo.repository.labelled import read_labelled

IMAGES = np.arange(24, dtype=np.float32).reshape(3, 8) / 4
WORDS = ["nought", "one", "one"]
TASK = TaskType(
    "t",
    inputs=(TensorSpec("image", "FP32", (2, 4)), TensorSpec("word", "BYTES", optional=True)),
    outputs=(
        TensorSpec("scores", "FP32", (2,)),
        TensorSpec("label", "INT64", labels=("nought", "one")),
    ),
)


def write(path: Path) -> Path:
    """Write the same rows in the form that the suffix says."""
    rows = [{"image": i.tolist(), "word": w, "label": w} for i, w in zip(IMAGES, WORDS, strict=True)]
    if path.suffix == ".npz":
        np.savez(path, image=IMAGES, word=np.array(WORDS), label=np.array([0, 1, 1]))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.stem == "lists":
        lines = [f'"{json.dumps(row["image"])}",{row["word"]},{row["label"]}' for row in rows]
        path.write_text("\n".join(["image,word,label", *lines]))
    else:
        head = [f"image.{i}" for i in range(8)]
        lines = [",".join(map(str, [*row["image"], row["word"], row["label"]])) for row in rows]
        path.write_text("\ufeff" + "\n".join([",".join([*head, "word", "label"]), *lines]), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.npz", "a.jsonl", "a.parquet", "a.csv", "lists.csv"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    exam = read_exam(TASK, write(tmp_path / name))
    assert exam.rows == 3
    assert exam.metric == "accuracy"
    np.testing.assert_array_equal(exam.inputs["image"], IMAGES.reshape(3, 2, 4))
    assert exam.inputs["image"].dtype == np.float32
    assert exam.inputs["word"].tolist() == WORDS
    np.testing.assert_array_equal(exam.truth, [0, 1, 1])  # names became indices
    assert (exam.judged.name, exam.scored and exam.scored.name) == ("label", "scores")
    assert read_exam(TASK, tmp_path / name, rows=2).rows == 2


def test_numbers_are_judged_as_numbers(tmp_path: Path) -> None:
    task = TaskType("t", inputs=(TensorSpec("x", "FP32"),), outputs=(TensorSpec("y", "FP32"),))
    path = tmp_path / "a.csv"
    path.write_text("x,label\n1,2.5\n2,3.5\n")
    exam = read_exam(task, path)
    assert (exam.metric, exam.truth.tolist()) == ("r2", [2.5, 3.5])
    with pytest.raises(InvalidRequest, match="'accuracy' does not judge y: fp32"):
        read_exam(task, path, metric="accuracy")


def test_a_label_judges_scores_where_nothing_else_is_given(tmp_path: Path) -> None:
    task = TaskType("t", inputs=(TensorSpec("x", "FP32"),), outputs=(TensorSpec("p", "FP32", (3,)),))
    path = tmp_path / "a.csv"
    path.write_text("x,label\n1,2\n2,0\n")
    exam = read_exam(task, path)
    said = {"p": np.array([[0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])}
    assert (exam.metric, exam.judge(said, []).value) == ("accuracy", 0.5)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "picture,label\n1,0\n", "no column is named 'image'. There are picture, label"),
        ("a.csv", "image.0,image.2,label\n1,1,0\n", "the column image.1 is missing"),
        ("a.csv", "image,label\n1\n", "line 2 has 1 cells, the header has 2"),
        ("a.csv", "image,label\nx,0\n", "the column 'image' does not become image: fp32[2, 4]"),
        ("a.csv", '"image",label\n"[1,2]",0\n', "rows of shape [2], not image: fp32[2, 4]"),
        ("a.csv", '"image",mark\n"[1,2,3,4,5,6,7,8]",0\n', "name one label or scores"),
        ("a.csv", '"image",label\n"[1,2,3,4,5,6,7,8]",0.5\n', "'label' does not become label: int64[]"),
        ("a.csv", "image,label\n", "has no rows"),
        ("a.csv", "", "There are none"),
        ("a.jsonl", '{"image": [1]}\n{"picture": [1]}\n', "line 2 differs from the first in image, picture"),
        ("a.jsonl", "[1]\n", "line 1: Expected `object`"),
        ("a.npz", "no zip", "cannot be read"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.xlsx", "", "rows are read from .parquet, .csv"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest) as error:
        read_exam(TASK, tmp_path / name)
    assert said in error.value.message
    assert name in error.value.message


def test_a_missing_file_and_a_pickle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_labelled(tmp_path / "none.csv")
    np.savez(tmp_path / "a.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidRequest, match="allow_pickle"):
        read_labelled(tmp_path / "a.npz")
