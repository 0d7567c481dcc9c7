"""Frames between a gateway and its workers: a versioned, length-prefixed protocol without any I/O.

Rules this module keeps:

1. A frame is a prefix of 16 bytes, a msgpack header, padding to 8 bytes, and raw buffers. All is little-endian.
2. The prefix is ``magic (2) · version (1) · kind (1) · header bytes (4) · buffer bytes (8)``; the version stands
   in every frame, so that a gateway and a worker that differ find out with the first one.
3. Arrays are received without a copy beyond the socket's: they are views of the frame's own memory, writable,
   and aligned to 8 bytes.
4. The columns of a batch are written member after member, so that they arrive already concatenated.
5. Where both sides share memory, large columns stand there, and the frame says where (`Place`, `Memory`).
6. A frame that is garbage, of another version or over the limit raises `ProtocolError`; the reader is then dead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from semaforo.errors import ProtocolError, SemaforoError, error_from
from semaforo.wire.block import Block, Outcome, uneven
from semaforo.wire.messages import (
    Busy,
    Cancel,
    Chunk,
    Done,
    Failed,
    Freed,
    Hello,
    Limits,
    Load,
    Loaded,
    LoadFailed,
    Message,
    Ping,
    Plain,
    Pong,
    Run,
    RunChat,
    Stop,
    StreamDone,
)
from semaforo.wire.payload import Array, Tensors

VERSION = 2
MAX_HEADER = 16 * 1024 * 1024
MAX_BUFFERS = 4 * 1024 * 1024 * 1024

_MAGIC = b"SF"
_PREFIX = struct.Struct("<2sBBIQ")
_SCRATCH = 256 * 1024
# Below this, one copy costs less than a buffer for each member.
_COPIED = 128 * 1024
_ZEROS = b"\0" * 8

SHARED = 64 * 1024
"""Bytes from which a column stands in shared memory, where there is any."""

Buffer = bytes | memoryview


class Place(Protocol):
    """Shared memory to write to."""

    def put(self, parts: Sequence[Array], size: int) -> int:
        """Put arrays side by side, `size` bytes in all, and return where; -1 where there is no room."""
        ...


class Memory(Protocol):
    """Shared memory to read from."""

    def view(self, at: int, size: int) -> Array:
        """Return bytes, which stay as they are as long as an array over them is left.

        Raises:
            ValueError: There are none.
        """
        ...


class _Column(msgspec.Struct, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    at: int = -1


class _BlockHead(msgspec.Struct, array_like=True):
    columns: list[_Column]
    counts: list[int]
    parameters: dict[str, Any] = {}
    outputs: tuple[str, ...] = ()


class _RunHead(msgspec.Struct, array_like=True):
    batch: int
    blocks: list[_BlockHead]
    grant: tuple[int, int] | None = None


class _ErrorHead(msgspec.Struct, array_like=True):
    code: str
    message: str
    retry_after_s: float | None = None


class _DoneHead(msgspec.Struct, array_like=True):
    batch: int
    service_s: float
    blocks: list[_BlockHead]
    errors: dict[int, _ErrorHead] = {}


_RUN, _DONE = 1, 2
_KINDS: dict[int, type[Any]] = {
    10: Hello, 11: Load, 12: Loaded, 13: LoadFailed, 14: RunChat, 15: Failed, 16: Busy, 17: Chunk,
    18: StreamDone, 19: Limits, 20: Cancel, 21: Ping, 22: Pong, 23: Stop, 24: Freed,
}  # fmt: skip
_KIND_OF = {cls: kind for kind, cls in _KINDS.items()}
_DECODERS: dict[int, Callable[[Any], Any]] = {
    kind: msgspec.msgpack.Decoder(cls).decode for kind, cls in _KINDS.items()
}
_decode_run = msgspec.msgpack.Decoder(_RunHead).decode
_decode_done = msgspec.msgpack.Decoder(_DoneHead).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder().decode


def _frame(kind: int, head: Any, buffers: list[Buffer], size: int) -> list[Buffer]:
    try:
        header = _encode(head)
    except (TypeError, OverflowError, ValueError) as error:
        raise ProtocolError(f"a value cannot be sent to a worker: {error}") from None
    if len(header) > MAX_HEADER or size > MAX_BUFFERS:
        raise ProtocolError(
            f"a batch of {len(header) + size} bytes is over the limit of {MAX_BUFFERS}: send fewer rows"
        )
    prefix = _PREFIX.pack(_MAGIC, VERSION, kind, len(header), size)
    return [prefix, header, _ZEROS[: -len(header) % 8], *buffers]


def size_of(frame: Sequence[Buffer]) -> int:
    """Return the bytes of a frame that is still in parts."""
    _, _, _, header, buffers = _PREFIX.unpack_from(frame[0])
    return int(_PREFIX.size + header + -header % 8 + buffers)


def encode(message: Plain) -> bytes:
    """Return the frame of a message without arrays."""
    header = _encode(message)
    return _PREFIX.pack(_MAGIC, VERSION, _KIND_OF[type(message)], len(header), 0) + header + _ZEROS[
        : -len(header) % 8
    ]  # fmt: skip


def _bytes_column(parts: Sequence[Array]) -> bytes:
    cells: list[Any] = []
    for part in parts:
        cells += part.ravel().tolist()
    for cell in cells:
        if not isinstance(cell, (bytes, str)):
            raise ProtocolError(
                f"a BYTES tensor holds a {type(cell).__name__}: only bytes and str can be sent"
            )
    return _encode(cells)


def _put_column(name: str, parts: Sequence[Array], buffers: list[Buffer], place: Place | None) -> _Column:
    first = parts[0]
    dtype, shape = first.dtype, first.shape[1:]
    size = 0
    if dtype.hasobject:
        data = _bytes_column(parts)
        size = len(data)
        buffers.append(data)
        code = "O"
    else:
        code = dtype.str
        if code[0] == ">" or dtype.kind not in "biuf":
            little = dtype.newbyteorder("<")
            if dtype.kind not in "biuf":
                raise ProtocolError(f"tensor '{name}' has dtype {dtype}, which no V2 datatype stands for")
            parts = [part.astype(little) for part in parts]
            code = little.str
        if place is not None and (whole := sum(part.nbytes for part in parts)) >= SHARED:
            at = place.put(parts, whole)
            if at >= 0:
                return _Column(name, code, shape, whole, at)
        if len(parts) > 1 and len(parts) * first.nbytes < _COPIED:
            parts = (np.concatenate(parts),)
        for part in parts:
            if part.nbytes:
                buffers.append((part if part.flags.c_contiguous else np.ascontiguousarray(part)).data)
                size += part.nbytes
    if size % 8:
        buffers.append(_ZEROS[: -size % 8])
    return _Column(name, code, shape, size)


def _padded(columns: list[_Column]) -> int:
    return sum(column.size + -column.size % 8 for column in columns if column.at < 0)


def encode_run(
    batch: int,
    groups: Sequence[Sequence[Tensors]],
    place: Place | None = None,
    grant: tuple[int, int] | None = None,
) -> list[Buffer]:
    """Return the buffers of a frame that runs groups of members that are alike, see `block.group`.

    Args:
        batch: Its number.
        groups: The members.
        place: Where large columns may stand.
        grant: Place and bytes of shared memory that the answer may be written to.

    Raises:
        ProtocolError: A value cannot be sent, or all together is too large.
    """
    buffers: list[Buffer] = []
    heads: list[_BlockHead] = []
    size = 0
    for members in groups:
        first = members[0]
        counts = [m.rows for m in members]
        # Of several, `group` has made sure.
        if len(members) == 1 and (name := uneven(first.arrays, counts[0])):
            raise ProtocolError(f"tensor '{name}' has not as many rows as the first one, {counts[0]}")
        columns = [
            _put_column(name, [m.arrays[name] for m in members], buffers, place) for name in first.arrays
        ]
        size += _padded(columns)
        heads.append(_BlockHead(columns, counts, first.parameters, first.outputs))
    return _frame(_RUN, _RunHead(batch, heads, grant), buffers, size)


def encode_done(
    batch: int, service_s: float, outcomes: Sequence[Outcome], place: Place | None = None
) -> list[Buffer]:
    """Return the buffers of a frame that ends a batch; large columns stand at `place`.

    Raises:
        ProtocolError: A value cannot be sent, or all together is too large.
    """
    buffers: list[Buffer] = []
    blocks: list[_BlockHead] = []
    errors: dict[int, _ErrorHead] = {}
    size = 0
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, SemaforoError):
            errors[index] = _ErrorHead(outcome.code, outcome.message, outcome.retry_after_s)
            continue
        columns = [_put_column(name, (array,), buffers, place) for name, array in outcome.columns.items()]
        size += _padded(columns)
        blocks.append(_BlockHead(columns, outcome.counts))
    return _frame(_DONE, _DoneHead(batch, service_s, blocks, errors), buffers, size)


def _take_block(head: _BlockHead, body: bytearray, offset: int, memory: Memory | None) -> tuple[Block, int]:
    rows = sum(head.counts)
    columns: dict[str, Array] = {}
    for column in head.columns:
        shape = (rows, *column.shape)
        if column.dtype == "O":
            cells = _decode_any(memoryview(body)[offset : offset + column.size])
            array: Array = np.empty(len(cells), dtype=object)
            array[:] = cells
        else:
            dtype = np.dtype(column.dtype)
            if dtype.kind not in "biuf":
                raise ValueError(f"tensor '{column.name}' has the dtype {dtype}")
            if column.at >= 0:
                if memory is None:
                    raise ValueError(f"tensor '{column.name}' stands in memory that is not shared")
                columns[column.name] = memory.view(column.at, column.size).view(dtype).reshape(shape)
                continue
            array = np.frombuffer(body, dtype, column.size // dtype.itemsize, offset)
        columns[column.name] = array.reshape(shape)
        offset += column.size + -column.size % 8
    return Block(columns, head.counts, head.parameters, head.outputs), offset


def _decode_frame(kind: int, header: int, body: bytearray, memory: Memory | None) -> Message:
    head = memoryview(body)[:header]
    offset = header + -header % 8
    try:
        if kind == _RUN:
            run = _decode_run(head)
            blocks: list[Block] = []
            for block_head in run.blocks:
                block, offset = _take_block(block_head, body, offset, memory)
                blocks.append(block)
            return Run(run.batch, blocks, run.grant)
        if kind == _DONE:
            done = _decode_done(head)
            outcomes: list[Outcome] = []
            heads = iter(done.blocks)
            for index in range(len(done.blocks) + len(done.errors)):
                error = done.errors.get(index)
                if error is not None:
                    outcomes.append(error_from(error.code, error.message, error.retry_after_s))
                else:
                    block, offset = _take_block(next(heads), body, offset, memory)
                    outcomes.append(block)
            return Done(done.batch, done.service_s, outcomes)
        message: Message = _DECODERS[kind](head)
        return message
    except KeyError:
        raise ProtocolError(f"a frame of the unknown kind {kind} came in") from None
    except (msgspec.DecodeError, ValueError, TypeError, StopIteration) as error:
        raise ProtocolError(f"a frame of kind {kind} cannot be read: {error}") from None


class FrameReader:
    """Turns bytes into messages: write into `buffer()`, then call `received` with the number of bytes.

    Attributes:
        memory: What is shared with the other side, if anything.
    """

    def __init__(self, *, max_header: int = MAX_HEADER, max_buffers: int = MAX_BUFFERS) -> None:
        self.memory: Memory | None = None
        self._max_header = max_header
        self._max_buffers = max_buffers
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = 0
        self._end = 0
        self._large: bytearray | None = None
        self._filled = 0
        self._kind = 0
        self._header = 0

    def buffer(self) -> memoryview:
        """Return memory to receive into; never empty."""
        if self._large is not None:
            return memoryview(self._large)[self._filled :]
        return self._view[self._end :]

    def received(self, count: int) -> list[Message]:
        """Take note of `count` new bytes in `buffer()`, and return the messages that are now whole.

        Raises:
            ProtocolError: The peer speaks another version, or sends garbage, or too much.
        """
        messages: list[Message] = []
        if self._large is not None:
            self._filled += count
            if self._filled == len(self._large):
                body, self._large = self._large, None
                messages.append(_decode_frame(self._kind, self._header, body, self.memory))
            return messages
        self._end += count
        while self._end - self._start >= _PREFIX.size:
            size = self._begin()
            start = self._start + _PREFIX.size
            if self._end - start < size:
                if size > _SCRATCH - _PREFIX.size:
                    self._grow(start, size)
                break
            body = self._scratch[start : start + size]
            self._start = start + size
            messages.append(_decode_frame(self._kind, self._header, body, self.memory))
        self._compact()
        return messages

    def _begin(self) -> int:
        magic, version, kind, header, buffers = _PREFIX.unpack_from(self._scratch, self._start)
        if magic != _MAGIC:
            raise ProtocolError(f"what came in is not a frame of Semaforo: it begins with {magic!r}")
        if version != VERSION:
            raise ProtocolError(
                f"the other side speaks frames of version {version}, this side {VERSION}: "
                "install the same release of semaforo in the worker's environment"
            )
        if header > self._max_header or buffers > self._max_buffers:
            raise ProtocolError(
                f"a frame of {header + buffers} bytes is over the limit of {self._max_header} bytes of header "
                f"and {self._max_buffers} of tensors: send fewer rows"
            )
        self._kind, self._header = kind, header
        return int(header + -header % 8 + buffers)

    def _grow(self, start: int, size: int) -> None:
        have = self._end - start
        self._large = bytearray(size)
        self._large[:have] = self._view[start : self._end]
        self._filled = have
        self._start = self._end = 0

    def _compact(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start > 0:
            have = self._end - self._start
            self._view[:have] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, have
