"""Memory that a gateway shares with its worker processes, so that large arrays are written once and never sent.

Rules this module keeps:

1. Only the gateway gives memory out and takes it back. A worker writes where it was allowed to, for one batch, and
   says when it has let go of what it was given to read.
2. A block is given back when no array over it is left, in whichever thread the last one goes.
3. It is a file without a name: it is gone with the last process that has it open, however that ends.
4. Where it is full, or the machine has no such files, arrays travel through the socket.

A worker reads through a private mapping: what a model writes into its input is seen by nobody else, and is dropped
with the input.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from semaforo.wire.payload import Array

SIZE = 256 * 1024 * 1024
BLOCK = 64 * 1024
"""Smallest block; blocks are this times a power of two, and aligned to their size (buddies: Knowlton, 1965)."""
_PAGE = mmap.PAGESIZE


class Arena:
    """The gateway's side.

    Args:
        size: Bytes; pages that were never written take no memory.

    Attributes:
        descriptor: Of the file, for workers to inherit.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.descriptor = os.memfd_create("semaforo", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._size = size
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._address = self._bytes.ctypes.data
        self._orders = (size // BLOCK).bit_length() - 1
        self._free: list[set[int]] = [set() for _ in range(self._orders + 1)]
        self._free[self._orders].add(0)
        self._live: dict[int, weakref.ref[Array]] = {}
        self._starts: list[int] = []
        # Arrays end in any thread, even while memory is given out here.
        self._returned: deque[tuple[int, int]] = deque()
        weakref.finalize(self, os.close, self.descriptor)

    def take(self, size: int) -> Array | None:
        """Return bytes of at least `size`, or None where there are none; they are given back with the array."""
        self._collect()
        order = max(0, -(-size // BLOCK) - 1).bit_length()
        found = next((o for o in range(order, self._orders + 1) if self._free[o]), None)
        if found is None:
            return None
        at = self._free[found].pop()
        while found > order:
            found -= 1
            self._free[found].add(at + (BLOCK << found))
        root = np.frombuffer(memoryview(self._map)[at : at + (BLOCK << order)], np.uint8)
        weakref.finalize(root, self._returned.append, (at, order))
        self._live[at] = weakref.ref(root)
        insort(self._starts, at)
        return root

    def at(self, array: Array) -> int:
        """Return where an array stands, -1 where it is none of these, or where a worker could not see it alone."""
        at = int(array.__array_interface__["data"][0]) - self._address
        if 0 <= at < self._size and at % _PAGE == 0 and array.flags.c_contiguous:
            return at
        return -1

    def view(self, at: int, size: int) -> Array:
        """Return bytes of a block that is in use; the block stays in use as long as they.

        Raises:
            ValueError: There is none.
        """
        place = bisect_right(self._starts, at) - 1
        start = self._starts[place] if place >= 0 else -1
        reference = self._live.get(start)
        root = reference() if reference is not None else None
        if root is None or size < 0 or at - start + size > len(root):
            raise ValueError(f"no memory is in use at {at} … {at + size}")
        return root[at - start : at - start + size]

    @property
    def used(self) -> int:
        """Bytes that are given out."""
        self._collect()
        return self._size - sum(len(free) * (BLOCK << order) for order, free in enumerate(self._free))

    def _collect(self) -> None:
        while self._returned:
            at, order = self._returned.popleft()
            del self._live[at]
            self._starts.remove(at)
            while order < self._orders and (buddy := at ^ (BLOCK << order)) in self._free[order]:
                self._free[order].remove(buddy)
                at = min(at, buddy)
                order += 1
            self._free[order].add(at)


def arena() -> Arena | None:
    """Return new shared memory, or None where this machine has none."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, ValueError):
        return Arena()
    return None


class Lender:
    """What a replica's worker may read and write, batch by batch.

    Args:
        memory: The gateway's.
    """

    def __init__(self, memory: Arena) -> None:
        self.memory = memory
        self._reads: dict[int, list[Array]] = {}
        self._writes: dict[int, Array] = {}
        self._row_bytes = 0.0

    def put(self, parts: Sequence[Array], size: int) -> int:
        """Return where arrays stand side by side: where they are already, or a copy; -1 where there is no room."""
        array = parts[0]
        at = self.memory.at(array) if len(parts) == 1 else -1
        if at < 0:
            root = self.memory.take(size)
            if root is None:
                return -1
            array = root
            offset = 0
            for part in parts:
                room = root[offset : offset + part.nbytes].view(part.dtype).reshape(part.shape)
                np.copyto(room, part)
                offset += part.nbytes
            at = self.memory.at(root)
        self._reads.setdefault(at, []).append(array)
        return at

    def grant(self, batch: int, rows: int) -> tuple[int, int] | None:
        """Return where the answer to a batch may be written, as large as such answers have been."""
        size = int(self._row_bytes * rows)
        root = self.memory.take(size) if size else None
        if root is None:
            return None
        self._writes[batch] = root
        return self.memory.at(root), len(root)

    def answered(self, batch: int, rows: int, columns: Sequence[Array], least: int) -> None:
        """Take back what an answer has not been written to, and learn how large answers are."""
        self._writes.pop(batch, None)
        size = sum(-(-array.nbytes // _PAGE) * _PAGE for array in columns if array.nbytes >= least)
        self._row_bytes = size / rows if rows else 0.0

    def failed(self, batch: int) -> None:
        """Take back what the answer to a batch would have been written to."""
        self._writes.pop(batch, None)

    def freed(self, places: Sequence[int]) -> None:
        """Note that the worker has let go of what it was given to read."""
        for at in places:
            kept = self._reads.get(at)
            if kept:
                kept.pop()
                if not kept:
                    del self._reads[at]

    def over(self) -> None:
        """Take everything back: the worker is gone."""
        self._reads.clear()
        self._writes.clear()


class Window:
    """A worker's side.

    Args:
        descriptor: Of the gateway's file.

    Attributes:
        freed: Places that nobody here reads any more, since the list was last emptied.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._read = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE)
        self._write = mmap.mmap(descriptor, size)
        os.close(descriptor)
        self._size = size
        self.freed: list[int] = []

    def view(self, at: int, size: int) -> Array:
        """Return bytes to read.

        Raises:
            ValueError: There is no such place.
        """
        if at < 0 or at % _PAGE or size < 0 or at + size > self._size:
            raise ValueError(f"no shared memory is at {at} … {at + size}")
        root = np.frombuffer(memoryview(self._read)[at : at + size], np.uint8)
        weakref.finalize(root, self._let_go, at, size)
        return root

    def grant(self, given: tuple[int, int] | None) -> Grant | None:
        """Return what may be written."""
        if given is None:
            return None
        at, size = given
        return Grant(at, np.frombuffer(memoryview(self._write)[at : at + size], np.uint8))

    def _let_go(self, at: int, size: int) -> None:
        # Pages that the model has written to are its own: without this it would see them again next time.
        with contextlib.suppress(ValueError):
            self._read.madvise(mmap.MADV_DONTNEED, at, size)
        self.freed.append(at)


class Grant:
    """Memory that the answer to one batch is written to."""

    def __init__(self, at: int, room: Array) -> None:
        self._at, self._room = at, room
        self._used = 0

    def put(self, parts: Sequence[Array], size: int) -> int:
        """Copy arrays side by side and return where; -1 where there is no room."""
        start = self._used
        if start + size > len(self._room):
            return -1
        offset = start
        for part in parts:
            room: Any = self._room[offset : offset + part.nbytes].view(part.dtype).reshape(part.shape)
            np.copyto(room, part)
            offset += part.nbytes
        self._used = -(-offset // _PAGE) * _PAGE
        return self._at + start
