"""Options of whatever hosts a replica: the keys of a replica's options that begin with ``worker.``."""

from __future__ import annotations

from typing import Annotated

import msgspec

from semaforo.entities import ReplicaSpec
from semaforo.runtime.host import WORKER_PREFIX
from semaforo.runtime.options import read_options

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class WorkerOptions(msgspec.Struct, frozen=True, rename=lambda name: WORKER_PREFIX + name):
    """How a replica is watched.

    Attributes:
        ping_s: Seconds between two pings of a busy worker; an idle one is asked five times less often.
        hang_s: Least seconds after which a batch without progress counts as hung; ten times its predicted
            time if that is more.
        start_s: Most seconds to load and warm up.
        stall_s: Most seconds between two chunks of a stream.
    """

    ping_s: _Seconds = 1.0
    hang_s: _Seconds = 10.0
    start_s: _Seconds = 300.0
    stall_s: _Seconds = 120.0


def worker_options(spec: ReplicaSpec) -> WorkerOptions:
    """Read a replica's options for its host.

    Raises:
        RuntimeLoadError: One is unknown or wrong.
    """
    given = {name: value for name, value in spec.options.items() if name.startswith(WORKER_PREFIX)}
    return read_options("worker", given, WorkerOptions)
