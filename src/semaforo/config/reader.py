"""Nodes → settings structs, collecting every problem on the way instead of stopping at the first."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from semaforo.config.document import Node, Problem
from semaforo.config.forms import NAME, Form, Key
from semaforo.errors import InvalidRequest, nearest

T = TypeVar("T", bound=msgspec.Struct)
Path = tuple[str, ...]


class Field(msgspec.Struct, frozen=True):
    """One key of a settings struct, as its annotation says."""

    name: str
    type: Any
    key: Key
    required: bool
    default: Any


@functools.cache
def fields_of(cls: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Return the documented keys of a settings struct, in the order of the file."""
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in msgspec.structs.fields(cls):
        plain, key = get_args(hints[field.name])[:2]
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        found.append(Field(field.name, plain, key, field.required, default))
    return tuple(found)


class Reader:
    """Reads settings and remembers the line of each key it met."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[Path, int] = {}

    def struct(self, cls: type[T], node: Node, path: Path) -> T | None:
        """Read a mapping into a settings struct; None where a key it cannot do without is wrong."""
        fields = {field.name: field for field in fields_of(cls)}
        short = getattr(cls, "SHORT", "")
        self.lines[path] = node.line
        shortened = not isinstance(node.value, dict)
        if shortened:
            if not short or isinstance(node.value, list):
                self._say(node, path, f"{node.what} stands where a mapping of {_list(fields)} belongs")
                return None
            node = Node(node.line, {short: node})
            self.lines[(*path, short)] = node.line
        given: dict[str, Any] = {}
        complete = True
        for name, child in node.value.items():
            below = (*path, name)
            if name not in fields:
                self._say(child, below, f"unknown key.{nearest(name, fields)}" + _known(name, fields))
                continue
            field, child_path = fields[name], path if shortened else below
            self.lines[below] = child.line
            ok, value = self._value(field.type, field.key.form, child, child_path)
            if ok:
                given[name] = value
            complete = complete and (ok or not field.required)
        for field in fields.values():
            if field.required and field.name not in node.value:
                self._say(node, (*path, field.name), "is missing")
                complete = False
        return cls(**given) if complete else None

    def _value(self, wanted: Any, form: Form | None, node: Node, path: Path) -> tuple[bool, Any]:
        wanted = _not_none(wanted)
        if form is not None:
            try:
                return True, form.read(node)
            except (InvalidRequest, ValueError) as error:
                message = str(error)
                if not any(
                    hint in message for hint in ("example", "e.g.", "write", "one of", "must", "there are")
                ):
                    message += f". It takes {form.name}, for example {form.example}"
                self._say(node, path, message)
                return False, None
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            value = self.struct(wanted, node, path)
            return value is not None, value
        origin, args = get_origin(wanted), get_args(wanted)
        if origin is dict and args[1] is Any:
            if isinstance(node.value, dict):
                self._note(node, path)
                return True, plain(node)
        elif origin is dict:
            return self._mapping(args[1], node, path)
        elif origin is tuple:
            return self._list(args[0], node, path)
        elif wanted is bool:
            if isinstance(node.value, bool):
                return True, node.value
        elif not isinstance(node.value, dict | list) and node.value is not None:
            return True, node.text
        self._say(node, path, f"{node.what} stands where {_word(wanted)} belongs")
        return False, None

    def _mapping(self, wanted: Any, node: Node, path: Path) -> tuple[bool, Any]:
        if not isinstance(node.value, dict):
            self._say(node, path, f"{node.what} stands where a mapping of names belongs")
            return False, None
        found: dict[str, Any] = {}
        for name, child in node.value.items():
            below = (*path, name)
            self.lines[below] = child.line
            if not NAME.fullmatch(name):
                self._say(
                    child,
                    below,
                    "is no name: begin with a letter or digit, go on with those, '-', '_' and '.'",
                )
                continue
            ok, value = self._value(wanted, None, child, below)
            if ok:
                found[name] = value
        return True, found

    def _list(self, wanted: Any, node: Node, path: Path) -> tuple[bool, Any]:
        if not isinstance(node.value, list):
            self._say(node, path, f"{node.what} stands where a list belongs")
            return False, None
        found = []
        for index, child in enumerate(node.value):
            ok, value = self._value(wanted, None, child, (*path, str(index)))
            if ok:
                found.append(value)
        return len(found) == len(node.value), tuple(found)

    def _note(self, node: Node, path: Path) -> None:
        self.lines[path] = node.line
        if isinstance(node.value, dict):
            for name, child in node.value.items():
                self._note(child, (*path, name))

    def _say(self, node: Node, path: Path, message: str) -> None:
        self.problems.append(Problem(node.line, ".".join(path), message))


def plain(node: Node) -> Any:
    """Return the plain data under a node."""
    match node.value:
        case dict():
            return {name: plain(child) for name, child in node.value.items()}
        case list():
            return [plain(child) for child in node.value]
    return node.value


def _not_none(wanted: Any) -> Any:
    options = [option for option in get_args(wanted) if option is not type(None)]
    return options[0] if type(None) in get_args(wanted) else wanted


def _word(wanted: Any) -> str:
    names = {str: "text", bool: "true or false", float: "a number", int: "a whole number"}
    return names.get(wanted, "a mapping")


def _list(names: Any) -> str:
    return ", ".join(names)


def _known(name: str, fields: dict[str, Field]) -> str:
    return "" if nearest(name, fields) else f" There are {_list(fields)}."
