"""What variants are examined on: rows of inputs, the right answers, and the metric that judges.

How the judged output is found:

1. The one that is named; else an output of the task that the file has a column for, numbers of one row first.
2. Else a column ``label`` judges the task's first output of whole numbers, words or truth values; where it has
   none, the best-scored class of its first output that scores classes.
3. Else it is an error that lists the columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from semaforo.entities import DTYPES, TaskType, TensorSpec
from semaforo.errors import InvalidRequest, ModelFailed, nearest
from semaforo.observe import quality
from semaforo.observe.quality import CLASS_METRICS, NUMBER_METRICS, TEXT_METRICS, Quality
from semaforo.repository.labelled import Labelled, read_labelled
from semaforo.wire.payload import Array

LABEL = "label"
PROMPT, MESSAGES, ANSWER = "prompt", "messages", "answer"
METRICS = (*CLASS_METRICS, *NUMBER_METRICS, *TEXT_METRICS)


class Exam(msgspec.Struct):
    """Rows to ask, and how the answers are judged.

    Attributes:
        task: The task.
        rows: Number of rows.
        metric: One of `METRICS`.
        inputs: Input → ``(rows, …)``; empty for a chat.
        chats: Messages of each row; empty for tensors.
        truth: Right answers: a tensor ``(rows, …)``, or texts.
        judged: The output that is compared with the truth.
        scored: An output that scores classes, or None.
        best: Best-scored classes among which top-k looks.
    """

    task: TaskType
    rows: int
    metric: str
    inputs: dict[str, Array]
    chats: list[list[dict[str, Any]]]
    truth: Any
    judged: TensorSpec
    scored: TensorSpec | None = None
    best: int = 5

    def judge(self, outputs: dict[str, Array], texts: list[str]) -> Quality:
        """Return the quality of answers to all rows.

        Raises:
            ModelFailed: They cannot be judged.
        """
        if self.task.kind == "chat":
            return quality.of_texts(self.metric, self.truth, texts)
        said = outputs[self.judged.name]
        if self.metric in NUMBER_METRICS:
            return quality.of_numbers(self.metric, self.truth, said)
        scores = outputs[self.scored.name].astype(float) if self.scored else None
        if scores is not None and np.isnan(scores).any():
            raise ModelFailed(f"{int(np.isnan(scores).any(axis=1).sum())} of {self.rows} rows are scored NaN")
        if self.scored is self.judged and scores is not None:
            answered: Array = scores.argmax(axis=1)
        else:
            answered = _classes(said.reshape(len(said)), self.judged)
        return quality.of_classes(self.metric, self.truth, answered, scores, self.best)


def read_exam(
    task: TaskType, path: Path, *, metric: str = "", output: str = "", best: int = 5, rows: int = 0
) -> Exam:
    """Read an exam from a file of labelled rows.

    Args:
        task: The task that is examined.
        path: The file.
        metric: One of `METRICS`; "" = accuracy for classes, R² for numbers, exact for texts.
        output: The output to judge; "" = found out.
        best: Best-scored classes among which top-k looks.
        rows: Rows to take from the beginning; 0 = all.

    Raises:
        InvalidRequest: The file, the metric or the output does not fit the task.
    """
    if metric and metric not in METRICS:
        raise InvalidRequest(f"metric '{metric}' is none of {', '.join(METRICS)}.{nearest(metric, METRICS)}")
    data = read_labelled(path)
    exam = _chat(task, data, metric) if task.kind == "chat" else _tensors(task, data, metric, output, best)
    lengths = {name: len(array) for name, array in exam.inputs.items()} | {"the truth": len(exam.truth)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise InvalidRequest(f"{path}: columns differ in rows: {told}")
    count = min(exam.rows, rows) if rows else exam.rows
    if not count:
        raise InvalidRequest(f"{path} has no rows")
    cut = {name: array[:count] for name, array in exam.inputs.items()}
    return msgspec.structs.replace(
        exam, rows=count, inputs=cut, chats=exam.chats[:count], truth=exam.truth[:count]
    )


def _tensors(task: TaskType, data: Labelled, metric: str, output: str, best: int) -> Exam:
    inputs = {spec.name: data.tensor(spec) for spec in task.inputs if not spec.optional or spec.name in data}
    judged, column = _judged(task, data, output)
    scores = _scores(task, judged)
    classes = judged.dtype in ("BYTES", "BOOL") or np.dtype(DTYPES[judged.dtype]).kind in "iu"
    if column == LABEL and judged is scores:
        classes = True
    known = CLASS_METRICS if classes else NUMBER_METRICS
    chosen = metric or ("accuracy" if classes else "r2")
    if chosen not in known:
        raise InvalidRequest(f"metric '{chosen}' does not judge {judged}: take {', '.join(known)}")
    if classes and any(d != 1 for d in judged.shape) and judged is not scores:
        raise InvalidRequest(f"{judged} is no class: name the output to judge by --output")
    truth = (
        _truth(data, column, judged, scored=judged is scores)
        if classes
        else data.tensor(msgspec.structs.replace(judged, name=column))
    )
    if scores is not None and (not classes or not _scorable(truth, scores, judged)):
        scores = None
    if chosen == "top-k" and scores is None:
        raise InvalidRequest(f"'{task.name}' gives no scores of classes that top-k could look at")
    return Exam(task, len(truth), chosen, inputs, [], truth, judged, scores, best)


def _judged(task: TaskType, data: Labelled, output: str) -> tuple[TensorSpec, str]:
    by_name = {spec.name: spec for spec in task.outputs}
    if output and output not in by_name:
        raise InvalidRequest(
            f"'{task.name}' has no output '{output}'.{nearest(output, by_name)} It has {', '.join(by_name)}"
        )
    wanted = [by_name[output]] if output else sorted(task.outputs, key=lambda spec: len(spec.shape))
    for spec in wanted:
        if spec.name in data:
            return spec, spec.name
    if LABEL in data:  # 2
        for spec in wanted:
            if spec.dtype in ("BYTES", "BOOL") or np.dtype(DTYPES[spec.dtype]).kind in "iu":
                return spec, LABEL
        for spec in wanted:
            if _is_scores(spec):
                return spec, LABEL
        return wanted[0], LABEL
    names = " or ".join(dict.fromkeys([*(spec.name for spec in wanted), LABEL]))
    raise InvalidRequest(
        f"{data.path}: no column holds the right answer: name one {names}. "
        f"There are {', '.join(data.names[:12]) or 'none'}"
    )


def _is_scores(spec: TensorSpec) -> bool:
    return spec.dtype in ("FP16", "FP32", "FP64") and len(spec.shape) == 1 and spec.shape[0] != 1


def _scores(task: TaskType, judged: TensorSpec) -> TensorSpec | None:
    if _is_scores(judged):
        return judged
    found = [spec for spec in task.outputs if _is_scores(spec)]
    named = [spec for spec in found if "prob" in spec.name.lower()]
    return next((only[0] for only in (named, found) if len(only) == 1), None)


def _truth(data: Labelled, column: str, judged: TensorSpec, *, scored: bool) -> Array:
    cells = [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in data.values(column)]
    labels = {name: index for index, name in enumerate(judged.labels)}
    if labels and cells and all(isinstance(cell, str) and cell in labels for cell in cells):
        return np.array([labels[cell] for cell in cells], dtype=np.int64)
    if judged.dtype == "BYTES":
        return np.array([_word(cell) for cell in cells])
    wanted = TensorSpec(column, "INT64" if scored or judged.dtype != "BOOL" else "BOOL")
    return data.tensor(wanted).reshape(-1)


def _classes(said: Array, judged: TensorSpec) -> Array:
    return np.array([_word(cell) for cell in said.tolist()]) if judged.dtype == "BYTES" else said


def _word(cell: Any) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)


def _scorable(truth: Array, scores: TensorSpec, judged: TensorSpec) -> bool:
    """Tell whether classes index the scores; otherwise top-k and log-loss would compare unlike things."""
    if truth.dtype.kind not in "iub":
        return False
    return scores.shape[0] < 0 or int(truth.max(initial=0)) < scores.shape[0]


def _chat(task: TaskType, data: Labelled, metric: str) -> Exam:
    chosen = metric or "exact"
    if chosen not in TEXT_METRICS:
        raise InvalidRequest(f"metric '{chosen}' does not judge a chat: take {', '.join(TEXT_METRICS)}")
    if MESSAGES in data.names:
        chats = [_messages(cell) for cell in data.values(MESSAGES)]
    elif PROMPT in data.names:
        chats = [[{"role": "user", "content": _word(cell)}] for cell in data.values(PROMPT)]
    else:
        raise InvalidRequest(
            f"a chat is examined on a column '{PROMPT}' (text) or '{MESSAGES}' (as OpenAI's protocol has them); "
            f"there are {', '.join(data.names) or 'none'}"
        )
    truth = [_word(cell) for cell in data.values(ANSWER)]
    if len(truth) != len(chats):
        raise InvalidRequest(f"{len(chats)} chats and {len(truth)} answers: give as many")
    return Exam(task, len(truth), chosen, {}, chats, truth, TensorSpec("text", "BYTES"))


def _messages(cell: Any) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(cell) if isinstance(cell, str | bytes) else cell
        return msgspec.convert(found, list[dict[str, Any]])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidRequest(f"the column '{MESSAGES}' holds no list of messages: {error}") from None
