"""A draft → the text of a fleet file, commented for whoever reads it first.

Rules this module keeps:

1. The text is a good fleet file as it stands. What is only proposed is a comment that need only be uncommented.
2. No line is longer than `WIDTH`, but for a name that cannot be broken.
3. Paths are relative to the fleet file.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semaforo.entities import TensorSpec
from semaforo.jobs.draft import Draft, DraftModel, DraftTask, relative

WIDTH = 100
_COLUMN = 45
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})

_HEAD = """\
# Which tasks clients ask for, and which models serve them. Yours to change.
#   semaforo check {file}   loads every model once, and says what is wrong
#   semaforo serve {file}   serves it, to this machine only until `server` says otherwise
"""
_DEVICES = """\
# devices:
#   cpu: {price: 0.04/h}                     # a local model costs its device's time at this price
"""
_SERVER = """\
# server:
#   host: 0.0.0.0                            # reachable from other machines, which takes keys:
#   keys:
#     - {key: "${SEMAFORO_KEY}", tenant: me, roles: [infer, read]}
# journal: journal.bin                       # `semaforo replay` decides it all once more
"""


def fleet_text(draft: Draft, beside: Path, name: str = "fleet.yaml") -> str:
    """Write a draft as a fleet file.

    Args:
        draft: What to write.
        beside: Folder the file will stand in.
        name: Its name, for the comments.
    """
    lines = _HEAD.format(file=name).splitlines()
    lines += ["", "tasks:"]
    for place, task in enumerate(draft.tasks):
        lines += _task(task, first=place == 0)
    lines += [_DEVICES, "models:"]
    for task in draft.tasks:
        hinted = False
        for model in task.models:
            lines += _model(model, task, beside, hints=task is draft.tasks[0] and not hinted)
            hinted = True
    lines += [*_left(draft, beside), _SERVER.rstrip()]
    return "\n".join(lines) + "\n"


def _task(task: DraftTask, *, first: bool) -> list[str]:
    model = task.models[0]
    names = [each.name for each in task.models]
    lines = [_said(f"  {task.name}:", "clients ask by this name" if first else "")]
    if len(names) > 1:
        text = f"{_listed(names)} take and give the same tensors, so they are taken to serve one task; "
        lines.append(_comment(4, text + "give one a task of its own if they do not"))
    lines += _tensors("inputs", model.inputs, "one row; a request may hold many" if first else "")
    lines += _tensors("outputs", model.outputs, "")
    if first:
        lines += [
            _said(
                "    # prefer: {minimise: cost, keep_quality: 0.98}", "or {maximise: quality, within: 50ms}"
            ),
            _said("    # deadline: 50ms", "where a request states none"),
            _said(
                f"    # evaluate: {task.name}.csv",
                f"labelled rows for `semaforo evaluate {task.name} --write`",
            ),
        ]
    return [*lines, ""]


def _tensors(side: str, specs: tuple[TensorSpec, ...], said: str) -> list[str]:
    written = {spec.name: _tensor(spec) for spec in specs}
    flow = f"    {side + ':':<8} {{{', '.join(f'{_text(n)}: {t}' for n, t in written.items())}}}"
    if len(flow) <= WIDTH and not any(spec.labels for spec in specs):
        return [_said(flow, said)]
    lines = [_said(f"    {side}:", said)]
    for spec in specs:
        if not spec.labels:
            lines.append(f"      {_text(spec.name)}: {written[spec.name]}")
            continue
        lines += [f"      {_text(spec.name)}:", f"        type: {written[spec.name]}"]
        labels = f"[{', '.join(map(_quoted, spec.labels))}]"
        lines += textwrap.wrap(
            f"labels: {labels}", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 10,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return lines


def _tensor(spec: TensorSpec) -> str:
    dims = "x".join("?" if d < 0 else str(d) for d in spec.shape)
    return spec.dtype.lower() + (f"[{dims}]" if spec.shape else "")


def _model(model: DraftModel, task: DraftTask, beside: Path, *, hints: bool) -> list[str]:
    lines = [
        _said(f"  {model.name}:", "a request may name a model as well" if hints else ""),
        f"    task: {task.name}",
    ]
    if model.source is not None and model.python:
        place = relative(model.source, beside)
        lines.append(_said(f"    python: {_text(f'{place}:{model.python}')}", "rows are put together for it"))
    elif model.source is not None:
        said = "<version>/<file>; the newest version is served" if hints and model.source.is_dir() else ""
        lines.append(_said(f"    source: {_text(relative(model.source, beside))}", said))
    if model.version:
        lines.append(_said(f'    version: "{model.version}"', "other folders stand beside it"))
    if model.runtime not in ("onnx", "python"):
        lines.append(f"    runtime: {model.runtime}")
    if model.variants:
        said = "the same at several costs" if len(model.variants) > 1 else ""
        lines.append(_said(f"    variants: {_flow(model.variants)}", said))
    if model.adapter:
        lines.append(_comment(4, "The model's own names cannot stand here, so they are bridged"))
        lines.append(f"    adapter: {_flow(model.adapter)}")
    if model.max_batch is not None:
        said = "requests are not put together" if model.max_batch == 1 else "most rows in one batch"
        lines.append(_said(f"    max_batch: {model.max_batch}", said))
    if model.quality is not None:
        lines.append(f"    quality: {model.quality:g}")
    if model.replicas is not None:
        lines.append(_said(f"    replicas: {model.replicas}", "as config.pbtxt asks"))
    lines += [_comment(4, note) for note in model.notes]
    if hints:
        lines += _hints(model)
    if model.proposal is not None:
        other, adapter = model.proposal
        text = f"Its tensors are like those of {other} under other names. If it answers the same question, write:"
        lines += [_comment(4, text), f"    #   task: {other}", f"    #   adapter: {_flow(adapter)}"]
    return [*lines, ""]


def _hints(model: DraftModel) -> list[str]:
    found = []
    if model.quality is None:
        found.append(_said("    # quality: 0.93", "0 to 1; `semaforo evaluate` measures it"))
    if model.replicas is None:
        found.append(_said("    # replicas: 1..4", "least and most copies"))
    found.append(_said("    # isolation: process", "of its own; as measured where left out"))
    return found


def _left(draft: Draft, beside: Path) -> list[str]:
    if not draft.left:
        return []
    lines = ["# Left out:"]
    for path, reason in draft.left:
        text = " ".join(f"{relative(path, beside)}: {reason}".split())
        lines += textwrap.wrap(
            text, WIDTH, initial_indent="#   ", subsequent_indent="#     ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return [*lines, ""]


def _quoted(text: str) -> str:
    """Write text as a YAML scalar that is always quoted, with ``${`` as the fleet file escapes it."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${")


def _text(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _flow(mapping: Mapping[str, Any]) -> str:
    parts = (
        f"{_text(name)}: {_flow(value) if isinstance(value, dict) else _text(str(value))}"
        for name, value in mapping.items()
    )
    return f"{{{', '.join(parts)}}}"


def _said(line: str, comment: str) -> str:
    if not comment:
        return line
    whole = f"{line:<{_COLUMN}}# {comment}" if len(line) < _COLUMN else f"{line}   # {comment}"
    if len(whole) <= WIDTH:
        return whole
    indent = len(line) - len(line.lstrip())
    return f"{_comment(indent, comment)}\n{line}"


def _comment(indent: int, text: str) -> str:
    return _wrapped(f"{' ' * indent}# {text}", f"{' ' * indent}# ")


def _wrapped(line: str, following: str) -> str:
    if len(line) <= WIDTH:
        return line
    return "\n".join(
        textwrap.wrap(
            line, WIDTH, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
        )
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
