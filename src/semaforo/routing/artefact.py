"""What was learned, as bytes: a line that names its kind, the SHA-256 of the rest, and the rest in MessagePack."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, TypeVar

import msgspec
import numpy as np

from semaforo.errors import ArtefactError

T = TypeVar("T")

_WORDS = {"tasks": "model that tells tasks apart"}
_DIGEST = 32
_DTYPES = ("<f2", "<f4", "<f8", "<i4", "<i8", "|b1")


class _Packed(msgspec.Struct, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def pack(kind: str, value: Any) -> bytes:
    """Return the artefact of a struct; its arrays travel as they are."""
    body = msgspec.msgpack.encode(value, enc_hook=_array_out)
    return _line(kind) + sha256(body).digest() + body


def unpack(kind: str, data: bytes, form: type[T], name: str, made_by: str) -> T:
    """Read an artefact.

    Args:
        kind: Its kind, ``router`` for example.
        data: Its bytes.
        form: What it holds.
        name: How messages call it.
        made_by: The command that makes one.

    Raises:
        ArtefactError: It is of another kind, is damaged, or cannot be read.
    """
    line = _line(kind)
    if not data.startswith(line):
        raise ArtefactError(f"{name} is no {_WORDS.get(kind, f'trained {kind}')}: `{made_by}` makes one")
    digest, body = data[len(line) : len(line) + _DIGEST], data[len(line) + _DIGEST :]
    if sha256(body).digest() != digest:
        raise ArtefactError(
            f"{name} is damaged: its digest is not that of its contents. Train or copy it anew"
        )
    try:
        return msgspec.msgpack.decode(body, type=form, dec_hook=_array_in)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ArtefactError(f"{name} cannot be read: {error}. Train it anew") from None


def _line(kind: str) -> bytes:
    return f"semaforo {kind}\n".encode()


def _array_out(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _Packed(value.dtype.newbyteorder("<").str, value.shape, np.ascontiguousarray(value).tobytes())
    raise TypeError(f"{type(value).__name__} is no part of an artefact")


def _array_in(kind: type, value: Any) -> Any:
    packed = msgspec.convert(value, _Packed)
    if packed.dtype not in _DTYPES:
        raise msgspec.ValidationError(f"arrays of {packed.dtype} are not read")
    return np.frombuffer(packed.data, packed.dtype).reshape(packed.shape)
