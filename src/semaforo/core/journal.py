"""The journal's records as bytes: what went in, when, and a digest of what came out.

A journal is a header line and then records, each a 4-byte little-endian length and that many bytes of
MessagePack. A segment begins with a snapshot of both machines, so a reader may start at any segment.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from semaforo.core.events import ControllerEvent, DispatcherEvent
from semaforo.errors import JournalError

HEADER = b"semaforo journal 1\n"
_LENGTH = 4


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot", array_like=True):
    """Begins a segment: the state of both machines, encoded."""

    dispatcher: bytes
    controller: bytes


class Decision(msgspec.Struct, frozen=True, tag="d", array_like=True):
    """The dispatcher took in an event."""

    now: float
    event: DispatcherEvent
    digest: int


class Control(msgspec.Struct, frozen=True, tag="c", array_like=True):
    """The controller took in an event."""

    now: float
    event: ControllerEvent
    digest: int


Record = Snapshot | Decision | Control

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def digest(effects: Sequence[Any]) -> int:
    """Return a 32-bit digest of effects (0 for none)."""
    return zlib.crc32(_encoder.encode(effects)) if effects else 0


def encode(record: Record) -> bytes:
    """Return a record with its length in front."""
    body = _encoder.encode(record)
    return len(body).to_bytes(_LENGTH, "little") + body


def decode(data: bytes | memoryview) -> tuple[list[Record], int]:
    """Decode all whole records at the front of `data`; also return how many bytes they took.

    Raises:
        JournalError: A record is not one.
    """
    records: list[Record] = []
    at = 0
    while at + _LENGTH <= len(data):
        length = int.from_bytes(data[at : at + _LENGTH], "little")
        if at + _LENGTH + length > len(data):
            break
        try:
            records.append(_decoder.decode(data[at + _LENGTH : at + _LENGTH + length]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalError(f"record {len(records) + 1} of this part is damaged: {error}") from error
        at += _LENGTH + length
    return records, at
