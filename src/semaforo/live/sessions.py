"""What sessions remember from one request to the next: a conversation, a track, the state of a sequence model.

Rules this module keeps:

1. A session belongs to a tenant and a graph; another tenant's session of the same name is another session.
2. What has not been used for a while is forgotten, and so is the least lately used where there is too much.
3. A value is read by reference: who reads it must not write into it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import DTYPES, Request, TensorSpec
from semaforo.graph.graph import Graph
from semaforo.graph.values import Values, whole

Array = NDArray[Any]
Key = tuple[str, str, str]

MOST_BYTES = 256_000_000
MOST_SESSIONS = 100_000


class _Session(msgspec.Struct):
    used_at: float
    keep_s: float
    size: int
    values: dict[str, Array]


class Sessions:
    """All sessions of a fleet, in memory.

    Args:
        clock: Returns monotonic seconds.
        most_bytes: Bytes all values together may hold.
    """

    def __init__(self, clock: Callable[[], float], most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._most = most_bytes
        self._size = 0
        self._known: OrderedDict[Key, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, graph: Graph, request: Request) -> dict[str, Array]:
        """Return what the session of a request remembers; zeros and empty texts where it is new."""
        rows = request.ref.rows
        self._forget()
        found = self._known.get(_key(graph, request)) if request.affinity else None
        now = self._clock()
        if found is not None and now - found.used_at > found.keep_s:
            # Older ones that are kept for longer stand before it in the line.
            found = None
        if found is not None:
            found.used_at = now
            self._known.move_to_end(_key(graph, request))
        kept = found.values if found is not None else {}
        return {
            spec.name: kept[spec.name]
            if spec.name in kept and len(kept[spec.name]) == rows
            else _empty(spec, rows)
            for spec in graph.session
        }

    def put(self, graph: Graph, request: Request, values: Values, keep_s: float = 600.0) -> None:
        """Keep what a graph wants remembered; without a session nothing is.

        Raises:
            InvalidRequest: A value is not there for every row.
        """
        if not request.affinity:
            return
        key = _key(graph, request)
        before = self._known.pop(key, None)
        kept = dict(before.values) if before is not None and self._clock() - before.used_at <= keep_s else {}
        for name, reference in graph.remember.items():
            kept[name] = whole(values.get(reference), values.rows, reference)
        if before is not None:
            self._size -= before.size
        size = sum(_bytes(array) for array in kept.values())
        self._known[key] = _Session(self._clock(), keep_s, size, kept)
        self._size += size
        self._forget()

    def _forget(self) -> None:
        now = self._clock()
        while self._known:
            key, first = next(iter(self._known.items()))
            full = self._size > self._most or len(self._known) > MOST_SESSIONS
            if not full and now - first.used_at <= first.keep_s:
                return
            del self._known[key]
            self._size -= first.size


def _key(graph: Graph, request: Request) -> Key:
    return request.contract.tenant, graph.name, request.affinity


def _empty(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *(0 if dimension < 0 else dimension for dimension in spec.shape))
    if spec.dtype == "BYTES":
        return np.full(shape, b"", object)
    return np.zeros(shape, DTYPES[spec.dtype])


def _bytes(array: Array) -> int:
    if array.dtype != object:
        return array.nbytes
    return sum(len(cell) for cell in array.ravel()) + 64 * array.size
