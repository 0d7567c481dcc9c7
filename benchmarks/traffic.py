"""Loads for the benchmarks: requests of several kinds, mixed by shares, sent by `semaforo.traffic`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from semaforo.traffic.arrivals import poisson
from semaforo.traffic.load import Kind as Sent
from semaforo.traffic.load import Load as Run
from semaforo.traffic.load import Server
from semaforo.traffic.outcome import Outcome
from semaforo.traffic.process import generate as run_it

__all__ = ["LINGER_S", "Kind", "Load", "Outcome", "generate"]

LINGER_S = 5.0
_MIXED = 10_000


class Kind(msgspec.Struct, frozen=True):
    """One kind of request: its share of the arrivals, and what is sent (`packed` where the body is no text)."""

    name: str
    share: float
    path: str
    body: str
    headers: dict[str, str] = {}
    packed: bytes = b""


class Load(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        port: Loopback port of the server.
        kinds: What is asked.
        seconds: For how long.
        rate: Requests per second of an open loop, with Poisson arrivals; 0 = closed loop.
        connections: Of a closed loop; the most of an open one.
        seed: Of the schedule.
        cores: Cores to stay on; empty = any.
    """

    port: int
    kinds: tuple[Kind, ...]
    seconds: float
    rate: float = 0.0
    connections: int = 1024
    seed: int = 0
    cores: tuple[int, ...] = ()


def generate(load: Load, folder: Path | None = None) -> Outcome:
    """Run a load in a process of its own and return what happened; nothing is left in any folder."""
    moments = poisson(load.rate, load.seconds, load.seed) if load.rate else None
    shares = np.array([kind.share for kind in load.kinds])
    drawn = np.random.default_rng(load.seed + 1)
    which = drawn.choice(len(shares), _MIXED if moments is None else len(moments), p=shares / shares.sum())
    return run_it(
        Run(
            Server("127.0.0.1", load.port),
            tuple(_sent(kind) for kind in load.kinds),
            load.seconds,
            moments,
            tuple(which.tolist()),
            load.connections,
            wait_s=LINGER_S,
            cores=load.cores,
        )
    )


def _sent(kind: Kind) -> Sent:
    body = kind.packed or kind.body.encode()
    return Sent(kind.name, kind.path, {"content-type": "application/json", **kind.headers}, ((body, None),))
