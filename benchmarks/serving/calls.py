"""A small gRPC generator in a process of its own: messages go as bytes, so that nothing is encoded per call."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.report import percentile
from benchmarks.serving.forms import GRPC_METHOD

WARM_S = 0.5


class Calls(msgspec.Struct, frozen=True):
    """A closed loop of calls.

    Attributes:
        port: Loopback port of the server.
        body: The message.
        calls: Calls at once.
        seconds: For how long, after a warm-up.
        channels: Connections that the calls share.
        cores: Cores to stay on; empty = any.
    """

    port: int
    body: bytes
    calls: int
    seconds: float
    channels: int = 4
    cores: tuple[int, ...] = ()


async def run(plan: Calls) -> dict[str, float]:
    """Call until the time is over; return the fields of `benchmarks.serving.load.Flow`."""
    import grpc

    private = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{plan.port}", options=private) for _ in range(plan.channels)
    ]
    times: list[float] = []
    errors = 0
    began = time.monotonic() + WARM_S
    end = began + plan.seconds

    async def ask(number: int) -> None:
        nonlocal errors
        call = channels[number % len(channels)].unary_unary(GRPC_METHOD)
        while (sent := time.monotonic()) < end:
            try:
                await call(plan.body, timeout=10)
            except grpc.RpcError:
                errors += 1
                continue
            if sent >= began:
                times.append((time.monotonic() - sent) * 1e3)

    await asyncio.gather(*(ask(number) for number in range(plan.calls)))
    for channel in channels:
        await channel.close()
    return {
        "rate": len(times) / plan.seconds, "p50": percentile(times, 0.5), "p99": percentile(times, 0.99),
        "answers": len(times), "errors": errors,
    }  # fmt: skip


def main() -> None:
    """Run one plan in this process."""
    import uvloop

    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Calls)
    if plan.cores:
        os.sched_setaffinity(0, plan.cores)
    print(msgspec.json.encode(uvloop.run(run(plan))).decode())


if __name__ == "__main__":
    main()
