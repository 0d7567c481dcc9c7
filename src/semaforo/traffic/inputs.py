"""What is sent: random tensors that fit a model's metadata, a chat's messages, or what a file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from semaforo.entities import DTYPES, TensorSpec
from semaforo.errors import InvalidRequest, nearest
from semaforo.traffic.load import Encoded
from semaforo.wire.payload import Array
from semaforo.wire.v2_client import encode_request

BODIES = 16
_MOST_BYTES = 64_000_000


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read ``image=3x224x224``.

    Raises:
        InvalidRequest: It is not written so.
    """
    found = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        try:
            shape = tuple(int(d) for d in dims.split("x"))
            if not name or min(shape) < 1:
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"--shape '{text}' takes a name and sizes, as image=3x224x224") from None
        found[name] = shape
    return found


def row_shape(spec: TensorSpec, rows: int, given: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the whole shape to send for an input of a model's metadata.

    Args:
        spec: Its shape is whole; a first dimension of -1 is that of rows.
        rows: Rows a request has.
        given: Sizes by name, whole or without the rows.

    Raises:
        InvalidRequest: A size is not known, or does not fit.
    """
    shape = list(spec.shape)
    if shape and shape[0] == -1:
        shape[0] = rows
    elif rows != 1 and shape and shape[0] != rows:
        raise InvalidRequest(f"--rows {rows}: input '{spec.name}' always has the shape {shape}")
    sizes = given.get(spec.name)
    if sizes is not None:
        whole = list(sizes) if len(sizes) == len(shape) else [*shape[:1], *sizes]
        if len(whole) != len(shape) or any(
            want not in (-1, got) for want, got in zip(shape, whole, strict=True)
        ):
            raise InvalidRequest(
                f"--shape {spec.name}={'x'.join(map(str, sizes))}: the model takes {_dims(spec.shape)}"
            )
        shape = whole
    if -1 in shape:
        raise InvalidRequest(
            f"input '{spec.name}' has the shape {_dims(spec.shape)}: give its sizes, "
            f"as --shape {spec.name}={'x'.join('8' if d < 0 else str(d) for d in shape[1:])}"
        )
    return tuple(shape)


def random_array(spec: TensorSpec, shape: tuple[int, ...], drawn: np.random.Generator) -> Array:
    """Draw a tensor: 0 to 1 for floats, 0 to 255 for UINT8, 0 to 99 for other integers."""
    dtype = spec.dtype
    if dtype == "BOOL":
        return drawn.random(shape) < 0.5
    if dtype == "BF16":
        return (drawn.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if dtype.startswith("FP"):
        return drawn.random(shape).astype(DTYPES[dtype])
    return drawn.integers(0, 256 if dtype == "UINT8" else 100, shape).astype(DTYPES[dtype])


def random_bodies(
    inputs: Sequence[TensorSpec],
    *,
    rows: int,
    shapes: Mapping[str, tuple[int, ...]],
    binary: bool,
    seed: int,
) -> list[Encoded]:
    """Return bodies with data drawn for a model's inputs, fewer of them where they are large.

    Raises:
        InvalidRequest: No data can be drawn; the message says what to give.
    """
    if not inputs:
        raise InvalidRequest("the server does not say what this model takes: give --data FILE")
    for name in shapes:
        known = [spec.name for spec in inputs]
        if name not in known:
            raise InvalidRequest(
                f"--shape {name}: the model has no such input.{nearest(name, known)} It takes {', '.join(known)}"
            )
    required = [spec for spec in inputs if not spec.optional]
    for spec in required:
        _check_drawable(spec)
    sized = [(spec, row_shape(spec, rows, shapes)) for spec in required]
    elements = sum(math.prod(shape) for _, shape in sized)
    if elements * 8 > _MOST_BYTES:
        raise InvalidRequest(f"a request would have {elements:,} elements: choose smaller --rows or --shape")
    drawn = np.random.default_rng(seed)
    return [
        encoded(
            {spec.name: random_array(spec, shape, drawn) for spec, shape in sized},
            {spec.name: spec.dtype for spec in required},
            binary,
        )
        for _ in range(max(1, min(BODIES, _MOST_BYTES // (elements * 8))))
    ]


def encoded(arrays: Mapping[str, Array], datatypes: Mapping[str, str], binary: bool) -> Encoded:
    """Encode a request, and say how where it cannot be.

    Raises:
        InvalidRequest: FP16 and BF16 travel only as binary.
    """
    try:
        return encode_request(arrays, datatypes, binary=binary)
    except InvalidRequest:
        only = next((name for name, dtype in datatypes.items() if dtype in ("FP16", "BF16")), None)
        if only is None or binary:
            raise
        raise InvalidRequest(
            f"input '{only}' is {datatypes[only]}, which travels only with --binary"
        ) from None


def read_objects(path: Path) -> list[Any]:
    """Read JSON: one value, or one a line.

    Raises:
        InvalidRequest: The file cannot be read, or is no JSON; the message says where.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"--data {path}: {error.strerror}") from None
    try:
        return [msgspec.json.decode(content)]
    except msgspec.DecodeError as error:
        whole = error
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        raise InvalidRequest(f"--data {path} is empty")
    found = []
    for number, line in lines:
        try:
            found.append(msgspec.json.decode(line))
        except msgspec.DecodeError as error:
            reason = error if len(lines) > 1 and found else whole
            raise InvalidRequest(f"--data {path}:{number}: no JSON: {reason}") from None
    return found


def chat_bodies(model: str, prompts: Sequence[Any], *, stream: bool, tokens: int) -> list[Encoded]:
    """Return the bodies of chats.

    Args:
        model: Name of the model.
        prompts: Texts, messages, or whole bodies of OpenAI's protocol.
        stream: Whether answers are streamed.
        tokens: Most tokens of an answer; 0 = as the server likes.

    Raises:
        InvalidRequest: A prompt is none of these.
    """
    found: list[Encoded] = []
    for prompt in prompts:
        if isinstance(prompt, str):
            body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]}
        elif isinstance(prompt, list):
            body = {"messages": prompt}
        elif isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
            body = dict(prompt)
        else:
            raise InvalidRequest(
                '--data takes for a chat: "a prompt", [messages] or {"messages": [messages]}'
            )
        body["model"] = model
        if tokens:
            body["max_tokens"] = tokens
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        else:
            body.pop("stream", None)
            body.pop("stream_options", None)
        found.append((msgspec.json.encode(body), None))
    return found


def _check_drawable(spec: TensorSpec) -> None:
    if spec.dtype not in DTYPES:
        raise InvalidRequest(f"input '{spec.name}' has the datatype '{spec.dtype}', which is none of V2")
    if spec.dtype == "BYTES":
        raise InvalidRequest(
            f"input '{spec.name}' takes BYTES, which cannot be made up: give --data FILE (or --chat for a chat)"
        )


def _dims(shape: Sequence[int]) -> str:
    return f"[{', '.join('any' if d < 0 else str(d) for d in shape)}]"
