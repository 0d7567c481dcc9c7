"""YAML with positions: every value knows its line, so that every error can name it.

Rules this module keeps:

1. Only plain data is read: no tags that build objects.
2. A key that stands twice in one mapping is an error; merge keys (``<<``) and anchors work.
3. ``${NAME}`` and ``${NAME:-default}`` are replaced inside scalars, before a scalar becomes a number or a
   word; ``$${`` writes a literal ``${``.
4. In braces, too, ``fp32[64]`` and ``${NAME}`` may stand without quotes, though YAML alone would forbid it.
5. A file of anchors that expand without end is refused by a bound on its values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from semaforo.errors import nearest

_MOST_VALUES = 100_000
_MOST_DEPTH = 64
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACKETED = re.compile(r"[A-Za-z]\w*\[[^\]\n]*\]|[\w.:/@-]*\$\{[^}\n]*\}[^\s,{}\[\]]*")


class Node(msgspec.Struct):
    """One value of the file.

    Attributes:
        line: Line (from 1) of its key, or of itself in a list.
        value: A scalar, a list of nodes, or a mapping of key → node.
        text: A scalar exactly as written (after substitution), so that ``1.10`` can stay a version.
    """

    line: int
    value: Any
    text: str = ""

    @property
    def what(self) -> str:
        """Name what stands here, for a message."""
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case None:
                return "nothing"
            case str():
                return f"'{self.text}'"
        return self.text


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a fleet file.

    Attributes:
        line: Line in the file; 0 = the file as a whole.
        key: Dotted key, or "".
        message: What is wrong and what to do.
    """

    line: int
    key: str
    message: str

    def show(self, file: str) -> str:
        """Write ``file:line: key: message``."""
        place = f"{file}:{self.line}" if self.line else file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class _Loader(yaml.SafeLoader):
    def scan_plain(self) -> Any:
        match = _BRACKETED.match(self.buffer, self.pointer) if self.flow_level else None
        if match is None:
            return super().scan_plain()
        start = self.get_mark()
        self.forward(len(match[0]))
        self.allow_simple_key = False
        return yaml.ScalarToken(match[0], True, start, self.get_mark())


class Document:
    """Reads the text of one file into nodes and collects what is wrong with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._environment = environment
        self._loader = _Loader("")
        self._values = 0
        self._open: list[yaml.Node] = []

    def parse(self, text: str) -> Node | None:
        """Return the root, or None where the text is no YAML (a problem then says where)."""
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            self.problems.append(_syntax(error, text))
            return None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems.append(Problem(0, "", f"is not YAML: {error}"))
            return None
        if root is None:
            self.problems.append(Problem(0, "", "is empty: a fleet needs at least `tasks` and `models`"))
            return None
        try:
            return self._node(root, "", _line(root))
        except _Endless as error:
            self.problems.append(Problem(_line(error.node), "", str(error)))
            return None

    def _node(self, node: yaml.Node, key: str, line: int) -> Node:
        self._values += 1
        if node in self._open:
            raise _Endless(node, "an anchor contains itself")
        if self._values > _MOST_VALUES or len(self._open) > _MOST_DEPTH:
            raise _Endless(node, f"more than {_MOST_VALUES} values, or nested deeper than {_MOST_DEPTH}")
        self._open.append(node)
        try:
            match node:
                case yaml.MappingNode():
                    return Node(line, self._mapping(node, key))
                case yaml.SequenceNode():
                    items = [self._node(v, f"{key}[{i}]", _line(v)) for i, v in enumerate(node.value)]
                    return Node(line, items)
            return self._scalar(node, key, line)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value) if isinstance(name_node, yaml.ScalarNode) else ""
            line, below = _line(name_node), f"{key}.{name}" if key else name
            if not name:
                self.problems.append(Problem(line, key, "a key must be a word"))
            elif name_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merged(value_node, key)
            elif name in found:
                first = found[name].line
                self.problems.append(Problem(line, below, f"stands twice: line {first} has set it already"))
            else:
                found[name] = self._node(value_node, below, line)
        return merged | found

    def _merged(self, node: yaml.Node, key: str) -> dict[str, Node]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Node] = {}
        for source in reversed(sources):
            value = self._node(source, key, _line(source)).value
            if isinstance(value, dict):
                merged |= value
            else:
                self.problems.append(Problem(_line(source), key, "`<<` takes a mapping, or a list of them"))
        return merged

    def _scalar(self, node: yaml.Node, key: str, line: int) -> Node:
        text, tag = str(node.value), node.tag
        if "${" in text:
            text = self._substitute(text, key, line)
            if getattr(node, "style", None) is None:
                tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # in PyYAML's stubs
        if tag.startswith("tag:yaml.org,2002:timestamp"):
            tag = "tag:yaml.org,2002:str"
        try:
            value = self._loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark))
        except (yaml.YAMLError, ValueError):
            self.problems.append(Problem(line, key, f"'{text}' is no plain value (tag {node.tag})"))
            value = None
        return Node(line, value, text)

    def _substitute(self, text: str, key: str, line: int) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1]:
                return "${"
            name, has_default, default = match[2].partition(":-")
            if not _NAME.fullmatch(name):
                message = f"'{match[0]}' is not a variable: write ${{NAME}} or ${{NAME:-default}}"
            elif self._environment.get(name):
                return self._environment[name]
            elif has_default:
                return default
            else:
                near = nearest(name, (n for n in self._environment if n[:1] == name[:1]))
                message = f"the variable {name} is not set. Set it, or write ${{{name}:-default}}.{near}"
            self.problems.append(Problem(line, key, message))
            return ""

        return _VARIABLE.sub(value, text)


class _Endless(Exception):
    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.node = node


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1 if node.start_mark else 0


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    written = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    hint = ""
    if "\t" in written:
        hint = " (indent with spaces, not tabs)"
    what = " ".join(part for part in (error.context, error.problem) if part)
    return Problem(line, "", f"is not YAML: {what}{hint}")
