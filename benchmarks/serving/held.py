"""Many connections, or streams of gRPC, that are held open and mostly idle; in a process of its own.

It opens them all, has each answered once, says so, and then, on each line it is given, does the next thing:
``trickle`` asks over one after another at a slow rate, the end of its input closes everything.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import httptools
import msgspec

from benchmarks.report import percentile

_AT_ONCE = 100
_ANSWER_S = 20.0
_STREAMS_PER_CHANNEL = 100


class Held(msgspec.Struct, frozen=True):
    """What is held.

    Attributes:
        port: Loopback port of the server.
        count: Connections, or streams.
        body: What is sent each time: a whole HTTP request, or a message of gRPC.
        streams: Whether it is streams of gRPC.
        rate: Requests per second of the trickle, over all.
        seconds: Of the trickle.
    """

    port: int
    count: int
    body: bytes
    streams: bool = False
    rate: float = 200.0
    seconds: float = 5.0


Ask = Callable[[], Awaitable[bool]]


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[bool] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        self._say(status == 200)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._say(False)

    def _say(self, good: bool) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(good)

    async def ask(self, body: bytes) -> bool:
        if self._transport is None:
            return False
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(body)
        return await self._answered


async def _open_http(plan: Held) -> list[Ask]:
    loop = asyncio.get_running_loop()

    async def connect() -> Ask:
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", plan.port)
        return lambda: connection.ask(plan.body)

    opened: list[Ask] = []
    while len(opened) < plan.count:
        batch = min(_AT_ONCE, plan.count - len(opened))
        opened += await asyncio.gather(*(connect() for _ in range(batch)))
    return opened


async def _open_streams(plan: Held) -> list[Ask]:
    import grpc
    from tritonclient.grpc import service_pb2

    from benchmarks.serving.forms import GRPC_STREAM

    private = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{plan.port}", options=private)
        for _ in range(-(-plan.count // _STREAMS_PER_CHANNEL))
    ]

    def opened(number: int) -> Ask:
        stream = channels[number % len(channels)].stream_stream(
            GRPC_STREAM, response_deserializer=service_pb2.ModelStreamInferResponse.FromString
        )()

        async def ask() -> bool:
            await stream.write(plan.body)
            answer = await stream.read()
            return answer is not grpc.aio.EOF and not answer.error_message

        # The channel lives as long as what asks over it.
        return ask

    return [opened(number) for number in range(plan.count)]


async def _timed(ask: Ask) -> tuple[float, bool]:
    began = time.monotonic()
    try:
        good = await asyncio.wait_for(ask(), _ANSWER_S)
    except (TimeoutError, OSError):
        good = False
    except Exception as error:  # of gRPC, whose package is not imported where nothing speaks it
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        good = False
    return (time.monotonic() - began) * 1e3, good


async def _all_once(asked: list[Ask]) -> int:
    errors = 0
    for start in range(0, len(asked), _AT_ONCE):
        for _, good in await asyncio.gather(*(_timed(ask) for ask in asked[start : start + _AT_ONCE])):
            errors += not good
    return errors


async def _trickle(plan: Held, asked: list[Ask]) -> dict[str, float]:
    # Each one's turns lie a second apart at least, as an answer must be there before the next is asked.
    rate = min(plan.rate, len(asked))
    count = int(rate * plan.seconds)
    began = time.monotonic()
    running = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        # A stride that is prime to the count comes to every one, in no order that caches know.
        running.append(asyncio.create_task(_timed(asked[number * 7919 % len(asked)])))
    found = await asyncio.gather(*running)
    times = [took for took, good in found if good]
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "errors": len(found) - len(times)}


async def _run(plan: Held) -> None:
    asked = await (_open_streams(plan) if plan.streams else _open_http(plan))
    print(msgspec.json.encode({"errors": await _all_once(asked)}).decode(), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(msgspec.json.encode(await _trickle(plan, asked)).decode(), flush=True)


def main() -> None:
    """Hold what one plan says."""
    import uvloop

    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Held)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(_run(plan))


if __name__ == "__main__":
    main()
