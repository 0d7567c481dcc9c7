"""Writes configuration.md, cli.md and openapi.json from the code; ``--check`` fails where they differ."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import typer
from typer.testing import CliRunner

from semaforo.cli import app
from semaforo.config import FleetSettings
from semaforo.config.reader import Field, fields_of
from semaforo.repository import FORMATS
from semaforo.runtime import oip_options, openai_options
from semaforo.runtime.onnx import OnnxOptions
from semaforo.runtime.python import PythonOptions
from semaforo.runtime.registry import EXTRAS
from semaforo.runtime.sklearn import SklearnOptions
from semaforo.runtime.torch_options import TorchOptions
from semaforo.runtime.trees import TreeOptions
from semaforo.server.http import HttpRequest, Response, Route
from semaforo.server.openapi.document import document
from semaforo.server.openapi.operations import OPERATIONS

HERE = Path(__file__).parent
INTRODUCTION = """\
# The fleet file

<!-- Written by `make docs` from the settings in src/semaforo/config; change them there. -->

A fleet is one YAML file. Durations carry units (`250us`, `50ms`, `2s`, `5m`, `1h`), sizes too (`512MB`, `1GiB`),
quality is 0 to 1 in the task's own metric, money is US dollars. `${NAME}` takes a variable of the environment and
`${NAME:-default}` a default where it is not set; `$${` writes a literal `${`. A key that is not listed here is an
error that names the nearest one, and all errors of a file are told at once, each with its line:

```
fleet.yaml:14: models.digits-net.replica: unknown key. Did you mean 'replicas'?
```

Beside an artefact, `quality.json` may hold what was measured of the files in its folder. It counts where the fleet
file states no quality, and its digest is verified:

```json
{"model.onnx": {"quality": 0.97, "metric": "accuracy", "rows": 450, "sha256": "…"}}
```
"""
PYTHON = """\
A function takes its inputs by name, a list or an array of rows each, and returns rows; batches are made for it.

```python
def count(text: list[str]) -> list[int]:  # a tensor task with the input `text`
    return [len(one) for one in text]


def embed(input: list[str]) -> list[list[float]]:  # `kind: embedding`
    return model.encode(input)


def parrot(messages, max_tokens=20):  # `kind: chat`: what it yields is streamed
    for word in messages[-1]["content"].split()[:max_tokens]:
        yield word + " "


class Classifier:  # made once; `load` is called once, then the object for each batch
    def load(self): ...
    def __call__(self, image): ...
```

A chat function may take `messages`, `body` or any field by name, and gives texts, deltas or chunks. A text counts
as one token. `stop` and `max_tokens` are kept for it unless it takes them.
"""
OPTIONS: dict[str, type[msgspec.Struct]] = {
    "onnx": OnnxOptions,
    "torch": TorchOptions,
    "sklearn": SklearnOptions,
    "lightgbm`, `xgboost": TreeOptions,
    "python": PythonOptions,
    "openai": openai_options.Options,
    "oip": oip_options.Options,
}
STATED = {"url", "key", "interface", "labels"}
"""Options of a model behind a url that stand elsewhere in the fleet file: beside `options`, or with its task."""
UPSTREAM = {
    "openai": "A model of `url` whose server speaks as OpenAI's does.\n",
    "oip": "A model of `url` with `runtime: oip`, whose server speaks the Open Inference Protocol V2.\n",
}


def configuration() -> str:
    """Return the reference of the fleet file."""
    parts = [INTRODUCTION]
    for path, cls in sections(FleetSettings, ""):
        summary = (cls.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## {f'`{path}`' if path else 'The whole file'}\n\n{summary}\n")
        parts.append("| key | form | default | meaning |\n| --- | --- | --- | --- |")
        parts[-1] += "".join(f"\n| {' | '.join(row(field))} |" for field in fields_of(cls)) + "\n"
    return "\n".join(parts)


def sections(cls: type[msgspec.Struct], path: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Return every mapping of the file with its place, the outer before the inner."""
    yield path, cls
    for field in fields_of(cls):
        inner, suffix = nested(field.type)
        if inner is not None and field.key.form is None:
            yield from sections(inner, f"{path}.{field.name}{suffix}".lstrip("."))


def nested(wanted: Any) -> tuple[type[msgspec.Struct] | None, str]:
    """Return the settings struct inside a type, and how a path goes on to it."""
    for option in get_args(wanted):
        if get_origin(wanted) not in (dict, tuple) and option is not type(None):
            return nested(option)
    if get_origin(wanted) is dict:
        return nested(get_args(wanted)[1])[0], ".NAME"
    if get_origin(wanted) is tuple:
        return nested(get_args(wanted)[0])[0], "[]"
    return (wanted, "") if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct) else (None, "")


def row(field: Field) -> tuple[str, str, str, str]:
    """Return the row of one key."""
    if field.key.form is not None:
        form = f"{field.key.form.name}, as `{field.key.form.example}`"
        if " | " in field.key.form.name:
            form = field.key.form.name
    else:
        inner, suffix = nested(field.type)
        kinds = {str: "text", bool: "true or false", int: "whole number", float: "number"}
        origin = get_origin(field.type)
        if inner is not None:
            form = {"": "mapping", ".NAME": "mapping of names", "[]": "list of mappings"}[suffix]
        elif origin is tuple:
            form = "list of text"
        else:
            form = (
                "mapping"
                if origin is dict or dict in map(get_origin, get_args(field.type))
                else kinds[field.type]
            )
    return f"`{field.name}`", form.replace("|", "\\|"), default_of(field), field.key.doc


def default_of(field: Field) -> str:
    """Write the default of a key as it would stand in the file."""
    default = field.default
    if field.required:
        return "**required**"
    if default in (None, "", (), {}) or isinstance(default, msgspec.Struct):
        return "–"
    form = field.key.form.name if field.key.form else ""
    if form == "duration":
        return f"`{in_units(default, DURATIONS)}`"
    if form == "size":
        return f"`{in_units(default, SIZES)}`"
    if isinstance(default, tuple):
        if form.startswith("number, or"):
            return f"`{default[0]}`" if default[0] == default[1] else f"`{default[0]}..{default[1]}`"
        return f"`[{', '.join(map(str, default))}]`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def in_units(value: float, units: dict[str, float]) -> str:
    """Write a value in the largest unit that leaves a whole number, or else in the smallest."""
    for unit, of in units.items():
        if value >= of and value % of == 0:
            return f"{value / of:g}{unit}"
    unit, of = list(units.items())[-1]
    return f"{value / of:g}{unit}"


def command_line() -> str:
    """Return the reference of the command line."""
    names = [""] + [
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    ]
    parts = [
        "# The command line\n",
        "<!-- Written by `make docs` from the commands in src/semaforo/cli; change them there. -->\n",
        "Exit codes: 0 = done; 1 = it failed, was refused, or a replay differs, and one line on stderr says why;",
        "2 = the command was not written as it takes it; 130 = stopped by Ctrl-C.\n",
    ]
    for name in names:
        shown = CliRunner().invoke(
            app, [*name.split(), "--help"], prog_name="semaforo", env={"COLUMNS": "100"}
        )
        lines = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## semaforo{f' {name}' if name else ''}\n\n```\n{lines}\n```\n")
    return "\n".join(parts)


RUNTIMES = """\
# Runtimes

<!-- Written by `make docs` from the options in src/semaforo/runtime; change them there. -->

The runtime of a model with `source` is found from its file; `runtime:` names another one. What a runtime needs is
installed with its extra, as `pip install 'semaforo[torch]'`, in the environment of the model's `interpreter`.

The kinds marked * can hold pickles, which run whatever code they bring: a file that does is refused unless the
model's `options` say `allow_pickle: true`. Still, a model is a program: load files that you trust.
"""
DURATIONS = {"d": 86400.0, "h": 3600.0, "s": 1.0, "ms": 1e-3}
SIZES = {"GB": 1e9, "MB": 1e6, "KiB": 1024.0, "KB": 1e3, "B": 1.0}
PICKLES = {".pt", ".pth", ".pt2", ".joblib", ".pkl", ".pickle"}


def runtimes() -> str:
    """Return the reference of the runtimes: their files and options."""
    parts = [RUNTIMES, "| file | runtime | extra |\n| --- | --- | --- |"]
    for name in dict.fromkeys(FORMATS.values()):
        files = [f"`{s}`{'*' if s in PICKLES else ''}" for s, reader in FORMATS.items() if reader == name]
        parts[-1] += f"\n| {', '.join(files)} | `{name}` | {f'`{EXTRAS[name]}`' if name in EXTRAS else '–'} |"
    parts[-1] += "\n"
    for name, options in OPTIONS.items():
        notes = inspect.getdoc(sys.modules[options.__module__]).partition("\n\n")[2]  # type: ignore[union-attr]
        about = f"{notes}\n\n" if notes.startswith(("What a model gives", "|")) else ""
        about = f"{PYTHON}\n" if name == "python" else about
        about = f"{UPSTREAM[name]}\n" if name in UPSTREAM else about
        parts.append(f"## `{name}`\n\n{about}| option | default | meaning |\n| --- | --- | --- |")
        meanings = attributes(options)
        for field in msgspec.structs.fields(options):
            if name in UPSTREAM and field.name in STATED:
                continue
            shown = "the model's own name" if field.required else shown_default(field)
            parts[-1] += f"\n| `{field.encode_name}` | {shown} | {meanings[field.name]} |"
        parts[-1] += "\n"
    return "\n".join(parts)


def shown_default(field: msgspec.structs.FieldInfo) -> str:
    """Write the default of an option."""
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]
    return "–" if default in (None, "", (), {}, []) else f"`{json.dumps(default)}`"


def attributes(cls: type) -> dict[str, str]:
    """Return what a class says of its attributes."""
    listed = inspect.getdoc(cls).partition("Attributes:\n")[2]  # type: ignore[union-attr]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    # In a file nobody writes None: the key is left out.
    listed = [(names, re.sub(r"\bNone = ", "left out = ", text)) for names, text in entries]
    return {name: " ".join(text.split()) for names, text in listed for name in names.split(", ")}


def description() -> str:
    """Return the OpenAPI description of everything that is served."""
    routes = [Route(method, pattern, "probe", nothing) for method, pattern in OPERATIONS]  # type: ignore[arg-type]
    return json.dumps(document(routes, "", keys=False), indent=1, ensure_ascii=False) + "\n"


async def nothing(request: HttpRequest) -> Response:
    """Stand in for a handler: only what is said of a route counts here."""
    raise AssertionError


def main(check: bool = False) -> None:
    """Write the references, or compare them with what is there."""
    stale = []
    written = {
        "configuration.md": configuration(),
        "cli.md": command_line(),
        "runtimes.md": runtimes(),
        "openapi.json": description(),
    }
    for name, text in written.items():
        path = HERE / name
        if check and (not path.exists() or path.read_text() != text):
            stale.append(str(path))
        elif not check:
            path.write_text(text)
    if stale:
        sys.exit(f"not current: {', '.join(stale)}. Run `make docs`")


if __name__ == "__main__":
    typer.run(main)
