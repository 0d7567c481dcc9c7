"""How single values are written in a fleet file: durations, sizes, shares, shapes, words.

Each form reads one scalar and either returns its value or raises an error that shows a right one. The command
`semaforo docs` and the reader use the same forms, so the reference cannot differ from what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from semaforo.config.document import Node
from semaforo.entities import DTYPES, TensorSpec
from semaforo.entities.units import parse_duration, parse_rate, parse_size
from semaforo.errors import InvalidRequest, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TENSOR = re.compile(r"\s*([A-Za-z0-9]+)\s*(?:\[([^\]]*)\])?\s*")
MOST_REPLICAS = 1024
_RANGE = re.compile(r"\s*(\d+)\s*(?:\.\.\s*(\d+))?\s*")


class Form(msgspec.Struct, frozen=True):
    """A way to write a value.

    Attributes:
        name: What it is, for messages and the reference.
        example: A right one.
        read: Turns a node into the value; raises `InvalidRequest` or `ValueError` with the reason.
    """

    name: str
    example: str
    read: Callable[[Node], Any]


class Key(msgspec.Struct, frozen=True):
    """Documents one key of the fleet file, as an annotation on a settings field.

    Attributes:
        doc: What it means, one sentence or two.
        form: How it is written; None = as its type says.
    """

    doc: str
    form: Form | None = None


def _unit(parse: Callable[[str], Any]) -> Callable[[Node], Any]:
    def read(node: Node) -> Any:
        if not isinstance(node.value, str | int | float) or isinstance(node.value, bool):
            raise InvalidRequest(f"{node.what} cannot stand here")
        return parse(node.text)

    return read


def _each(text: str) -> float:
    match = re.fullmatch(r"\s*\$?\s*([0-9.]+(?:e-?\d+)?)\s*(?:/|per)\s*([0-9_]+)\s*", text)
    if match is None or not float(match[1]) or not int(match[2]):
        raise InvalidRequest(f"'{text}' is no cost of requests: write 3/1000 for $3 per 1,000 of them")
    return float(match[1]) / int(match[2])


def _number(least: float, most: float, whole: bool = False) -> Callable[[Node], Any]:
    def read(node: Node) -> float:
        value = node.value
        if isinstance(value, str) and not whole:
            try:
                value = float(value)  # YAML 1.1 takes 1e-6 for a word
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise InvalidRequest(f"{node.what} is not a {'whole ' if whole else ''}number")
        if not least <= value <= most:
            bound = f"at least {least:g}" if most == float("inf") else f"between {least:g} and {most:g}"
            raise InvalidRequest(f"{node.text} is out of range: it must be {bound}")
        return value if whole else float(value)

    return read


def _tensor(node: Node) -> TensorSpec:
    match = _TENSOR.fullmatch(node.text) if isinstance(node.value, str) else None
    if match is None:
        raise InvalidRequest(
            f"{node.what} is not a tensor: write a type and the shape of a row, e.g. fp32[64]"
        )
    dtype = match[1].upper()
    if dtype not in DTYPES:
        known = [name.lower() for name in DTYPES]
        hint = nearest(match[1].lower().replace("float", "fp"), known)
        raise InvalidRequest(f"'{match[1]}' is not a type; there are {', '.join(known)}.{hint}")
    return TensorSpec(name="", dtype=dtype, shape=_shape(match[2] or ""))


def _shape(text: str) -> tuple[int, ...]:
    dims = [part.strip() for part in re.split(r"[x,]", text)] if text.strip() else []
    if not all(dim == "?" or (dim.isdigit() and int(dim) > 0) for dim in dims):
        raise InvalidRequest(f"'[{text}]' is not a shape: write sizes and ? for any, e.g. [?x?x3]")
    return tuple(-1 if dim == "?" else int(dim) for dim in dims)


def _range(node: Node) -> tuple[int, int]:
    match = None if isinstance(node.value, bool) else _RANGE.fullmatch(node.text)
    if match is None:
        raise InvalidRequest(f"{node.what} is not a number of replicas: write 2, or 1..4")
    least = int(match[1])
    most = int(match[2]) if match[2] else least
    if most < max(least, 1):
        raise InvalidRequest(f"'{node.text}' allows no replica: write the least first, e.g. 1..4")
    if most > MOST_REPLICAS:
        raise InvalidRequest(f"'{node.text}' is more than a machine holds: at most {MOST_REPLICAS} replicas")
    return least, most


def _text(node: Node) -> str:
    if isinstance(node.value, dict | list) or node.value is None:
        raise InvalidRequest(f"{node.what} cannot stand here")
    return node.text


def _devices(node: Node) -> str:
    nodes = node.value if isinstance(node.value, list) else [node]
    names = [name.strip() for item in nodes for name in re.split(r"[+,]", _text(item))]
    if not names or not all(names):
        raise InvalidRequest(f"{node.what} is not a device: write cuda:0, or several as [cuda:0, cuda:1]")
    return "+".join(names)


def _secret(node: Node) -> str:
    if isinstance(node.value, dict | list) or not node.text.strip():
        raise InvalidRequest("it is empty")
    return node.text


def _url(node: Node) -> str:
    text = node.text.rstrip("/") if isinstance(node.value, str) else ""
    if not re.match(r"https?://[^/\s]+", text):
        raise InvalidRequest(f"{node.what} is not a url: it must begin with http:// or https://")
    return text


def _import(node: Node) -> str:
    if not isinstance(node.value, str) or not re.fullmatch(r"[\w./\\-]+:[\w.]+", node.text):
        raise InvalidRequest(f"{node.what} is not an import string: write module:function")
    return node.text


def _digest(node: Node) -> str:
    text = node.text.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InvalidRequest(f"{node.what} is not a sha256")
    return text


def word(*known: str) -> Form:
    """Return the form of one word out of a few."""

    def read(node: Node) -> str:
        if node.text not in known:
            hint = nearest(node.text.lower(), known)
            raise InvalidRequest(f"{node.what} is not one of {', '.join(known)}.{hint}")
        return node.text

    return Form(" | ".join(known), known[0], read)


def words(*known: str) -> Form:
    """Return the form of a list of words out of a few; one word stands for a list of one."""
    one = word(*known)

    def read(node: Node) -> tuple[str, ...]:
        nodes = node.value if isinstance(node.value, list) else [node]
        return tuple(one.read(item) for item in nodes)

    return Form(f"list of {one.name}", f"[{', '.join(known[:2])}]", read)


INFINITY = float("inf")
DURATION = Form("duration", "50ms", _unit(parse_duration))
SIZE = Form("size", "512MB", _unit(parse_size))
PRICE = Form("US dollars per time", "0.04/h", _unit(parse_rate))
EACH = Form("US dollars per number of requests", "3/1000", _unit(_each))
SHARE = Form("share, 0 to 1", "0.98", _number(0, 1))
WEIGHT = Form("number, 0 or more", "0.2", _number(0, INFINITY))
DOLLARS = Form("US dollars", "2.50", _number(0, INFINITY))
COUNT = Form("whole number, 1 or more", "64", _number(1, 2**31, whole=True))
COUNT_OR_NONE = Form("whole number, 0 = no limit", "8192", _number(0, 2**31, whole=True))
PORT = Form("port", "8080", _number(0, 65535, whole=True))
TENSOR = Form("type[shape of one row]", "fp32[64]", _tensor)
REPLICAS = Form("number, or least..most", "1..4", _range)
TEXT = Form("text", "text", _text)
DEVICES = Form("device, or a list of devices", "cuda:0", _devices)
SECRET = Form("text", "${KEY}", _secret)
URL = Form("url", "http://127.0.0.1:11434/v1", _url)
IMPORT = Form("module:function", "models.rules:classify", _import)
DIGEST = Form("sha256", "64 hexadecimal digits", _digest)
