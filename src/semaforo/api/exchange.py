"""What goes between a client and a server, whoever carries it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True):
    """One HTTP request.

    Attributes:
        method, path: The path is percent-encoded.
        headers: Names in lower case.
        content: Body.
        deadline_s: Seconds within which an answer is of use; None = as the client is set.
        repeatable: Whether it may be sent again when its connection breaks before an answer.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    content: bytes = b""
    deadline_s: float | None = None
    repeatable: bool = False


class Reply(msgspec.Struct, frozen=True):
    """One whole HTTP response; headers are looked up by names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Ticket(msgspec.Struct, frozen=True):
    """A request in the server's queue: its id, and whether it is of one row."""

    id: str
    single: bool


Call = Generator[Ask, Reply, T]
