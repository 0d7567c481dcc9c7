"""Fleets written in Python: a decorated function is a model, and batches are made for it.

The task's tensors come from the annotations (``list[str]``, ``list[float]``, ``list[int]``, ``list[bool]``,
``list[bytes]``, one more ``list`` for each further dimension; without ``list`` the function is called row by row),
or are declared as in a fleet file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from semaforo.catalog import Catalog, Scaling
from semaforo.config.document import Node
from semaforo.config.forms import NAME, TENSOR
from semaforo.entities import BatchProfile, ReplicaSpec, TaskType, TensorSpec, Variant
from semaforo.errors import ConfigError, InvalidRequest
from semaforo.runtime.python_source import REGISTERED, register, unregister

F = TypeVar("F", bound=Callable[..., Any])
_DTYPES: dict[type, str] = {str: "BYTES", bytes: "BYTES", float: "FP64", int: "INT64", bool: "BOOL"}


class FunctionModel(msgspec.Struct, frozen=True):
    """A function as a model of the fleet, with the task it serves."""

    name: str
    function: Callable[..., Any]
    task: TaskType
    variant: Variant
    template: ReplicaSpec
    scaling: Scaling


_MODELS: dict[str, FunctionModel] = {}


def model(
    task: str,
    *,
    name: str = "",
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    quality: float | None = None,
    max_batch: int = 64,
    replicas: int = 1,
    isolation: Literal["thread", "process", "inline"] = "thread",
    options: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Make a function a model that serves a task; the function itself stays as it is.

    Each argument holds the rows of one input, batches of them, where it is annotated as a list.

    Args:
        task: Task it serves; functions of one task take and give the same.
        name: Name of the model; the function's own where left out.
        inputs: Input → ``fp32[64]``, where annotations cannot say it.
        outputs: The same for outputs; a function of several outputs returns a mapping.
        quality: 0…1 in the task's metric.
        max_batch: Most rows in one call.
        replicas: Copies that may run at once.
        isolation: ``thread`` of this program, ``process`` of its own (the function must then be importable),
            or ``inline`` in the event loop, for functions that take microseconds.
        options: Options of the runtime ``python``.

    Raises:
        ConfigError: The name or the annotations will not do.
    """

    def register(function: F) -> F:
        title = name or function.__name__
        if not NAME.fullmatch(title):
            raise ConfigError(f"'{title}' is no name for a model: give one by name=")
        taken = declared(inputs, title) if inputs is not None else _annotated_inputs(function, title)
        given = declared(outputs, title) if outputs is not None else annotated_output(function, title)
        kind = TaskType(task, inputs=taken, outputs=given)
        identity = f"{title}/1/default"
        _MODELS[title] = FunctionModel(
            title,
            function,
            kind,
            Variant(
                identity, title, "1", "default", task, quality=quality,
                profile=BatchProfile(0.001, 0.001), max_rows=max_batch,
            ),
            ReplicaSpec(
                "", identity, "python", _source(function, title, isolation), isolation=isolation,
                max_rows=max_batch, options=dict(options or {}), task=task,
                inputs=tuple(msgspec.to_builtins(spec) for spec in taken),
                outputs=tuple(msgspec.to_builtins(spec) for spec in given),
            ),
            Scaling(replicas, replicas),
        )  # fmt: skip
        return function

    return register


def catalog_of_functions(functions: Sequence[Callable[..., Any]]) -> Catalog:
    """Return the catalog of these decorated functions, or of all there are where none is named.

    Raises:
        ConfigError: A function is not decorated, or two of one task differ in what they take or give.
    """
    known = {id(entry.function): entry for entry in _MODELS.values()}
    chosen = []
    for function in functions:
        entry = known.get(id(function))
        if entry is None:
            called = getattr(function, "__name__", repr(function))
            raise ConfigError(f"{called} is no model: put @semaforo.model(task=…) above it")
        chosen.append(entry)
    chosen = chosen or list(_MODELS.values())
    if not chosen:
        raise ConfigError(
            "there is no model: name a fleet file, or put @semaforo.model(task=…) above a function"
        )
    tasks: dict[str, TaskType] = {}
    for entry in chosen:
        first = tasks.setdefault(entry.task.name, entry.task)
        if (first.inputs, first.outputs) != (entry.task.inputs, entry.task.outputs):
            raise ConfigError(
                f"{entry.name} serves '{first.name}' and takes {_show(entry.task)}; "
                f"another function of that task takes {_show(first)}"
            )
        if entry.name in tasks:
            raise ConfigError(
                f"'{entry.name}' is both a task and a model: give the model another name by name="
            )
    return Catalog(
        tasks=tasks,
        variants={entry.variant.id: entry.variant for entry in chosen},
        templates={entry.variant.id: entry.template for entry in chosen},
        scaling={entry.variant.id: entry.scaling for entry in chosen},
        in_service={entry.name: "1" for entry in chosen},
    )


def _show(task: TaskType) -> str:
    return f"({', '.join(map(str, task.inputs))}) → ({', '.join(map(str, task.outputs))})"


def _source(function: Callable[..., Any], title: str, isolation: str) -> str:
    if isolation == "process":
        inner = "<" in function.__qualname__
        if inner or function.__module__ == "__main__":
            where = "inside another function" if inner else "in the main program"
            raise ConfigError(
                f"model {title} is made {where}, where another process cannot import it: move it into a module, "
                "or leave isolation at 'thread'"
            )
        return f"{function.__module__}:{function.__qualname__}"
    unregister(REGISTERED + title)
    return register(title, function)


def declared(tensors: Mapping[str, str], title: str) -> tuple[TensorSpec, ...]:
    """Read tensors as they are declared, such as ``{"x": "fp32[3]"}``; `title` is who declares them.

    Raises:
        ConfigError: One cannot be read.
    """
    found = []
    for name, text in tensors.items():
        try:
            spec = TENSOR.read(Node(0, text, text))
        except InvalidRequest as error:
            raise ConfigError(f"{title}, tensor '{name}': {error}") from None
        found.append(msgspec.structs.replace(spec, name=name))
    return tuple(found)


def _annotated_inputs(function: Callable[..., Any], title: str) -> tuple[TensorSpec, ...]:
    hints = get_type_hints(function)
    names = [parameter.name for parameter in inspect.signature(function).parameters.values()]
    if not names:
        raise ConfigError(f"model {title} takes nothing: give the function an argument for each input")
    return tuple(_annotated(name, hints.get(name), title) for name in names)


def annotated_output(function: Callable[..., Any], title: str) -> tuple[TensorSpec, ...]:
    """Return what a function gives by its annotation: one tensor, ``output``.

    Raises:
        ConfigError: The annotation says no rows of a type.
    """
    return (_annotated("output", get_type_hints(function).get("return"), title),)


def _annotated(name: str, hint: Any, title: str) -> TensorSpec:
    depth = 0
    inner = hint
    while get_origin(inner) in (list, Sequence):
        depth += 1
        inner = get_args(inner)[0]
    if inner not in _DTYPES:
        raise ConfigError(
            f"{title}, '{name}': the annotation {_named(hint)} says no rows of a type; write list[str], "
            f"list[float], list[int] …, or declare it: {'outputs' if name == 'output' else 'inputs'}="
            f"{{'{name}': 'fp32[64]'}}"
        )
    return TensorSpec(name, _DTYPES[inner], (-1,) * max(depth - 1, 0))


def _named(hint: Any) -> str:
    if hint is None:
        return "that is missing"
    return getattr(hint, "__name__", str(hint)) if not get_args(hint) else str(hint)
