"""A stream of requests, sent from a process of its own; each answer's time counts from when it was due.

An open loop sends each request at its moment, whatever has become of those before; a closed loop keeps so many on
their way. Both are bounded, in requests and in time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import msgspec
import numpy as np
import uvloop

from benchmarks.fusion.data import Array
from semaforo.wire.v2_client import HEADER_LENGTH, decode_reply, encode_request

_CONNECTIONS = 64
_WAIT_S = 30.0
_SPARE_S = 60.0


class Sent(msgspec.Struct, frozen=True):
    """What is asked.

    Attributes:
        requests: As they go over the wire.
        moments: When each is due, in seconds; empty = closed loop.
        at_once: Requests on their way, in a closed loop.
    """

    port: int
    requests: tuple[bytes, ...]
    moments: tuple[float, ...] = ()
    at_once: int = 4


class Came(msgspec.Struct, frozen=True):
    """What came of it, one entry a request: seconds from due to whole answer, its class, and who answered.

    Attributes:
        seconds: NaN where none came.
        label: -1 where none came.
        took: Seconds of the whole run.
    """

    seconds: list[float]
    label: list[int]
    who: list[str]
    took: float


def request(task: str, field: str, array: Array) -> bytes:
    """Return a request of V2 for one row, tensors as blobs."""
    body, head = encode_request({field: array}, {}, binary=True)
    lines = [
        f"POST /v2/models/{task}/infer HTTP/1.1", "host: 127.0.0.1", "content-type: application/octet-stream",
        f"content-length: {len(body)}", f"{HEADER_LENGTH}: {head}",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def send(sent: Sent) -> Came:
    """Send a stream and return what came of it.

    Raises:
        RuntimeError: The sender died, or did not end in time.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    try:
        ours.send(sent)
        last = sent.moments[-1] if sent.moments else 0.0
        if not ours.poll(last + _WAIT_S + _SPARE_S):
            raise RuntimeError("a stream did not end in time")
        came: Came = ours.recv()
    except EOFError:
        raise RuntimeError("the sender of a stream died") from None
    finally:
        ours.close()
        child.join(5.0)
        if child.is_alive():
            child.kill()
            child.join()
    return came


def _child(pipe: Connection) -> None:
    pipe.send(uvloop.run(_Stream(pipe.recv()).run()))


class _Stream:
    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        count = len(sent.requests)
        self._came = Came([float("nan")] * count, [-1] * count, [""] * count, 0.0)
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()

    async def run(self) -> Came:
        count = len(self._sent.requests)
        open_loop = bool(self._sent.moments)
        for _ in range(_CONNECTIONS if open_loop else self._sent.at_once):
            self._free.put_nowait(await asyncio.open_connection("127.0.0.1", self._sent.port))
        begun = time.monotonic() + 0.05
        asked = []
        if open_loop:
            for number, moment in enumerate(self._sent.moments):
                await asyncio.sleep(begun + moment - time.monotonic())
                asked.append(asyncio.ensure_future(self._ask(number, begun + moment)))
        else:
            numbers = iter(range(count))
            asked = [asyncio.ensure_future(self._turns(numbers)) for _ in range(self._sent.at_once)]
        _, late = await asyncio.wait(asked, timeout=_WAIT_S)
        for task in late:
            task.cancel()
        for task in asked:
            if not task.cancelled() and task.done() and task.exception() is not None:
                raise RuntimeError(f"a request failed: {task.exception()}")
        return msgspec.structs.replace(self._came, took=time.monotonic() - begun)

    async def _turns(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._ask(number, time.monotonic())

    async def _ask(self, number: int, due: float) -> None:
        reader, writer = await self._free.get()
        writer.write(self._sent.requests[number])
        head = await reader.readuntil(b"\r\n\r\n")
        status, _, lines = head.decode("latin-1").partition("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines.split("\r\n")) if k}
        body = await reader.readexactly(int(headers["content-length"]))
        done = time.monotonic()
        self._free.put_nowait((reader, writer))
        if status.split()[1] != "200":
            return
        _, _, outputs = decode_reply(bytearray(body), headers.get(HEADER_LENGTH))
        self._came.seconds[number] = done - due
        self._came.label[number] = int(np.asarray(outputs["probabilities"]).argmax())
        self._came.who[number] = headers.get("semaforo-model", "")
