"""Sending: many inputs at once over a few connections, with what came of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import httptools

from benchmarks.fuzzing.inputs import Call, Input

HANG_S = 15.0


class Outcome:
    """What came of all inputs.

    Attributes:
        sent: Inputs that were sent.
        statuses: Answers by status or code.
        wrong: Inputs that were answered as a server's fault, with the answer; the first few of them.
        faults: How many there were.
        hangs: Inputs that were not answered in time.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.statuses: Counter[str] = Counter()
        self.wrong: list[tuple[Any, str, bytes]] = []
        self.faults = 0
        self.hangs = 0

    def fault(self, sent: Any, status: str, body: bytes) -> None:
        """Note an answer that should not have been."""
        self.faults += 1
        if len(self.wrong) < 20:
            self.wrong.append((sent, status, body))


class _Reader(asyncio.Protocol):
    def __init__(self) -> None:
        self.done: asyncio.Future[int] | None = None
        self.body = b""
        self.open = True
        self.head_only = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, data: bytes) -> asyncio.Future[int]:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.done

    def data_received(self, data: bytes) -> None:
        if self.done is not None and not self.done.done():
            self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        if self.head_only:
            self._settle()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() < 200:
            return
        if not self.parser.should_keep_alive():
            self.open = False
        self._settle()

    def _settle(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(self.parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionResetError("closed without an answer"))


async def send_http(
    port: int, inputs: Iterator[Input], count: int, connections: int, outcome: Outcome
) -> None:
    """Send `count` inputs over so many connections."""
    loop = asyncio.get_running_loop()
    left = count

    async def one() -> None:
        nonlocal left
        reader: _Reader | None = None
        while left > 0:
            left -= 1
            sent = next(inputs)
            if reader is None or not reader.open:
                _, reader = await loop.create_connection(_Reader, "127.0.0.1", port)
            outcome.sent += 1
            try:
                async with asyncio.timeout(HANG_S):
                    status = await _answer(reader, sent)
            except TimeoutError:
                outcome.hangs += 1
                outcome.fault(sent, "no answer", b"")
                reader.transport.abort()
                reader = None
                continue
            except (ConnectionResetError, httptools.HttpParserError) as error:
                outcome.fault(sent, str(error), b"")
                reader = None
                continue
            outcome.statuses[str(status)] += 1
            late = status in (503, 504) and sent.may_be_late
            if status >= 500 and status != 501 and not late:
                outcome.fault(sent, str(status), reader.body)
        if reader is not None:
            reader.transport.close()

    await asyncio.gather(*[one() for _ in range(connections)])


async def _answer(reader: _Reader, sent: Input) -> int:
    lines = [f"{sent.method} {sent.path} HTTP/1.1", "host: localhost", f"content-length: {len(sent.body)}"]
    lines += [f"{name}: {value}" for name, value in sent.headers.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    if sent.method == "HEAD":
        # An answer to HEAD looks as if a body followed: take its status and begin anew.
        reader.open = False
        reader.head_only = True
    return await reader.ask(head + sent.body)


async def send_heads(port: int, heads: list[bytes], outcome: Outcome) -> None:
    """Send raw bytes, each over a connection of its own; the server has to end every one of them."""

    async def one(data: bytes) -> None:
        outcome.sent += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(HANG_S):
                writer.write(data)
                answer = await reader.read()
        except TimeoutError:
            outcome.hangs += 1
            outcome.fault(data, "no end", b"")
            return
        except ConnectionError:
            outcome.statuses["reset"] += 1
            return
        finally:
            writer.close()
        status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"
        outcome.statuses[status] += 1
        if status.startswith("5"):
            outcome.fault(data, status, answer[-300:])

    for at in range(0, len(heads), 32):
        await asyncio.gather(*[one(data) for data in heads[at : at + 32]])


async def send_grpc(port: int, calls: Iterator[Call], count: int, at_once: int, outcome: Outcome) -> None:
    """Make `count` gRPC calls, so many at once."""
    import grpc
    import grpc.aio

    faults = {
        grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS,
    }  # fmt: skip
    left = count
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        methods: dict[str, Any] = {}

        async def one() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                call = next(calls)
                ask = methods.get(call.method)
                if ask is None:
                    ask = methods[call.method] = channel.unary_unary(
                        f"/inference.GRPCInferenceService/{call.method}", _same, _same
                    )
                outcome.sent += 1
                try:
                    await ask(call.body, timeout=HANG_S)
                    outcome.statuses["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                    outcome.statuses[code.name] += 1
                    if code == grpc.StatusCode.DEADLINE_EXCEEDED and not call.may_be_late:
                        outcome.hangs += 1
                    if code in faults and not (code == grpc.StatusCode.UNAVAILABLE and call.may_be_late):
                        outcome.fault(call, code.name, (error.details() or "").encode())

        await asyncio.gather(*[one() for _ in range(at_once)])


def _same(data: bytes) -> bytes:
    return data
