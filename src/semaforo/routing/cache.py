"""Answers that were given before: bounded in bytes and in age, the least recently used first to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

A = TypeVar("A")


class Kept(msgspec.Struct, Generic[A]):
    """An answer.

    Attributes:
        answer: What was said.
        variant: Id of the variant that said it.
        bytes: What it counts for.
        until: When it is too old, monotonic seconds.
    """

    answer: A
    variant: str
    bytes: int
    until: float


class Cache(Generic[A]):
    """Answers of one task by key.

    Args:
        most: Bytes to keep.
        keep_s: Seconds after which an answer is too old.
        dropped: Told of the key of each answer that goes.
    """

    def __init__(self, most: int, keep_s: float, dropped: Callable[[bytes], None] | None = None) -> None:
        self._most = most
        self._keep_s = keep_s
        self._dropped = dropped
        self._kept: OrderedDict[bytes, Kept[A]] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def get(self, key: bytes, now: float) -> Kept[A] | None:
        """Return the answer under a key, if it is there and not too old."""
        found = self.peek(key, now)
        if found is None:
            self.misses += 1
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        return found

    def peek(self, key: bytes, now: float) -> Kept[A] | None:
        """Return the answer under a key as `get` does, without counting."""
        found = self._kept.get(key)
        if found is not None and found.until <= now:
            self.drop(key)
            found = None
        return found

    def put(self, key: bytes, answer: A, variant: str, size: int, now: float) -> None:
        """Keep an answer; one that is larger than a quarter of all that is kept is not."""
        if size * 4 > self._most:
            return
        self.drop(key)
        self._kept[key] = Kept(answer, variant, size, now + self._keep_s)
        self.bytes += size
        while self.bytes > self._most:
            self.drop(next(iter(self._kept)))

    def forget(self, variants: set[str]) -> None:
        """Drop what these variants have said."""
        for key in [k for k, kept in self._kept.items() if kept.variant in variants]:
            self.drop(key)

    def drop(self, key: bytes) -> None:
        """Forget the answer under a key, where there is one."""
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= found.bytes
            if self._dropped is not None:
                self._dropped(key)
