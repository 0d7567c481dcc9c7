"""The runtime for Python functions and classes.

Rules this module keeps:

1. A generator, or a function that takes ``messages``, answers chats; everything else answers tensors.
2. An async function is awaited; a sync one blocks its replica, never the event loop of another.
3. Parameters are matched by name with the inputs, and converted as their annotations say.
4. A class is made once, ``load`` is called once if it has it, then ``__call__`` for each batch.
5. ``sys.exit`` is an error like any other: it ends neither the thread nor the event loop that a model runs on.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec

from semaforo.entities import Signature, TensorSpec, devices_of
from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.runtime.base import Loaded
from semaforo.runtime.options import read_options
from semaforo.runtime.python_chat import PythonChat
from semaforo.runtime.python_source import exited, find_object, signature_of
from semaforo.runtime.python_values import PARAMETERS, Convert, converter, named_outputs, takes_text
from semaforo.wire.payload import Array

OPEN = ""
"""The dtype of a parameter that takes whatever the task gives."""


class PythonOptions(msgspec.Struct, frozen=True):
    """Options of a Python model.

    Attributes:
        args: Keyword arguments for the constructor of a class.
        slots: Batches or streams at once; None = 8 for async functions, 4 for chats, 1 for sync functions,
            which can have no more.
        batched: Whether a call takes many rows; None = as the annotations say.
    """

    args: dict[str, Any] = {}
    slots: Annotated[int, msgspec.Meta(ge=1)] | None = None
    batched: bool | None = None


class _Parameters:
    """What a function takes, and how arrays become it."""

    def __init__(self, function: Callable[..., Any], source: str, batched: bool | None) -> None:
        self.converters: dict[str, Convert | None] = {}
        self.wants_parameters = False
        specs: list[TensorSpec] = []
        single: set[bool] = set()
        hints = _hints(function)
        for name, parameter in signature_of(function, source).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise RuntimeLoadError(
                    f"'{source}': parameter '{parameter}' has no name to match an input with: name each input"
                )
            if name == PARAMETERS:
                self.wants_parameters = True
                continue
            annotation = hints.get(name, parameter.annotation)
            try:
                self.converters[name], one = converter(name, annotation)
            except RuntimeLoadError as error:
                raise RuntimeLoadError(f"'{source}': {error.message}") from None
            if annotation is not inspect.Parameter.empty:
                single.add(one)
            optional = parameter.default is not parameter.empty
            dtype = "BYTES" if takes_text(annotation) else OPEN
            specs.append(TensorSpec(name, dtype, (), optional))
        if not self.converters:
            raise RuntimeLoadError(
                f"'{source}' takes no inputs: name a parameter after each input of the task"
            )
        if single == {True, False}:
            raise RuntimeLoadError(
                f"'{source}' takes one row in some parameters and many in others: annotate them alike"
            )
        self.batched = (single != {True}) if batched is None else batched
        self.signature = Signature(tuple(specs), (), batched=self.batched)

    def arguments(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {PARAMETERS: dict(parameters)} if self.wants_parameters else {}
        for name, array in inputs.items():
            convert = self.converters[name]
            try:
                given[name] = array if convert is None else convert(array)
            except InvalidRequest as error:
                raise InvalidRequest(f"input '{name}': {error.message}") from None
        return given


class _PythonTensorModel:
    """What sync and async functions share."""

    def __init__(self, call: Callable[..., Any], parameters: _Parameters, owner: Any, slots: int) -> None:
        self._call = call
        self._parameters = parameters
        self._owner = owner
        self._names: Sequence[str] = ()
        self.signature = parameters.signature
        self.slots = slots

    def want(self, outputs: Sequence[str]) -> None:
        """Name what the function returns: a tuple in this order, or a dict with these keys."""
        self._names = outputs

    def memory_bytes(self) -> int:
        """Return 0: what a Python object holds is not known."""
        return 0

    def close(self) -> None:
        """Call the object's own ``close``, where it has one."""
        if callable(getattr(self._owner, "close", None)):
            self._owner.close()


class PythonModel(_PythonTensorModel):
    """A sync function or callable object."""

    def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Run one batch, or one row where the function takes one.

        Raises:
            InvalidRequest: An input cannot become what the function takes.
            ModelFailed: What it returned does not match the outputs.
        """
        arguments = self._parameters.arguments(inputs, parameters)
        try:
            result = self._call(**arguments)
        except SystemExit as error:
            raise exited(error) from error
        return named_outputs(result, self._names)


class AsyncPythonModel(_PythonTensorModel):
    """An async function or callable object."""

    async def arun(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Like `PythonModel.run`, awaited."""
        arguments = self._parameters.arguments(inputs, parameters)
        try:
            result = await self._call(**arguments)
        except SystemExit as error:
            raise exited(error) from error
        return named_outputs(result, self._names)


class PythonRuntime:
    """Loads Python functions and classes."""

    name = "python"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> Loaded:
        """Load a function, an instance, or a class, which is made first.

        Args:
            source: ``package.module:object``, ``file.py:object``, or a registered callable.
            options: Fields of `PythonOptions`.
            device: Given to ``load(device=…)`` where that takes it; a group as a list to ``load(devices=…)``.

        Raises:
            RuntimeLoadError: It cannot be found, made or matched.
        """
        chosen = read_options(self.name, options, PythonOptions)
        target = find_object(source)
        if inspect.isclass(target):
            target = _guarded(source, target, **chosen.args)
        elif chosen.args:
            raise RuntimeLoadError(f"options.args: '{source}' is not a class, so it takes none")
        if not callable(target):
            raise RuntimeLoadError(f"'{source}' is a {type(target).__name__}, which cannot be called")
        load = getattr(target, "load", None)
        if callable(load):
            _guarded(source, load, **_places(source, load, device))
        else:
            _places(source, None, device)
        call = target if inspect.isroutine(target) or isinstance(target, partial) else target.__call__
        names = signature_of(call, source).parameters
        if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call) or "messages" in names:
            return PythonChat(call, source, target, chosen.slots or 4)
        parameters = _Parameters(call, source, chosen.batched)
        if inspect.iscoroutinefunction(call):
            return AsyncPythonModel(call, parameters, target, chosen.slots or 8)
        if (chosen.slots or 1) > 1:
            raise RuntimeLoadError(
                f"options.slots: '{source}' is a sync function, which runs one batch at a time: "
                "make it async, or ask for more replicas"
            )
        return PythonModel(call, parameters, target, 1)


def _places(source: str, load: Callable[..., Any] | None, device: str) -> dict[str, Any]:
    takes = inspect.signature(load).parameters if load is not None else {}
    group = devices_of(device)
    if "devices" in takes:
        return {"devices": list(group)}
    if len(group) > 1:
        raise RuntimeLoadError(
            f"device: '{source}' has no load(devices), so it cannot be spread over {', '.join(group)}: "
            "let its class have one, or name one device"
        )
    return {"device": device} if "device" in takes else {}


def _guarded(source: str, call: Callable[..., Any], **arguments: Any) -> Any:
    try:
        return call(**arguments)
    except (Exception, SystemExit) as error:
        raise RuntimeLoadError(f"'{source}': loading it raised {type(error).__name__}: {error}") from error


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(call)
    except Exception:
        # A name that exists for the type checker only; the raw annotations still tell what they can.
        return {}
