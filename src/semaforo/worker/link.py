"""Frames over a Unix socket: blocking in a worker, by callbacks on an event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from semaforo.errors import ProtocolError
from semaforo.wire.frames import Buffer, FrameReader, Memory, encode, size_of
from semaforo.wire.messages import Message, Plain

_JOINED = 128 * 1024


class BlockingLink:
    """One end of a socket for a thread that waits."""

    def __init__(self, sock: socket.socket, memory: Memory | None = None) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._reader.memory = memory
        self._pending: deque[Message] = deque()
        self._sending = threading.Lock()

    def messages(self) -> Iterator[Message]:
        """Give messages as they come, until the peer closes.

        Raises:
            ProtocolError: The peer sent something else than frames of this version.
        """
        while True:
            while self._pending:
                yield self._pending.popleft()
            count = self._receive()
            if count == 0:
                return
            # Held nowhere else: what was given out is let go of when whoever took it lets go.
            self._pending.extend(self._reader.received(count))

    def send(self, message: Plain) -> None:
        """Send a message without arrays."""
        with self._sending:
            self._sock.sendall(encode(message))

    def send_buffers(self, buffers: Sequence[Buffer]) -> None:
        """Send a frame that is still in parts."""
        with self._sending:
            if size_of(buffers) <= _JOINED:
                self._sock.sendall(b"".join(buffers))
            else:
                for buffer in buffers:
                    self._sock.sendall(buffer)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _receive(self) -> int:
        try:
            return self._sock.recv_into(self._reader.buffer())
        except ConnectionError:
            return 0


class LoopLink(asyncio.BufferedProtocol):
    """One end of a socket on an event loop.

    Args:
        on_message: Called with each message.
        on_lost: Called once when the socket is closed, with why where the peer is at fault.
        memory: What is shared with the other side.
    """

    def __init__(
        self,
        on_message: Callable[[Message], None],
        on_lost: Callable[[ProtocolError | None], None],
        memory: Memory | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._reader.memory = memory
        self._transport: asyncio.Transport | None = None
        self._fault: ProtocolError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to receive into (asyncio)."""
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received (asyncio)."""
        try:
            for message in self._reader.received(nbytes):
                self._on_message(message)
        except ProtocolError as error:
            self._fault = error
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it is over (asyncio)."""
        self._transport = None
        self._on_lost(self._fault)

    def send(self, message: Plain) -> None:
        """Send a message without arrays; nothing happens on a closed socket."""
        if self._transport is not None:
            self._transport.write(encode(message))

    def send_buffers(self, buffers: Sequence[Buffer]) -> None:
        """Send a frame that is still in parts; nothing happens on a closed socket."""
        if self._transport is None:
            return
        if size_of(buffers) <= _JOINED:
            self._transport.write(b"".join(buffers))
            return
        for buffer in buffers:
            self._transport.write(buffer.cast("B") if isinstance(buffer, memoryview) else buffer)

    def close(self) -> None:
        """Close the socket at once."""
        if self._transport is not None:
            self._transport.abort()
