"""Mutations of valid input: of JSON values, of bytes, of numbers. Everything is drawn from a given generator."""

from __future__ import annotations

import json
from random import Random
from typing import Any

ODD_TEXT = (
    "", " ", "\x00", "a" * 5000, "ünïcödé 🚦", "../../etc/passwd", "{model}", "%00", "\ud800", "NaN", "null", "-1",
    "FP32", "FP33", "BYTES", "auto", "digits", "text", "true", "'; --", "\r\nx: y", "1e309", "0x10",
)  # fmt: skip
ODD_NUMBERS = (
    0, -1, 1, 2, 3, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1, 2**63,
    -(2**63), 2**64, 10**30, -(10**30), 0.5, -0.0, 1e-300, 1e300, -1e300, 3.4e39,
)  # fmt: skip
WORDS = (
    "inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id", "binary_data",
    "binary_data_size", "binary_data_output", "classification", "priority", "model", "messages", "role", "content",
    "stream", "max_tokens", "stop", "n", "tools", "input", "encoding_format", "dimensions", "prompt",
)  # fmt: skip
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32",
    "FP64", "BYTES", "fp32", "FP8", "STRING", "",
)  # fmt: skip


def odd(draw: Random, depth: int = 0) -> Any:
    """Return a JSON value that is seldom expected."""
    kind = draw.randrange(8)
    if kind == 0:
        return draw.choice(ODD_TEXT)
    if kind == 1:
        return draw.choice(ODD_NUMBERS)
    if kind == 2:
        return draw.choice((None, True, False))
    if kind == 3:
        return draw.choice(DATATYPES)
    if kind == 4 and depth < 3:
        return [odd(draw, depth + 1) for _ in range(draw.randrange(5))]
    if kind == 5 and depth < 3:
        return {draw.choice(WORDS): odd(draw, depth + 1) for _ in range(draw.randrange(4))}
    if kind == 6:
        nested: Any = 0
        for _ in range(draw.choice((2, 20, 200))):
            nested = [nested]
        return nested
    return draw.randint(-5, 200)


def mutated(value: Any, draw: Random) -> Any:
    """Return a copy of a JSON value with one place changed."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        name = draw.choice(list(value))
        kind = draw.randrange(8)
        found = dict(value)
        if kind == 0:
            del found[name]
        elif kind == 1:
            found[draw.choice(WORDS)] = odd(draw)
        elif kind == 2:
            found[name] = odd(draw)
        else:
            found[name] = mutated(value[name], draw)
        return found
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        kind = draw.randrange(8)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return [*value[:at], value[at], *value[at:]]
        if kind == 2:
            return value * draw.choice((2, 3))
        return [*value[:at], mutated(value[at], draw), *value[at + 1 :]]
    return odd(draw)


def text(value: Any) -> bytes:
    """Encode a JSON value, lone surrogates and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def scrambled(data: bytes, draw: Random) -> bytes:
    """Return bytes with a few of them changed, cut, doubled or put in."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        if not found:
            return bytes(draw.randbytes(draw.randrange(40)))
        at = draw.randrange(len(found))
        kind = draw.randrange(6)
        if kind == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del found[at : at + draw.randrange(1, 9)]
        elif kind == 2:
            found[at:at] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 3:
            del found[at:]
        elif kind == 4:
            end = min(len(found), at + draw.randrange(1, 40))
            found[at:at] = found[at:end]
        else:
            found[at] = draw.choice(b'\x00\xff"{}[]:,\\0-9eE\n')
    return bytes(found)
