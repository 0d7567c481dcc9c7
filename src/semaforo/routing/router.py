"""A trained router as an artefact: bytes with a format, a digest, and what is known of how good it is."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import numpy as np

from semaforo.errors import ArtefactError
from semaforo.routing.predictor import Predictor

FORMAT = 1
MAGIC = b"semaforo router\n"
_DIGEST = 32


class Router(msgspec.Struct, frozen=True):
    """A trained router.

    Attributes:
        predictor: What it has learned.
        rows: Requests it was trained on.
        made: When, as ISO 8601; "" = not said.
        figures: Out-of-fold figures by name, for people.
        format: Version of the format.
    """

    predictor: Predictor
    rows: int
    made: str = ""
    figures: dict[str, float] = {}
    format: int = FORMAT

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that it was trained on."""
        return tuple(self.predictor.tasks)

    def encode(self) -> bytes:
        """Return the artefact: a line that names it, the SHA-256 of the rest, and the rest in MessagePack."""
        body = msgspec.msgpack.encode(self, enc_hook=_array_out)
        return MAGIC + sha256(body).digest() + body

    @classmethod
    def decode(cls, data: bytes, name: str = "router") -> Router:
        """Read an artefact.

        Args:
            data: Its bytes.
            name: How messages call it.

        Raises:
            ArtefactError: It is no router, is damaged, or is of a later format.
        """
        if not data.startswith(MAGIC):
            raise ArtefactError(f"{name} is no trained router: `semaforo router train` makes one")
        digest, body = data[len(MAGIC) : len(MAGIC) + _DIGEST], data[len(MAGIC) + _DIGEST :]
        if sha256(body).digest() != digest:
            raise ArtefactError(
                f"{name} is damaged: its digest is not that of its contents. Train or copy it anew"
            )
        try:
            found = msgspec.msgpack.decode(body, type=_Format)
            if found.format != FORMAT:
                raise ArtefactError(
                    f"{name} has format {found.format}, this version reads {FORMAT}: train it anew"
                )
            return msgspec.msgpack.decode(body, type=Router, dec_hook=_array_in)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArtefactError(f"{name} cannot be read: {error}. Train it anew") from None

    def digest(self) -> str:
        """Return the SHA-256 of the artefact, in hexadecimal."""
        return sha256(self.encode()).hexdigest()


class _Format(msgspec.Struct):
    format: int


class _Packed(msgspec.Struct, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


_DTYPES = ("<f2", "<f4", "<f8", "<i4", "<i8", "|b1")


def _array_out(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _Packed(value.dtype.newbyteorder("<").str, value.shape, np.ascontiguousarray(value).tobytes())
    raise TypeError(f"{type(value).__name__} is no part of a router")


def _array_in(kind: type, value: Any) -> Any:
    packed = msgspec.convert(value, _Packed)
    if packed.dtype not in _DTYPES:
        raise msgspec.ValidationError(f"arrays of {packed.dtype} are not read")
    return np.frombuffer(packed.data, packed.dtype).reshape(packed.shape)
